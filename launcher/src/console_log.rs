//! Copies what the guest prints on its serial console to the launcher's own standard output, where `kubectl logs` shows
//! it, and keeps the log that the hypervisor writes within bounds: a guest decides how much it prints.
//!
//! The bytes are copied as they are, at a bounded rate and without ever waiting for a reader that does not come. What
//! is beyond that is left out of the output; the end of the console's log is always in the file.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

/// Most that the log may hold before it becomes the old one, which there is one of.
const MOST: u64 = 1 << 20;
/// Copied at a time, then [`PAUSE`]: together the highest rate, 256 KiB/s.
const CHUNK: u64 = 64 << 10;
const PAUSE: Duration = Duration::from_millis(250);
/// How often the log is looked at where the kernel has no watch to give.
const LOOK: Duration = Duration::from_secs(1);
/// A pipe that can be written to takes this much at once (POSIX: PIPE_BUF).
const PIECE: usize = 4096;
/// How long the output's reader may be away before what is printed meanwhile is left out.
const PATIENCE: Duration = Duration::from_secs(1);

/// From where a log is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// All of it.
    Start,
    /// What is printed from now on.
    Now,
}

/// Starts the thread that copies and bounds `log`, which exists, for the rest of the process's life.
///
/// # Errors
/// When the log cannot be opened.
pub fn follow(log: PathBuf, from: From) -> io::Result<()> {
    let file = File::open(&log)?;
    // A user has few watches (inotify(7)), and all launchers of a node are the same user: it does without, too.
    let inotify =
        watch(&log).inspect_err(|error| tracing::info!(%error, "looks at the console's log now and then")).ok();
    let at = if from == From::Start { 0 } else { file.metadata()?.len() };
    let mut follower = Follower { log, file, at };
    std::thread::Builder::new().name("console".to_owned()).spawn(move || {
        let output = io::stdout();
        loop {
            match follower.copy(&mut Patient(&output)) {
                Ok(true) => std::thread::sleep(PAUSE),
                Ok(false) => match &inotify {
                    None => std::thread::sleep(LOOK),
                    Some(inotify) => {
                        if let Err(error) = inotify.read_events() {
                            tracing::warn!(%error, "failed to wait for the console's log");
                            return;
                        }
                    }
                },
                Err(error) => {
                    tracing::warn!(%error, log = %follower.log.display(), "failed to copy the console's log");
                    return;
                }
            }
        }
    })?;
    Ok(())
}

fn watch(log: &Path) -> nix::Result<Inotify> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC)?;
    inotify.add_watch(log, AddWatchFlags::IN_MODIFY)?;
    Ok(inotify)
}

struct Follower {
    log: PathBuf,
    file: File,
    /// How far it is copied.
    at: u64,
}

impl Follower {
    /// Copies a chunk; tells whether there is more.
    fn copy(&mut self, output: &mut impl Write) -> io::Result<bool> {
        let length = self.file.metadata()?.len();
        if length < self.at {
            self.at = 0;
        }
        let mut chunk = Vec::new();
        self.file.seek(SeekFrom::Start(self.at))?;
        Read::by_ref(&mut self.file).take(CHUNK).read_to_end(&mut chunk)?;
        self.at += chunk.len() as u64;
        // A reader that is away or gone is no reason to stop bounding the log.
        if let Err(error) = output.write_all(&chunk) {
            tracing::debug!(%error, "left out what the guest printed");
        }
        if length > MOST && (self.at >= length || length > 2 * MOST) {
            self.bound()?;
        }
        Ok(self.file.metadata()?.len() > self.at)
    }

    /// Moves the log aside. The hypervisor appends, so that it goes on at the start of the emptied file; what it
    /// prints between copy and cut is lost.
    fn bound(&mut self) -> io::Result<()> {
        std::fs::copy(&self.log, old(&self.log))?;
        OpenOptions::new().write(true).open(&self.log)?.set_len(0)?;
        self.at = 0;
        Ok(())
    }
}

fn old(log: &Path) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(".0");
    name.into()
}

/// Writes to a pipe or file, but waits a bounded time only.
struct Patient<'a, T>(&'a T);

impl<T: AsFd> Write for Patient<'_, T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let timeout = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::MAX);
        let mut polled = [PollFd::new(self.0.as_fd(), PollFlags::POLLOUT)];
        match poll(&mut polled, timeout) {
            Ok(0) => Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => Ok(nix::unistd::write(self.0, &bytes[..bytes.len().min(PIECE)])?),
            Err(nix::errno::Errno::EINTR) => Err(io::ErrorKind::Interrupted.into()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follower(folder: &Path) -> Follower {
        let log = folder.join("virt-serial0-log");
        File::create(&log).unwrap();
        Follower { file: File::open(&log).unwrap(), log, at: 0 }
    }

    fn print(follower: &Follower, bytes: &[u8]) {
        OpenOptions::new().append(true).open(&follower.log).unwrap().write_all(bytes).unwrap();
    }

    #[test]
    fn copies_all_and_bounds_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let mut follower = follower(folder.path());
        let text: Vec<u8> = (0..MOST + 10).map(|n| n as u8).collect();
        print(&follower, &text);
        let mut copied = Vec::new();
        while follower.copy(&mut copied).unwrap() {}
        assert_eq!(copied, text);
        assert_eq!(std::fs::metadata(&follower.log).unwrap().len(), 0);
        assert_eq!(std::fs::read(old(&follower.log)).unwrap(), text);
        print(&follower, b"\nlogin: ");
        assert!(!follower.copy(&mut copied).unwrap());
        assert!(copied.ends_with(b"\nlogin: "));
    }

    #[test]
    fn bounds_a_log_that_grows_faster_than_it_is_copied() {
        let folder = tempfile::tempdir().unwrap();
        let mut follower = follower(folder.path());
        print(&follower, &vec![b'x'; 2 * MOST as usize + 1]);
        let mut copied = Vec::new();
        assert!(!follower.copy(&mut copied).unwrap());
        assert_eq!(copied.len() as u64, CHUNK);
        assert_eq!(std::fs::metadata(&follower.log).unwrap().len(), 0);
    }

    #[test]
    fn waits_for_no_reader() {
        let (_reader, writer) = nix::unistd::pipe().unwrap();
        let mut output = Patient(&writer);
        // A pipe holds 64 KiB; the rest finds nobody.
        let error = output.write_all(&vec![0; 1 << 17]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
