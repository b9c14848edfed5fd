//! Runs a tool under a deadline.

use std::io::Read;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Why a tool did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// It could not be started.
    #[error("failed to start `{tool}`")]
    Start {
        /// Name of the tool.
        tool: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It took too long and was killed.
    #[error("`{tool}` did not end within {} s", deadline.as_secs())]
    Deadline {
        /// Name of the tool.
        tool: String,
        /// How long it was given.
        deadline: Duration,
    },
    /// It ended with an error; its own words follow.
    #[error("`{tool}` failed: {words}")]
    Failed {
        /// Name of the tool.
        tool: String,
        /// The end of what it wrote to stderr.
        words: String,
    },
}

/// Most that is kept of what a tool says.
const WORDS: usize = 2000;

/// Runs `command` to its end and returns when it succeeded.
///
/// # Errors
/// [`ToolError`]; a tool that runs into the deadline is killed first.
pub fn run(command: &mut Command, deadline: Duration) -> Result<(), ToolError> {
    let tool = command.get_program().to_string_lossy().into_owned();
    let failed = |source| ToolError::Start { tool: tool.clone(), source };
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut child = child.map_err(failed)?;
    let mut words = Vec::new();
    // The end of its stderr is the end of the tool: no thread and no polling is needed to wait with a deadline.
    let ended = match child.stderr.take() {
        Some(stderr) => drain(stderr, &mut words, Instant::now() + deadline),
        None => true,
    };
    if !ended {
        child.kill().map_err(failed)?;
    }
    let status = child.wait().map_err(failed)?;
    if !ended {
        return Err(ToolError::Deadline { tool, deadline });
    }
    if !status.success() {
        let words = String::from_utf8_lossy(&words).trim().replace('\n', "; ");
        return Err(ToolError::Failed { tool, words: if words.is_empty() { status.to_string() } else { words } });
    }
    Ok(())
}

/// Reads until the end of the stream (true) or the deadline (false).
fn drain(mut stream: impl Read + AsFd, words: &mut Vec<u8>, deadline: Instant) -> bool {
    let mut buffer = [0u8; 512];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(stream.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) => return false,
            Err(nix::errno::Errno::EINTR) => continue,
            Ok(_) | Err(_) => {}
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return true,
            Ok(count) => {
                words.extend_from_slice(&buffer[..count]);
                let excess = words.len().saturating_sub(WORDS);
                words.drain(..excess);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_what_the_tool_said() {
        let error = run(Command::new("sh").args(["-c", "echo one; echo two >&2; exit 3"]), Duration::from_secs(10));
        assert_eq!(error.unwrap_err().to_string(), "`sh` failed: two");
    }

    #[test]
    fn ends_a_tool_that_hangs() {
        let start = Instant::now();
        let error = run(Command::new("sleep").arg("60"), Duration::from_millis(50)).unwrap_err();
        assert!(matches!(error, ToolError::Deadline { .. }), "{error}");
        assert!(start.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn names_a_tool_that_is_missing() {
        let error = run(&mut Command::new("/nonexistent/tool"), Duration::from_secs(1)).unwrap_err();
        assert_eq!(error.to_string(), "failed to start `/nonexistent/tool`");
    }
}
