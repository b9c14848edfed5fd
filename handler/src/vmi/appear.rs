//! Waiting for a file without looking for it again and again, unless the kernel has no watch to give.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

/// How often it is looked for all the same, for file systems that do not tell.
const LOOK: Duration = Duration::from_secs(15);

/// How often it is looked for where the kernel has no watch to give: a user's watches are few (128 by default, see
/// inotify(7)), and all of a node's containers that run as root share them.
const LOOK_UNWATCHED: Duration = Duration::from_millis(100);

/// What tells that a folder is not where it was.
const LOST: AddWatchFlags = AddWatchFlags::IN_DELETE_SELF.union(AddWatchFlags::IN_MOVE_SELF);

/// inotify as tokio wants to have it.
struct Events(Inotify);

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Returns when there is something at `path`. The folders on the way need not be there yet.
///
/// # Errors
/// Where the kernel refuses a watch for another reason than that there are too many, or no folder of the path is
/// there.
pub async fn appears(path: &Path) -> io::Result<()> {
    match Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK) {
        Ok(inotify) => match watch(path, Events(inotify)).await {
            Err(error) if error.raw_os_error() == Some(Errno::ENOSPC as i32) => look(path).await,
            outcome => outcome,
        },
        Err(Errno::EMFILE | Errno::ENFILE) => look(path).await,
        Err(errno) => Err(errno.into()),
    }
}

async fn look(path: &Path) -> io::Result<()> {
    while path.symlink_metadata().is_err() {
        tokio::time::sleep(LOOK_UNWATCHED).await;
    }
    Ok(())
}

async fn watch(path: &Path, inotify: Events) -> io::Result<()> {
    // SAFETY: the descriptor is owned by the value that is registered, and stays the same until that is dropped.
    let inotify = unsafe { AsyncFd::register_with_interest(inotify, Interest::READABLE) }.map_err(io::Error::from)?;
    let mut watched: Option<(PathBuf, WatchDescriptor)> = None;
    loop {
        let there = path.ancestors().skip(1).find(|folder| folder.is_dir());
        let there = there.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let flags = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        if watched.as_ref().is_none_or(|(folder, _)| folder != there) {
            // Only where it is another: the end of a watch is an event as well.
            if let Some((_, watch)) = watched.take() {
                let _ = inotify.get_ref().0.rm_watch(watch);
            }
            match inotify.get_ref().0.add_watch(there, flags) {
                Ok(watch) => watched = Some((there.to_owned(), watch)),
                // Gone in between.
                Err(Errno::ENOENT) => continue,
                Err(errno) => return Err(errno.into()),
            }
        }
        // After the watch, so that nothing is missed.
        if path.symlink_metadata().is_ok() {
            return Ok(());
        }
        let next = path.ancestors().take_while(|below| *below != there).last();
        if next.is_some_and(|next| next != path && next.is_dir()) {
            continue;
        }
        if let Ok(ready) = timeout(LOOK, inotify.readable()).await {
            let mut ready = ready?;
            match inotify.get_ref().0.read_events() {
                // A folder that is gone and made anew has lost its watch.
                Ok(events) if events.iter().any(|event| event.mask.intersects(LOST)) => watched = None,
                Ok(_) => {}
                Err(Errno::EAGAIN) => ready.clear_ready(),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test]
    async fn a_file_is_seen_however_many_folders_come_first() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b/c");
        let make = async {
            std::fs::create_dir(root.path().join("other")).unwrap();
            tokio::task::yield_now().await;
            std::fs::create_dir(root.path().join("a")).unwrap();
            tokio::task::yield_now().await;
            std::fs::create_dir(root.path().join("a/b")).unwrap();
            std::fs::write(root.path().join("a/b/other"), "").unwrap();
            tokio::task::yield_now().await;
            std::fs::write(&path, "").unwrap();
        };
        let (seen, ()) = tokio::join!(timeout(LOOK / 3, appears(&path)), make);
        seen.unwrap().unwrap();
        appears(&path).await.unwrap();
    }

    #[tokio::test]
    async fn a_file_is_seen_without_a_watch_too() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("late");
        let make = async {
            tokio::task::yield_now().await;
            std::fs::write(&path, "").unwrap();
        };
        let (seen, ()) = tokio::join!(timeout(LOOK, look(&path)), make);
        seen.unwrap().unwrap();
    }
}
