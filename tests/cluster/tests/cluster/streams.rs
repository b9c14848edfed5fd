//! The console, byte by byte, and the screen.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::world::{LONG, World, plain_vm, run, virtctl};

/// A console that is attached to pipes.
struct Console {
    child: Child,
    seen: Vec<u8>,
}

impl Console {
    /// Opens it, and logs in.
    async fn open(world: &World, name: &str) -> Self {
        let child = Command::new(virtctl())
            .args(["console", name, "-n", &world.namespace])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn();
        let mut console = Self { child: child.unwrap(), seen: Vec::new() };
        console.say(b"\n").await;
        console.until(b"login: ").await;
        console.say(b"root\n").await;
        console.until(b"assword: ").await;
        console.say(b"guest\n").await;
        console.until(b"# ").await;
        console
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
        let found = timeout(Duration::from_secs(60), read).await;
        let (wanted, seen) = (String::from_utf8_lossy(wanted), String::from_utf8_lossy(&self.seen));
        found.unwrap_or_else(|_| panic!("`{wanted}` does not come after {seen:?}"))
    }
}

#[tokio::test]
async fn the_console_is_clean_and_survives_silence() {
    let world = World::new("console").await;
    world.post("kubevirt.io/v1", "virtualmachines", &plain_vm("tty")).await;
    world.ready("tty").await;
    let mut console = Console::open(&world, "tty").await;
    // From the guest: every byte between two marks. What is typed is echoed, so marks are not typed as they come back.
    console.say(b"stty raw -echo; printf BE''GIN; ").await;
    console.say(b"for i in $(seq 0 255); do printf \"\\\\$(printf %03o $i)\"; done; printf E''ND\n").await;
    console.until(b"BEGIN").await;
    let all = console.until(b"END").await;
    assert_eq!(all[..256], (0..=255).collect::<Vec<u8>>());
    // To the guest: every byte, summed there.
    console.say(b"stty raw -echo; printf REA''DY; dd bs=1 count=256 2>/dev/null | md5sum; printf DO''NE\n").await;
    console.until(b"READY").await;
    console.say(&(0..=255).collect::<Vec<u8>>()).await;
    let sum = console.until(b"DONE").await;
    // md5 of the bytes 0 to 255 in order.
    assert!(sum.starts_with(b"e2c865db4162bed963bfaa9ef6ac18f0"), "{}", String::from_utf8_lossy(&sum));
    // A minute in which nobody says anything is what is tested: there is no condition to wait for.
    sleep(Duration::from_secs(65)).await;
    console.say(b"printf STILL''HERE\n").await;
    console.until(b"STILLHERE").await;
    world.remove().await;
}

#[tokio::test]
async fn a_picture_shows_what_the_guest_writes() {
    const TEXT: &str = "THE GUEST WROTE THIS 0123456789";
    let world = World::new("picture").await;
    world.post("kubevirt.io/v1", "virtualmachines", &plain_vm("painter")).await;
    world.ready("painter").await;
    let mut console = Console::open(&world, "painter").await;
    console.say(format!("echo '{TEXT}' >/dev/tty1; printf WRI''TTEN\n").as_bytes()).await;
    console.until(b"WRITTEN").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("screen.png");
    let name = file.to_str().unwrap();
    run(virtctl().to_str().unwrap(), &["vnc", "screenshot", "painter", "-n", &world.namespace, "--file", name])
        .await
        .unwrap();
    let shown = cells(&file);
    assert!(shown.windows(TEXT.len()).any(|cells| reads(cells, TEXT)), "the text is not on the screen");
    assert!(!shown.windows(TEXT.len()).any(|cells| reads(cells, &TEXT.replace("WROTE", "PAINT"))), "any text is");
    world.remove().await;
}

/// The cells of a text screen of 80 columns and 25 lines, line by line.
fn cells(file: &Path) -> Vec<Vec<u8>> {
    let mut reader = png::Decoder::new(BufReader::new(File::open(file).unwrap())).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    assert_eq!((info.width % 80, info.height % 25), (0, 0), "{}x{} is no text screen", info.width, info.height);
    let (width, height) = (info.width as usize / 80, info.height as usize / 25);
    let line = |x: usize, y: usize| &pixels[(y * 80 * width + x * width) * 3..][..width * 3];
    let cell = |row: usize, column: usize| (0..height).flat_map(|y| line(column, row * height + y)).copied().collect();
    (0..25).flat_map(|row| (0..80).map(move |column| (row, column))).map(|(row, column)| cell(row, column)).collect()
}

/// Whether these cells can be this text, whatever the font: equal letters look equal, different ones different, and
/// a blank is empty.
fn reads(cells: &[Vec<u8>], text: &str) -> bool {
    let letters: Vec<char> = text.chars().collect();
    let is_empty = |cell: &[u8]| cell.windows(2).all(|pair| pair[0] == pair[1]);
    let all = cells.iter().zip(&letters);
    all.clone().all(|(cell, letter)| is_empty(cell) == (*letter == ' '))
        && all.clone().all(|(cell, letter)| all.clone().all(|(c, l)| (cell == c) == (letter == l)))
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
