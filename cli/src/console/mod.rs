//! `console`: a VM's serial port on this terminal, or between two pipes.
//!
//! Every byte passes as it is, both ways. Only where the input is a terminal does Ctrl+] (which is Ctrl+5 as well)
//! leave; the terminal is raw meanwhile, and as it was afterwards, however it ends.

mod pipe;
mod terminal;

use std::io::{IsTerminal as _, stdin, stdout};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use tokio::time::{Instant, sleep};

use crate::args::exactly;
use crate::client::{CallError, Client, Stream};
use crate::lifecycle::subresource;
use pipe::{Input, receive, send};
use terminal::{Raw, Signals};

/// How long to wait before it is looked again whether the VM runs.
const RETRY: Duration = Duration::from_millis(500);
/// How long what the guest still says is passed on after the input has ended.
const LINGER: Duration = Duration::from_secs(1);

const DISCONNECTED: &str = "
You were disconnected from the console. This could be caused by one of the following:
 - the target VM was powered off
 - another user connected to the console of the target VM
 - network issues
";

/// How a console came to an end.
enum End {
    /// The user left, or the input ended.
    Left,
    /// The other side closed it.
    Disconnected,
    /// A signal with this number.
    Signal(u8),
}

/// Connects to a VMI's console, and waits up to `minutes` for the VMI to run.
pub async fn console(client: &Client, namespace: &str, name: &[String], minutes: u32) -> Result<ExitCode> {
    let [name] = exactly(name)?;
    let wait = Duration::from_secs(u64::from(minutes) * 60);
    let stream = connect(client, &subresource(namespace, "virtualmachineinstances", name, "console"), wait).await?;
    let end = {
        let mut signals = Signals::new().context("failed to listen for signals")?;
        let input = stdin();
        let interactive = input.is_terminal();
        let _raw = interactive.then(|| Raw::new(&input)).transpose().context("failed to set the terminal to raw")?;
        // On a raw terminal, a line ends with both.
        let line_end = if interactive { "\r\n" } else { "\n" };
        eprint!("Successfully connected to {name} console. Press Ctrl+] or Ctrl+5 to exit console.{line_end}");
        attach(stream, interactive, &mut signals).await?
    };
    if interactive_output() {
        eprintln!();
    }
    Ok(match end {
        End::Left => ExitCode::SUCCESS,
        End::Disconnected => {
            eprint!("{DISCONNECTED}");
            ExitCode::FAILURE
        }
        End::Signal(number) => ExitCode::from(128 + number),
    })
}

fn interactive_output() -> bool {
    stdin().is_terminal() && stdout().is_terminal()
}

/// Opens the console, and tries again while the VMI is there and does not run yet.
async fn connect(client: &Client, path: &str, wait: Duration) -> Result<Stream> {
    let deadline = Instant::now() + wait;
    let mut told = false;
    loop {
        match client.stream(path).await {
            Ok(stream) => return Ok(stream),
            Err(CallError::Refused { code: 409, message, .. }) if message.ends_with("VMI is not running") => {
                if wait.is_zero() {
                    bail!(message);
                }
                if Instant::now() >= deadline {
                    bail!("Timeout trying to connect to the virtual machine instance: {message}");
                }
                if !told {
                    eprintln!("Waiting for the virtual machine instance to run");
                    told = true;
                }
                sleep(RETRY.min(deadline - Instant::now())).await;
            }
            Err(error) => return Err(anyhow!(error.text())),
        }
    }
}

async fn attach(stream: Stream, interactive: bool, signals: &mut Signals) -> Result<End> {
    let mut down = Box::pin(receive(stream.reader));
    let mut up = Box::pin(send(stream.writer, interactive));
    let end = tokio::select! {
        received = &mut down => {
            received?;
            End::Disconnected
        }
        sent = &mut up => {
            if sent? == Input::Ended {
                tokio::select! {
                    received = tokio::time::timeout(LINGER, &mut down) => received.unwrap_or(Ok(()))?,
                    number = signals.next() => return Ok(End::Signal(number)),
                }
            }
            End::Left
        }
        number = signals.next() => End::Signal(number),
    };
    Ok(end)
}
