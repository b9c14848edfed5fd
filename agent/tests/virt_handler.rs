//! The process: it serves, refuses a second one on the same state, and ends on SIGTERM.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const DEADLINE: Duration = Duration::from_secs(20);

/// In a network namespace of its own: the node's is not its to look after.
fn start(folder: &Path) -> Child {
    let mut command = Command::new("unshare");
    command.arg("--net");
    start_by(command, folder)
}

/// In the network namespace of that process.
fn start_beside(process: &Child, folder: &Path) -> Child {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/proc/{}/ns/net", process.id()));
    start_by(command, folder)
}

fn start_by(mut command: Command, folder: &Path) -> Child {
    command.args(["--", env!("CARGO_BIN_EXE_virt-handler"), "--node", "n", "--networks"]).arg(folder);
    for (option, name) in [("--state", "state"), ("--run", "run"), ("--http", "http.sock")] {
        command.arg(option).arg(folder.join(name));
    }
    command.stderr(Stdio::piped()).spawn().unwrap()
}

fn end(child: &mut Child) -> bool {
    let start = Instant::now();
    while start.elapsed() < DEADLINE {
        if let Some(status) = child.try_wait().unwrap() {
            return status.success();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    panic!("it does not end");
}

fn healthy(folder: &Path) -> bool {
    let Ok(mut stream) = UnixStream::connect(folder.join("http.sock")) else { return false };
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text.starts_with("HTTP/1.1 200") && text.ends_with("ok")
}

#[test]
fn it_serves_alone_and_ends_when_told() {
    let folder = tempfile::tempdir().unwrap();
    let lan = "apiVersion: holdfast.io/v1alpha1\nkind: UnderlayNetwork\nmetadata: {name: lan}\nspec: {backend: ovs}\n";
    fs::write(folder.path().join("lan.yaml"), lan).unwrap();
    let mut first = start(folder.path());
    let begun = Instant::now();
    while !healthy(folder.path()) {
        assert!(begun.elapsed() < DEADLINE && first.try_wait().unwrap().is_none(), "it does not serve");
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut second = start(folder.path());
    assert!(!end(&mut second));
    let mut told = String::new();
    second.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert!(told.contains("in use by another process"), "{told}");
    // Nor does one with a state of its own in the same namespace: it would take the first one's devices for strays.
    let other = tempfile::tempdir().unwrap();
    let mut third = start_beside(&first, other.path());
    assert!(!end(&mut third));
    let mut told = String::new();
    third.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert!(told.contains("looks after this host's network"), "{told}");
    kill(Pid::from_raw(i32::try_from(first.id()).unwrap()), Signal::SIGTERM).unwrap();
    assert!(end(&mut first));
}

#[test]
fn a_wrong_network_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let lan = "apiVersion: holdfast.io/v1alpha1\nkind: UnderlayNetwork\nmetadata: {name: lan}\nspec: {backnd: ovs}\n";
    fs::write(folder.path().join("lan.yaml"), lan).unwrap();
    let mut child = start(folder.path());
    assert!(!end(&mut child));
    let mut told = String::new();
    child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert!(told.contains("lan.yaml") && told.contains("backnd"), "{told}");
}
