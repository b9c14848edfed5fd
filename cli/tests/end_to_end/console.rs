//! `console` between two pipes.

use std::process::Stdio;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::server::{Serial, Server, greeting};
use crate::virtctl::{DEADLINE, on, run};

const CONNECTED: &str = "Successfully connected to v1 console. Press Ctrl+] or Ctrl+5 to exit console.\n";
const DISCONNECTED: &str = "
You were disconnected from the console. This could be caused by one of the following:
 - the target VM was powered off
 - another user connected to the console of the target VM
 - network issues
";

#[tokio::test]
async fn every_byte_passes_both_ways() {
    let server = Server::start("running");
    let mut console = on(&server.socket(), &["console", "v1"]);
    let console = console.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut console = console.spawn().unwrap();
    let mut output = console.stdout.take().unwrap();
    let mut said = vec![0; 256];
    timeout(DEADLINE, output.read_exact(&mut said)).await.unwrap().unwrap();
    assert_eq!(said, greeting());
    let all: Vec<u8> = (0..=255).collect();
    let mut input = console.stdin.take().unwrap();
    input.write_all(&all).await.unwrap();
    drop(input);
    let ended = timeout(DEADLINE, console.wait_with_output()).await.unwrap().unwrap();
    assert_eq!((ended.status.code(), String::from_utf8(ended.stderr).unwrap().as_str()), (Some(0), CONNECTED));
    assert_eq!(server.world.lock().unwrap().told, all);
}

#[tokio::test]
async fn a_console_that_is_closed_is_told() {
    let server = Server::start("running");
    server.world.lock().unwrap().serial = Serial::HangsUp;
    let (open_input, _writer) = {
        let (reader, writer) = std::io::pipe().unwrap();
        (Stdio::from(reader), writer)
    };
    let mut console = on(&server.socket(), &["console", "v1"]);
    console.stdin(open_input);
    let ran = run(console).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""));
    assert_eq!(ran.stderr, format!("{CONNECTED}{DISCONNECTED}"));
}

#[tokio::test]
async fn a_vmi_that_does_not_run_yet_is_waited_for() {
    let server = Server::start("running");
    server.world.lock().unwrap().not_yet = 2;
    let ran = run(on(&server.socket(), &["console", "v1", "--timeout", "1"])).await;
    assert_eq!(ran.code, Some(0));
    assert_eq!(ran.stderr, format!("Waiting for the virtual machine instance to run\n{CONNECTED}"));
    server.world.lock().unwrap().not_yet = 1;
    let ran = run(on(&server.socket(), &["console", "v1", "--timeout", "0"])).await;
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.ends_with("VMI is not running\n") && ran.stderr.lines().count() == 1, "{}", ran.stderr);
}
