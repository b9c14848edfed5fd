//! A process that may be somebody else's child: named by pid and start time, held by a pidfd.
//!
//! Invariant: a signal goes through a pidfd whose process was checked after it was opened, so it never reaches a
//! process that got the pid later.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::libc;
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// What names a process for as long as the host is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessId {
    /// Its pid in our namespace.
    pub pid: i32,
    /// Clock ticks from boot to its start (field 22 of /proc/PID/stat).
    pub start_time: u64,
    /// The boot that this was in, for pids and ticks begin anew with the next one.
    pub boot: BootId,
}

/// The kernel's id of one boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootId(uuid::Uuid);

impl BootId {
    fn current() -> io::Result<Self> {
        let text = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        text.trim().parse().map(Self).map_err(io::Error::other)
    }
}

/// A process that is held: what is done to it through this reaches it or nobody.
#[derive(Debug)]
pub struct Process {
    id: ProcessId,
    pidfd: OwnedFd,
}

impl Process {
    /// Holds a process by its pid.
    pub fn open(pid: i32) -> io::Result<Self> {
        let pidfd = pidfd_open(pid)?;
        let start_time = start_time(pid)?;
        Ok(Self { id: ProcessId { pid, start_time, boot: BootId::current()? }, pidfd })
    }

    /// Holds the process of that name; none where it has ended.
    pub fn find(id: ProcessId) -> io::Result<Option<Self>> {
        if BootId::current()? != id.boot {
            return Ok(None);
        }
        let gone =
            |error: &io::Error| error.raw_os_error() == Some(libc::ESRCH) || error.kind() == io::ErrorKind::NotFound;
        match Self::open(id.pid) {
            Ok(process) if process.id == id && !process.has_ended() => Ok(Some(process)),
            Ok(_) => Ok(None),
            Err(error) if gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Its name.
    pub fn id(&self) -> ProcessId {
        self.id
    }

    /// Whether it has ended; whoever its parent is need not have looked yet.
    pub fn has_ended(&self) -> bool {
        let mut poll = [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(&self.pidfd), nix::poll::PollFlags::POLLIN)];
        matches!(nix::poll::poll(&mut poll, nix::poll::PollTimeout::ZERO), Ok(n) if n > 0)
    }

    /// Ends it at once; for pid 1 of a pid namespace, everything in that namespace ends with it.
    pub fn kill(&self) -> io::Result<()> {
        // SAFETY: pidfd_send_signal takes a pidfd, a signal, no siginfo and no flags, and touches no memory of ours.
        let sent = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.pidfd.as_raw_fd(),
                libc::SIGKILL,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
        match io::Error::last_os_error() {
            _ if sent == 0 => Ok(()),
            error if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            error => Err(error),
        }
    }

    /// Returns when it has ended.
    pub async fn ended(&self) -> io::Result<()> {
        // SAFETY: an OwnedFd keeps its descriptor open and the same for as long as it is registered.
        let watched = unsafe { AsyncFd::register_with_interest(self.pidfd.try_clone()?, Interest::READABLE) }?;
        watched.readable().await.map(|_| ())
    }
}

fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes a pid and flags and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    match i32::try_from(fd) {
        // SAFETY: the kernel has just made this descriptor for us (close-on-exec), and nobody else knows it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

fn start_time(pid: i32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is a name in parentheses that may hold anything; after it come the third and so on.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let field = fields.split_whitespace().nth(22 - 3);
    field.and_then(|text| text.parse().ok()).ok_or_else(|| io::Error::other("unreadable /proc/PID/stat"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[tokio::test]
    async fn a_process_is_found_again_until_it_ends() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process::open(i32::try_from(child.id()).unwrap()).unwrap();
        assert!(Process::find(process.id()).unwrap().is_some());
        let other = ProcessId { start_time: process.id().start_time + 1, ..process.id() };
        assert!(Process::find(other).unwrap().is_none());
        process.kill().unwrap();
        tokio::time::timeout(std::time::Duration::from_secs(10), process.ended()).await.unwrap().unwrap();
        assert!(Process::find(process.id()).unwrap().is_none(), "a zombie has ended");
        child.wait().unwrap();
        process.kill().unwrap();
        assert!(Process::find(process.id()).unwrap().is_none());
    }
}
