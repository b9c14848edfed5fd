//! The agent beside the calls: what it tells, what it mends by itself, whom it answers.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::host::{Host, eventually};
use crate::plugin::{Call, config};

#[test]
fn drift_is_told_and_mended() {
    let host = Host::started();
    let pod = host.pod();
    let call = Call::new("c", &pod.path, &config(&host, "1.1.0", "linux-bridge"));
    call.run().unwrap();
    let end = host.host_ends().remove(0);
    host.netns.run(&format!("ip link set {end} nomaster"));
    eventually("the port is plugged in again", || {
        let link = host.netns.ip(&format!("link show dev {end}")).remove(0);
        if link["master"] == "br0" { Ok(()) } else { Err(link.to_string()) }
    });
    // Counted once a second look has found nothing more to do.
    let repaired =
        |text: String| text.contains("holdfast_attachment_repairs_total{what=\"port\"} 1").then_some(()).ok_or(text);
    eventually("the repair is counted", || repaired(get(&host, "/metrics")));
    let text = get(&host, "/metrics");
    assert!(
        text.contains(r#"holdfast_cni_duration_seconds_count{verb="ADD",backend="linux-bridge",outcome="ok"} 1"#),
        "{text}"
    );
    assert!(text.contains(r#"holdfast_leases{kind="ipleases",state="held"} 1"#), "{text}");
    assert!(text.contains("holdfast_vmi_drift_repairs_total 0"), "{text}");
    assert!(text.ends_with("# EOF\n"));
    assert_eq!(get(&host, "/healthz"), "ok");
    let attachments: Value = serde_json::from_str(&get(&host, "/debug/attachments")).unwrap();
    assert_eq!(attachments[0]["record"]["attachment"]["id"]["containerId"], "c");
    assert_eq!(attachments[0]["plan"], json!([]));
    assert_eq!(call.verb("DEL").run(), Ok(Value::Null));
    host.assert_clean();
}

/// GET over the agent's socket.
pub fn get(host: &Host, path: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::os::unix::net::UnixStream::connect(host.http()).unwrap();
    stream.set_read_timeout(Some(crate::host::DEADLINE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    body.to_owned()
}

#[test]
fn only_root_may_ask() {
    let host = Host::started();
    let mode =
        |path: &Path| std::os::unix::fs::PermissionsExt::mode(&fs::metadata(path).unwrap().permissions()) & 0o777;
    assert_eq!(mode(host.socket().parent().unwrap()), 0o700);
    assert_eq!(mode(&host.socket()), 0o600);
    // Even where the folder lets everybody in.
    for path in [host.folder.path(), host.socket().parent().unwrap(), &host.socket()] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    }
    let request = json!({"version": 1, "verb": "STATUS", "config": config(&host, "1.1.0", "linux-bridge")}).to_string();
    let answered = |uid| {
        let mut command = Command::new("python3");
        command.args(["-c", ASK]).arg(host.socket()).arg(&request).uid(uid);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert!(answered(0).contains("done"));
    assert_eq!(answered(65534), "nothing");
}

/// Sends a frame to the socket and prints what comes back; a connection that is refused after all fails.
const ASK: &str = r#"
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.settimeout(10)
s.connect(sys.argv[1])
body = sys.argv[2].encode()
try:
    s.sendall(len(body).to_bytes(4, "big") + body)
    # The length may come before the rest.
    print(s.makefile("rb").read()[4:].decode() or "nothing")
except (BrokenPipeError, ConnectionResetError):
    print("nothing")
"#;
