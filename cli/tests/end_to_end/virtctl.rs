//! Running the program.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

/// Longest that a test waits for anything.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// What a run came to.
#[derive(Debug, PartialEq, Eq)]
pub struct Ran {
    /// Exit code.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// The program with these arguments, no input, and nothing of our environment that concerns it.
pub fn command<S: AsRef<OsStr>>(arguments: &[S]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_virtctl"));
    command.args(arguments).env_remove("HOLDFAST_STANDALONE").stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// The program with these arguments, for the server on `socket`.
pub fn on(socket: &Path, arguments: &[&str]) -> Command {
    let mut command = command(&["--standalone", "--socket"]);
    command.arg(socket).args(arguments);
    command
}

/// Runs it to its end.
pub async fn run(mut command: Command) -> Ran {
    let output = timeout(DEADLINE, command.output()).await.expect("virtctl ends in time").unwrap();
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs a command that succeeds and has nothing to complain about; returns its output.
pub async fn ok(socket: &Path, arguments: &[&str]) -> String {
    let ran = run(on(socket, arguments)).await;
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{arguments:?}: {}", ran.stdout);
    ran.stdout
}
