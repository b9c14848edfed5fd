//! Starting a sandbox's program, from outside.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::enter::{GO, SUBCOMMAND};
use super::{Plan, Process, RecordError};

/// Longest that building a sandbox may take; it takes some 10 ms.
const DEADLINE: Duration = Duration::from_secs(30);

/// Why a sandbox could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The process that becomes the sandbox could not be run or heard.
    #[error("failed to start a sandbox")]
    Run(#[source] io::Error),
    /// It says why it failed.
    #[error("failed to build a sandbox: {0}")]
    Build(String),
    /// It did not answer in time.
    #[error("failed to build a sandbox: no answer within {} s", DEADLINE.as_secs())]
    Deadline,
    /// It could not be written down.
    #[error("failed to remember a sandbox")]
    Record(#[from] RecordError),
}

/// Starts the program of a plan. `program` is holdfastd itself. `remember` is called with the process before its
/// program is executed; when it fails, or when this is dropped before, nothing is executed.
pub async fn spawn(
    program: &Path,
    plan: &Plan,
    remember: impl FnOnce(&Process) -> Result<(), RecordError>,
) -> Result<Process, SpawnError> {
    let text = serde_json::to_string(plan).map_err(|error| SpawnError::Run(error.into()))?;
    let mut child = Command::new(program)
        .arg(SUBCOMMAND)
        .arg(text)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(SpawnError::Run)?;
    let result = timeout(DEADLINE, converse(&mut child, remember)).await.unwrap_or(Err(SpawnError::Deadline));
    // The inner process is no child of this one; this only collects the outer one, which is at its end.
    let _ = child.start_kill();
    let _ = child.wait().await;
    result
}

async fn converse(
    child: &mut Child,
    remember: impl FnOnce(&Process) -> Result<(), RecordError>,
) -> Result<Process, SpawnError> {
    let missing = || SpawnError::Run(io::ErrorKind::BrokenPipe.into());
    let mut report = BufReader::new(child.stdout.take().ok_or_else(missing)?);
    let mut go = child.stdin.take().ok_or_else(missing)?;
    let mut line = String::new();
    report.read_line(&mut line).await.map_err(SpawnError::Run)?;
    let pid = line.strip_prefix("pid ").and_then(|text| text.trim().parse().ok());
    let Some(pid) = pid else { return Err(SpawnError::Build(reason(&line))) };
    let process = Process::open(pid).map_err(SpawnError::Run)?;
    remember(&process)?;
    go.write_all(&GO).await.map_err(SpawnError::Run)?;
    go.shutdown().await.map_err(SpawnError::Run)?;
    // The pipe ends when the program is executed, or after the reason why not.
    let mut rest = String::new();
    report.read_to_string(&mut rest).await.map_err(SpawnError::Run)?;
    if rest.is_empty() { Ok(process) } else { Err(SpawnError::Build(reason(&rest))) }
}

fn reason(text: &str) -> String {
    match text.trim().strip_prefix("error ") {
        Some(reason) => reason.to_owned(),
        None if text.trim().is_empty() => "it ended without a reason".to_owned(),
        None => text.trim().to_owned(),
    }
}
