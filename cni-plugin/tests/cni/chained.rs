//! Our plugin behind a primary plugin of another hand.

use std::path::Path;

use serde_json::{Value, json};

use crate::host::{Host, eventually};
use crate::plugin::{Call, config};

/// The reference plugins of Debian's containernetworking-plugins.
const BRIDGE: &str = "/usr/lib/cni/bridge";

#[test]
fn behind_the_reference_bridge_plugin() {
    let host = Host::started();
    for version in ["0.3.1", "0.4.0", "1.0.0"] {
        chain(&host, version);
    }
}

fn chain(host: &Host, version: &str) {
    let pod = host.pod();
    let primary = json!({
        "cniVersion": version, "name": "list", "type": "bridge", "bridge": "cni0",
        "ipam": {"type": "host-local", "dataDir": host.folder.path().join("ipam"),
                 "ranges": [[{"subnet": "198.51.100.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]},
    });
    // The primary works in the namespace that it is started in: the host's.
    let wrapper = host.folder.path().join("bridge-in-host");
    let script = format!("#!/bin/sh\nexec nsenter --net={} -- {BRIDGE}\n", host.netns.path.display());
    std::fs::write(&wrapper, script).unwrap();
    std::fs::set_permissions(&wrapper, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();

    let first = Call::new("chain", &pod.path, &primary).ifname("eth0");
    let before = first.exec(&wrapper).unwrap();
    let ours = Call::new("chain", &pod.path, &config(host, version, "linux-bridge")).ifname("eth0");
    let ours = ours.with("name", json!("list"));
    let all = ours.with("prevResult", before.clone()).run().unwrap();

    assert_eq!(all["cniVersion"], version);
    assert_eq!(pod.links(), ["eth0", "hf0"]);
    let count = before["interfaces"].as_array().unwrap().len();
    let interfaces = all["interfaces"].as_array().unwrap();
    assert_eq!(interfaces[..count], before["interfaces"].as_array().unwrap()[..]);
    assert_eq!(interfaces[count + 1]["name"], "hf0");
    // An address of ours, but the list's are the primary's.
    assert!(pod.run("ip address show dev hf0").contains("192.0.2."));
    assert_eq!(all["ips"], before["ips"]);
    assert_eq!(all["routes"], before["routes"]);

    if version != "0.3.1" {
        assert_eq!(ours.verb("CHECK").with("prevResult", all.clone()).run(), Ok(Value::Null));
        assert_eq!(first.verb("CHECK").with("prevResult", all.clone()).exec(&wrapper), Ok(Value::Null));
    }
    // In reverse; ours without the result that it could go by.
    assert_eq!(ours.verb("DEL").run(), Ok(Value::Null));
    eventually("our interface goes alone", || {
        if pod.links() == ["eth0"] { Ok(()) } else { Err(format!("{:?}", pod.links())) }
    });
    first.verb("DEL").with("prevResult", before).exec(Path::new(&wrapper)).unwrap();
    assert!(pod.links().is_empty());
    host.assert_clean();
}
