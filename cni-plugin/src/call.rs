//! One call to the agent: connect, send, receive, each with its deadline.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use holdfast_agent_api::cni::{CniError, DEFAULT_SOCKET, Request, Response, Verb, code};
use holdfast_agent_api::frame::{self, FrameError};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use serde_json::Value;

/// How long an agent may take to accept; one that restarts is back within it.
const CONNECT: Duration = Duration::from_secs(2);
/// How long it may take to answer. Runtimes give a whole pod 2 to 4 minutes.
const ANSWER: Duration = Duration::from_secs(60);
/// Pause between two tries to connect.
const PAUSE: Duration = Duration::from_millis(20);

/// The agent did not answer.
pub struct Away {
    /// Whether it is certain that it has not seen the request.
    pub not_sent: bool,
    /// What to tell the runtime.
    pub error: CniError,
}

/// Where the configuration says that the agent listens.
pub fn socket(config: &Value) -> Result<PathBuf, CniError> {
    let path = match config.get("agentSocket") {
        None | Some(Value::Null) => return Ok(PathBuf::from(DEFAULT_SOCKET)),
        Some(Value::String(path)) if path.starts_with('/') => path,
        Some(other) => {
            return Err(CniError {
                code: code::CONFIG,
                msg: format!("invalid network configuration: `agentSocket` is {other}"),
                details: format!("it must be an absolute path such as {DEFAULT_SOCKET}"),
            });
        }
    };
    Ok(PathBuf::from(path))
}

/// Asks the agent at `path`.
pub fn ask(path: &Path, request: &Request) -> Result<Response, Away> {
    let away =
        |not_sent, cause: &dyn std::fmt::Display| Away { not_sent, error: unreachable(request.verb, path, cause) };
    let stream = reach(path).map_err(|error| away(true, &error))?;
    let deadlines = stream.set_write_timeout(Some(CONNECT)).and_then(|()| stream.set_read_timeout(Some(ANSWER)));
    deadlines.map_err(|error| away(true, &error))?;
    // Half a request is none: the agent acts on whole frames only.
    frame::send(&stream, request, &[]).map_err(|error| away(true, &chain(&error)))?;
    let (response, _) = frame::receive(&stream).map_err(|error| away(false, &chain(&error)))?;
    Ok(response)
}

fn reach(path: &Path) -> io::Result<UnixStream> {
    let deadline = Instant::now() + CONNECT;
    loop {
        match try_reach(path, deadline.saturating_duration_since(Instant::now())) {
            Err(error)
                if Instant::now() + PAUSE < deadline
                    && matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) =>
            {
                std::thread::sleep(PAUSE);
            }
            result => return result,
        }
    }
}

/// A connect to a unix socket waits for a place in the backlog; the send deadline of the socket bounds it.
fn try_reach(path: &Path, left: Duration) -> io::Result<UnixStream> {
    let fd = socket_fd()?;
    let left = TimeVal::milliseconds(i64::try_from(left.as_millis()).unwrap_or(i64::MAX).max(1));
    setsockopt(&fd, sockopt::SendTimeout, &left)?;
    connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(UnixStream::from(fd))
}

fn socket_fd() -> io::Result<std::os::fd::OwnedFd> {
    Ok(nix::sys::socket::socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?)
}

fn unreachable(verb: Verb, path: &Path, cause: &dyn std::fmt::Display) -> CniError {
    CniError {
        code: if verb == Verb::Status { code::UNAVAILABLE } else { code::TRY_AGAIN },
        msg: format!("the agent does not answer at `{}`", path.display()),
        details: format!("{cause}; is virt-handler (or holdfastd) running on this node?"),
    }
}

/// An error with its causes, in a line.
fn chain(error: &FrameError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
