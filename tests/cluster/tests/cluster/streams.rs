//! The screen.

use std::process::Stdio;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;

use crate::world::{LONG, World, plain_vm, virtctl};

#[tokio::test]
async fn the_screen_is_there() {
    let world = World::new("vnc").await;
    world.post("kubevirt.io/v1", "virtualmachines", &plain_vm("screen")).await;
    world.ready("screen").await;
    let mut child = Command::new(virtctl())
        .args(["vnc", "screen", "--proxy-only", "-n", &world.namespace])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut line = vec![0; 64];
    let length = timeout(LONG, child.stdout.as_mut().unwrap().read(&mut line)).await.unwrap().unwrap();
    let told: serde_json::Value = serde_json::from_slice(&line[..length]).unwrap();
    let port = u16::try_from(told["port"].as_u64().unwrap()).unwrap();
    let mut screen = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let mut hello = [0; 12];
    timeout(LONG, screen.read_exact(&mut hello)).await.unwrap().unwrap();
    assert_eq!(&hello, b"RFB 003.008\n");
    // RFC 6143, section 7.1: version, security type 1 (none), result, ClientInit, ServerInit with the size.
    screen.write_all(b"RFB 003.008\n").await.unwrap();
    let mut types = [0; 2];
    timeout(LONG, screen.read_exact(&mut types)).await.unwrap().unwrap();
    assert_eq!(types, [1, 1]);
    screen.write_all(&[1]).await.unwrap();
    let mut result = [0; 4];
    timeout(LONG, screen.read_exact(&mut result)).await.unwrap().unwrap();
    assert_eq!(result, [0; 4]);
    screen.write_all(&[1]).await.unwrap();
    let mut size = [0; 4];
    timeout(LONG, screen.read_exact(&mut size)).await.unwrap().unwrap();
    let (width, height) = (u16::from_be_bytes([size[0], size[1]]), u16::from_be_bytes([size[2], size[3]]));
    assert!(width >= 640 && height >= 400, "{width}x{height}");
    world.remove().await;
}
