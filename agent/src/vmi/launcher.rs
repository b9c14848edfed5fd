//! A launcher as the agent reaches it: over its socket, as a process that lives in the VMI's own sandbox.
//!
//! Invariants: a process in another network namespace is refused before a byte is sent to it, so that a sandbox
//! that swaps the socket for another's gets neither packet sockets nor the other VM's orders; each call has a
//! deadline; dropping a call or a [`Watch`] ends its thread, for that cuts the connection under it.

use std::net::Shutdown;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use holdfast_agent_api::PROTOCOL_VERSION;
use holdfast_agent_api::frame::{self, FrameError};
use holdfast_agent_api::launcher::{Envelope, Event, Failure, FailureClass, Request, Response};
use nix::libc;
use nix::sys::socket::{getsockopt, sockopt};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::VmiInput;
use crate::beneath;

/// Events that may wait for a busy task; the launcher's socket buffers what is beyond.
const QUEUED_EVENTS: usize = 64;

/// Why a launcher did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum LauncherError {
    /// Nobody listens: it is not up yet, or it is gone.
    #[error("failed to reach the launcher at `{}`: nobody listens", path.display())]
    Absent {
        /// Its socket.
        path: PathBuf,
        /// What connect(2) said.
        source: std::io::Error,
    },
    /// Its socket cannot be used.
    #[error("failed to connect to the launcher at `{}`", path.display())]
    Connect {
        /// Its socket.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Who listens lives elsewhere.
    #[error("refused the listener at `{}`: process {pid} does not live in the network namespace `{}`", path.display(), netns.display())]
    Foreign {
        /// The socket.
        path: PathBuf,
        /// The process behind it.
        pid: i32,
        /// Where it should live.
        netns: PathBuf,
    },
    /// It runs another VMI.
    #[error("refused the launcher at `{}`: it runs the VMI with uid `{found}`, not `{wanted}`", path.display())]
    OtherVmi {
        /// The socket.
        path: PathBuf,
        /// The uid that it told.
        found: String,
        /// The uid of the VMI.
        wanted: String,
    },
    /// It speaks another version of the protocol.
    #[error("failed to speak to the launcher: it speaks version {found} of the protocol, the agent {PROTOCOL_VERSION}")]
    Version {
        /// Its version.
        found: u32,
    },
    /// The connection failed during a call.
    #[error("failed to {verb} the VM: the launcher's connection broke")]
    Broken {
        /// What was asked.
        verb: &'static str,
        /// How.
        source: FrameError,
    },
    /// It did not answer in time.
    #[error("failed to {verb} the VM: no answer from the launcher within {} s", after.as_secs_f32())]
    Deadline {
        /// What was asked.
        verb: &'static str,
        /// The deadline.
        after: Duration,
    },
    /// It answered with a failure.
    #[error("failed to {verb} the VM: {}", failure.message)]
    Refused {
        /// What was asked.
        verb: &'static str,
        /// Its answer.
        failure: Failure,
    },
    /// It answered something else than was asked.
    #[error("failed to {verb} the VM: the launcher gave the answer of another request")]
    Unexpected {
        /// What was asked.
        verb: &'static str,
    },
}

impl LauncherError {
    /// What the error means for a retry, with its reason for a condition and the whole chain as message.
    pub fn failure(&self) -> Failure {
        if let Self::Refused { failure, .. } = self {
            return failure.clone();
        }
        let (class, reason) = match self {
            Self::Foreign { .. } | Self::OtherVmi { .. } => (FailureClass::Conflict, "LauncherRefused"),
            Self::Version { .. } | Self::Unexpected { .. } => (FailureClass::Bug, "LauncherProtocol"),
            Self::Absent { .. }
            | Self::Connect { .. }
            | Self::Broken { .. }
            | Self::Deadline { .. }
            | Self::Refused { .. } => (FailureClass::Retry, "LauncherUnreachable"),
        };
        Failure { class, reason: reason.to_owned(), message: super::chain(self) }
    }
}

/// Where a launcher is, and which.
#[derive(Clone, Debug)]
pub struct Launcher {
    socket: PathBuf,
    netns: PathBuf,
    vmi_uid: String,
}

