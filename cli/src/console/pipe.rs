//! Moving bytes between the console and standard input and output.

use anyhow::{Context as _, Result};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, stdin, stdout};

/// Ctrl+], which a terminal also sends for Ctrl+5.
const ESCAPE: u8 = 0x1d;
/// How many bytes are moved at once.
const CHUNK: usize = 8192;

/// Why no more input is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// There is no more.
    Ended,
    /// The user wants to leave.
    Escaped,
}

/// Sends standard input until it ends or, where `escape` is set, Ctrl+] is typed. A console that is closed ends it
/// too: what closed it is told by [`receive`].
pub async fn send(console: impl AsyncWrite + Unpin, escape: bool) -> Result<Input> {
    send_from(stdin(), console, escape).await
}

async fn send_from(
    mut input: impl AsyncRead + Unpin,
    mut console: impl AsyncWrite + Unpin,
    escape: bool,
) -> Result<Input> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let length = input.read(&mut chunk).await.context("failed to read standard input")?;
        let typed = &chunk[..length];
        let (passed, end) = match typed.iter().position(|&byte| escape && byte == ESCAPE) {
            Some(at) => (&typed[..at], Some(Input::Escaped)),
            None => (typed, (length == 0).then_some(Input::Ended)),
        };
        let closed = console.write_all(passed).await.is_err() || console.flush().await.is_err();
        match end {
            Some(end) => {
                if end == Input::Ended {
                    // Where it is closed already, there is nobody to tell.
                    let _ = console.shutdown().await;
                }
                return Ok(end);
            }
            None if closed => std::future::pending().await,
            None => {}
        }
    }
}

/// Writes what the console says to standard output, until it is closed.
pub async fn receive(mut console: impl AsyncRead + Unpin) -> Result<()> {
    let mut output = stdout();
    let mut chunk = vec![0; CHUNK];
    loop {
        // A connection that breaks is as gone as one that is closed.
        let length = console.read(&mut chunk).await.unwrap_or(0);
        if length == 0 {
            return Ok(());
        }
        output.write_all(&chunk[..length]).await.context("failed to write to standard output")?;
        output.flush().await.context("failed to write to standard output")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sent(input: &[u8], escape: bool) -> (Input, Vec<u8>) {
        let mut console = Vec::new();
        let end = send_from(input, &mut console, escape).await.unwrap();
        (end, console)
    }

    #[tokio::test]
    async fn only_a_terminal_has_an_escape() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(sent(&all, false).await, (Input::Ended, all.clone()));
        assert_eq!(sent(&all, true).await, (Input::Escaped, (0..ESCAPE).collect()));
        assert_eq!(sent(b"no escape", true).await, (Input::Ended, b"no escape".to_vec()));
    }
}
