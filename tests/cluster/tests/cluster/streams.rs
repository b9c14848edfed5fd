//! The console, byte by byte, and the screen.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::world::{LONG, World, plain_vm, virtctl};

/// A console that is attached to pipes.
struct Console {
    child: Child,
    seen: Vec<u8>,
}

impl Console {
    fn open(world: &World, name: &str) -> Self {
        let child = Command::new(virtctl())
            .args(["console", name, "-n", &world.namespace])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn();
        Self { child: child.unwrap(), seen: Vec::new() }
    }

    async fn say(&mut self, bytes: &[u8]) {
        let input = self.child.stdin.as_mut().unwrap();
        input.write_all(bytes).await.unwrap();
        input.flush().await.unwrap();
    }

    /// Reads until these bytes have come, and returns what came before and with them.
    async fn until(&mut self, wanted: &[u8]) -> Vec<u8> {
        let read = async {
            loop {
                if let Some(at) = self.seen.windows(wanted.len()).position(|window| window == wanted) {
                    return self.seen.drain(..at + wanted.len()).collect::<Vec<u8>>();
                }
                let mut chunk = [0; 4096];
                let length = self.child.stdout.as_mut().unwrap().read(&mut chunk).await.unwrap();
                assert_ne!(length, 0, "the console was closed: {}", String::from_utf8_lossy(&self.seen));
                self.seen.extend_from_slice(&chunk[..length]);
            }
        };
        let wanted = String::from_utf8_lossy(wanted).into_owned();
        timeout(LONG, read).await.unwrap_or_else(|_| panic!("`{wanted}` does not come"))
    }
}

#[tokio::test]
async fn the_console_is_clean_and_survives_silence() {
    let world = World::new("console").await;
    world.post("kubevirt.io/v1", "virtualmachines", &plain_vm("tty")).await;
    world.ready("tty").await;
    let mut console = Console::open(&world, "tty");
    console.say(b"\n").await;
    console.until(b"login: ").await;
    console.say(b"root\n").await;
    console.until(b"assword: ").await;
    console.say(b"guest\n").await;
    console.until(b"# ").await;
    // From the guest: every byte, between two marks, with its terminal in raw mode.
    console.say(b"stty raw -echo; printf BEGIN; for i in $(seq 0 255); do printf \"\\\\$(printf %03o $i)\"; done; printf END\n").await;
    console.until(b"BEGIN").await;
    let all = console.until(b"END").await;
    assert_eq!(all[..256], (0..=255).collect::<Vec<u8>>());
    // To the guest: every byte, counted and summed there.
    console.say(b"printf READY; dd bs=1 count=256 2>/dev/null | md5sum; printf DONE\r").await;
    console.until(b"READY").await;
    console.say(&(0..=255).collect::<Vec<u8>>()).await;
    let sum = console.until(b"DONE").await;
    // md5 of the bytes 0 to 255 in order.
    assert!(sum.starts_with(b"e2c865db4162bed963bfaa9ef6ac18f0"), "{}", String::from_utf8_lossy(&sum));
    // A minute in which nobody says anything is what is tested: there is no condition to wait for.
    sleep(Duration::from_secs(65)).await;
    console.say(b"printf STILL; printf HERE\r").await;
    console.until(b"STILLHERE").await;
    world.remove().await;
}

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
