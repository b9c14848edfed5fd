//! `virtctl console`: the terminal becomes the VM's serial terminal.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, stdin, stdout};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use crate::args::{Console, Server, exactly};
use crate::client::{Client, Refused};
use crate::terminal;

/// Ctrl+] (and Ctrl+5) on a terminal.
const ESCAPE: u8 = 0x1d;
/// How often it is looked whether the VM runs.
const LOOK: Duration = Duration::from_millis(500);

/// Connects to the console.
pub async fn run(client: &Client, server: &Server, console: &Console) -> anyhow::Result<()> {
    let [name] = exactly(&console.names)?;
    let path = format!(
        "/apis/subresources.kubevirt.io/v1/namespaces/{}/virtualmachineinstances/{name}/console",
        server.namespace
    );
    let deadline = Instant::now() + Duration::from_secs(console.timeout.saturating_mul(60));
    let bar = terminal::waiting(&format!("waiting until {name} runs"));
    let stream = loop {
        match client.upgrade(&path).await {
            Ok(stream) => break stream,
            Err(error) => {
                let starting = error.downcast_ref::<Refused>().is_some_and(|refused| refused.code == 409);
                if !starting {
                    return Err(error);
                }
                if Instant::now() >= deadline {
                    bail!("timed out after {} min: {error}", console.timeout);
                }
                sleep(LOOK).await;
            }
        }
    };
    bar.finish_and_clear();
    eprintln!("Successfully connected to {name} console. Press Ctrl+] or Ctrl+5 to exit console.");
    let mut ended = signal(SignalKind::terminate())?;
    let mut hung_up = signal(SignalKind::hangup())?;
    let raw = Raw::enter()?;
    let result = tokio::select! {
        result = exchange(stream, stdin(), stdout()) => result,
        _ = ended.recv() => Ok(End::Escape),
        _ = hung_up.recv() => Ok(End::Escape),
    };
    drop(raw);
    if result.context("the console's connection broke")? == End::Server {
        eprintln!(
            "\nYou were disconnected from the console. This has one of the following reasons:\n - another user connected to the console of the target vm\n - network issues"
        );
    }
    Ok(())
}

/// Who ended a console.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Escape,
    Server,
}

/// Carries bytes both ways, unchanged, until the escape is typed or one side ends.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite,
    mut keys: impl AsyncRead + Unpin,
    mut screen: impl AsyncWrite + Unpin,
) -> io::Result<End> {
    let (mut from, mut to) = tokio::io::split(stream);
    let outwards = async {
        let mut buffer = [0; 4096];
        loop {
            let count = keys.read(&mut buffer).await?;
            let typed = &buffer[..count];
            let end = typed.iter().position(|byte| *byte == ESCAPE);
            to.write_all(&typed[..end.unwrap_or(count)]).await?;
            to.flush().await?;
            if count == 0 || end.is_some() {
                return Ok(End::Escape);
            }
        }
    };
    let inwards = async {
        let mut buffer = [0; 4096];
        loop {
            let count = from.read(&mut buffer).await?;
            if count == 0 {
                return Ok(End::Server);
            }
            screen.write_all(&buffer[..count]).await?;
            screen.flush().await?;
        }
    };
    tokio::select! {
        result = outwards => result,
        result = inwards => result,
    }
}

/// The terminal in raw mode; it is put back when this is dropped.
struct Raw(Option<Termios>);

impl Raw {
    fn enter() -> anyhow::Result<Self> {
        let input = io::stdin();
        if !input.is_terminal() {
            return Ok(Self(None));
        }
        let before = tcgetattr(&input).context("failed to read the terminal's settings")?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(&input, SetArg::TCSANOW, &raw).context("failed to set the terminal")?;
        Ok(Self(Some(before)))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // Nothing can be done where it fails; the terminal is most likely gone.
            let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_pass_unchanged_until_the_escape() {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        let typed: Vec<u8> = (0..=255).filter(|byte| *byte != ESCAPE).collect();
        let mut keys = typed.clone();
        keys.extend([ESCAPE, b'x']);
        theirs.write_all(&[0, 0xff, b'\r']).await.unwrap();
        let mut screen = Vec::new();
        let end = exchange(ours, &keys[..], &mut screen).await.unwrap();
        assert_eq!(end, End::Escape);
        let mut seen = Vec::new();
        theirs.read_to_end(&mut seen).await.unwrap();
        assert_eq!(seen, typed);
    }

    #[tokio::test]
    async fn the_servers_end_is_noticed() {
        let (ours, theirs) = tokio::io::duplex(64);
        let (keys, _kept_open) = tokio::io::duplex(64);
        drop(theirs);
        assert_eq!(exchange(ours, keys, Vec::new()).await.unwrap(), End::Server);
    }
}