/// A launcher's process.
#[derive(Debug)]
pub struct Process {
    /// Its id in the agent's pid namespace.
    pub pid: i32,
    fd: AsyncFd<OwnedFd>,
    /// Its parent in the sandbox, who starts it again should it die.
    reaper: Option<AsyncFd<OwnedFd>>,
}

impl Process {
    /// Ends when the process has.
    pub async fn exited(&self) {
        end_of(&self.fd).await;
    }

    /// Whether somebody is there to start it again. Takes `patience` where that is so: with its sandbox, a launcher
    /// ends before its parent.
    pub async fn has_successor(&self, patience: Duration) -> bool {
        match &self.reaper {
            Some(reaper) => timeout(patience, end_of(reaper)).await.is_err(),
            None => false,
        }
    }
}

/// Returns when the process of a pidfd has ended.
async fn end_of(pidfd: &AsyncFd<OwnedFd>) {
    // It becomes readable when its process ends, and stays so.
    if let Err(error) = pidfd.ready(Interest::READABLE).await {
        tracing::warn!(%error, "failed to watch a launcher's process");
        std::future::pending::<()>().await;
    }
}

/// A stream of events, the present state first. It ends when the launcher closes it.
#[derive(Debug)]
pub struct Watch {
    events: mpsc::Receiver<Event>,
    _cut: Cut,
}

impl Watch {
    /// The next event; none at the end of the stream. Cancel safe.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }
}

/// Shuts a connection down when it is dropped, which wakes the thread that is blocked on it.
#[derive(Debug)]
struct Cut(Arc<UnixStream>);

impl Drop for Cut {
    fn drop(&mut self) {
        // An error says that it is closed already.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

impl Launcher {
    /// The launcher of the VMI `vmi_uid`, listening at `socket`, living in `netns`.
    pub fn new(socket: &Path, netns: &Path, vmi_uid: &str) -> Self {
        Self { socket: socket.to_owned(), netns: netns.to_owned(), vmi_uid: vmi_uid.to_owned() }
    }

    /// The launcher of a VMI.
    pub fn of(input: &VmiInput) -> Self {
        let uid = input.vmi.metadata.uid.as_deref().unwrap_or_default();
        Self::new(&input.sandbox.launcher_socket, &input.sandbox.netns, uid)
    }

    /// Makes sure that the launcher is the right one, and returns its process.
    ///
    /// # Errors
    /// [`LauncherError::Absent`] while nobody listens.
    pub async fn attach(&self, deadline: Duration) -> Result<Process, LauncherError> {
        let (_, pid) = self.connect(deadline).await?;
        let io = |source| LauncherError::Connect { path: self.socket.clone(), source };
        // The pidfd before the call: that the launcher answers then proves that the number was still its own.
        let fd = pidfd(pid).map_err(io)?;
        match self.call("greet", Request::Hello, Vec::new(), deadline).await? {
            Response::Hello { version, .. } if version != PROTOCOL_VERSION => {
                Err(LauncherError::Version { found: version })
            }
            Response::Hello { vmi_uid, .. } if vmi_uid != self.vmi_uid => {
                Err(LauncherError::OtherVmi { path: self.socket.clone(), found: vmi_uid, wanted: self.vmi_uid.clone() })
            }
            Response::Hello { .. } => Ok(Process { pid, fd, reaper: self.reaper_of(pid) }),
            _ => Err(LauncherError::Unexpected { verb: "greet" }),
        }
    }

    /// The parent of the launcher's process, where it is in the sandbox as well.
    fn reaper_of(&self, pid: i32) -> Option<AsyncFd<OwnedFd>> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()?;
        let fd = pidfd(parent).ok()?;
        let home = PathBuf::from(format!("/proc/{parent}/ns/net"));
        same_file(&home, &self.netns).then_some(fd)
    }

    /// One request and its answer. `verb` names it in errors: "failed to `verb` the VM".
    ///
    /// # Errors
    /// Also when the launcher answers with a failure.
    pub async fn call(
        &self,
        verb: &'static str,
        request: Request,
        fds: Vec<OwnedFd>,
        deadline: Duration,
    ) -> Result<Response, LauncherError> {
        let work = async {
            let (stream, _) = self.connect(deadline).await?;
            let cut = Cut(Arc::new(stream));
            let stream = Arc::clone(&cut.0);
            let exchange = tokio::task::spawn_blocking(move || {
                let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
                frame::send(&stream, &Envelope { version: PROTOCOL_VERSION, request }, &raw)?;
                frame::receive::<Response>(&stream).map(|(response, _)| response)
            });
            let answer = exchange.await.unwrap_or_else(|panic| Err(FrameError::Io(std::io::Error::other(panic))));
            drop(cut);
            match answer.map_err(|source| LauncherError::Broken { verb, source })? {
                Response::Failed(failure) => Err(LauncherError::Refused { verb, failure }),
                response => Ok(response),
            }
        };
        timeout(deadline, work).await.map_err(|_| LauncherError::Deadline { verb, after: deadline })?
    }

    /// Follows the domain's events.
    ///
    /// # Errors
    /// When the launcher cannot be reached.
    pub async fn watch(&self, deadline: Duration) -> Result<Watch, LauncherError> {
        let (stream, _) = self.connect(deadline).await?;
        let cut = Cut(Arc::new(stream));
        let stream = Arc::clone(&cut.0);
        let (sender, events) = mpsc::channel(QUEUED_EVENTS);
        let follow = move || {
            let request = Envelope { version: PROTOCOL_VERSION, request: Request::Watch };
            let mut result = frame::send(&stream, &request, &[]);
            while result.is_ok() {
                result = match frame::receive::<Event>(&stream) {
                    Ok((event, _)) => match sender.blocking_send(event) {
                        Ok(()) => Ok(()),
                        // A closed channel: the watch was dropped.
                        Err(_) => return,
                    },
                    Err(error) => Err(error),
                };
            }
            if let Err(error) = result {
                tracing::debug!(error = super::chain(&error), "the launcher's event stream ended");
            }
        };
        // Not the runtime's blocking pool: this thread lives as long as the VM.
        std::thread::Builder::new()
            .name("launcher-watch".to_owned())
            .spawn(follow)
            .map_err(|source| LauncherError::Connect { path: self.socket.clone(), source })?;
        Ok(Watch { events, _cut: cut })
    }

    /// A verified connection in blocking mode, with the process behind it.
    async fn connect(&self, deadline: Duration) -> Result<(UnixStream, i32), LauncherError> {
        let path = || self.socket.clone();
        // The folder is the launcher's to write to: what is in it shall lead nowhere else.
        let folder = self.socket.parent().unwrap_or(Path::new("/"));
        let name = Path::new(self.socket.file_name().unwrap_or_default());
        let connecting = timeout(deadline, beneath::connect(folder, name)).await;
        let connected = connecting.map_err(|_| LauncherError::Deadline { verb: "reach", after: deadline })?;
        let stream = connected.map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
                LauncherError::Absent { path: path(), source }
            }
            _ => LauncherError::Connect { path: path(), source },
        })?;
        let io = |source| LauncherError::Connect { path: path(), source };
        let stream = stream.into_std().map_err(io)?;
        stream.set_nonblocking(false).map_err(io)?;
        let pid = getsockopt(&stream, sockopt::PeerCredentials).map_err(|errno| io(errno.into()))?.pid();
        let home = PathBuf::from(format!("/proc/{pid}/ns/net"));
        if pid > 0
            && let Err(source) = std::fs::metadata(&home)
        {
            // It has ended between its answer and this look.
            let source = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, source);
            return Err(LauncherError::Absent { path: path(), source });
        }
        // 0 stands for a process that this pid namespace cannot see.
        if pid <= 0 || !same_file(&home, &self.netns) {
            return Err(LauncherError::Foreign { path: path(), pid, netns: self.netns.clone() });
        }
        Ok((stream, pid))
    }
}

/// Whether both paths lead to one inode; not where either leads nowhere.
fn same_file(a: &Path, b: &Path) -> bool {
    let id = |path: &Path| std::fs::metadata(path).map(|meta| (meta.dev(), meta.ino()));
    matches!((id(a), id(b)), (Ok(a), Ok(b)) if a == b)
}

fn pidfd(pid: i32) -> std::io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: pidfd_open takes two integers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = RawFd::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(std::io::Error::last_os_error)?;
    // SAFETY: the kernel has just made this descriptor for us (close-on-exec), and nobody else knows it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: the descriptor is owned by the value that is registered, and an OwnedFd stays the same until dropped.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(std::io::Error::from)
}
