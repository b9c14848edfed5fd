//! Files in folders that a VM's launcher can write to, opened so that it cannot lead us elsewhere.
//!
//! Invariant: nothing outside the folder is reached, whatever links are in it.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use tokio::net::UnixStream;

/// Opens `relative` in `folder`. The folder's own path is believed.
///
/// # Errors
/// Also where a link is on the way.
pub fn open(folder: &Path, relative: &Path, flags: OFlag) -> io::Result<OwnedFd> {
    let folder = File::open(folder)?;
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve);
    Ok(openat2(&folder, relative, how)?)
}

/// Connects to the socket `relative` in `folder`, however long the path of it is.
///
/// # Errors
/// Also where a link is on the way.
pub async fn connect(folder: &Path, relative: &Path) -> io::Result<UnixStream> {
    // The socket itself is open, so that this path leads to it and to nothing that takes its place.
    let socket = open(folder, relative, OFlag::O_PATH)?;
    UnixStream::connect(format!("/proc/self/fd/{}", socket.as_raw_fd())).await
}

/// Reads a regular file of at most `limit` bytes.
///
/// # Errors
/// Also where it is something else, or longer.
pub fn read(folder: &Path, relative: &Path, limit: u64) -> io::Result<Vec<u8>> {
    // Not blocking, for it may be a pipe.
    let file = File::from(open(folder, relative, OFlag::O_RDONLY | OFlag::O_NONBLOCK)?);
    let meta = file.metadata()?;
    if !meta.is_file() || meta.len() > limit {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a regular file of a fitting size"));
    }
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn links_lead_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let (inner, outer) = (folder.path().join("inner"), folder.path().join("outer"));
        std::fs::create_dir_all(&inner).unwrap();
        std::fs::create_dir_all(&outer).unwrap();
        std::fs::write(outer.join("f"), "secret").unwrap();
        std::fs::write(inner.join("f"), "own").unwrap();
        symlink("../outer/f", inner.join("link")).unwrap();
        symlink("../outer", inner.join("folder")).unwrap();
        let read = |name: &str| read(&inner, Path::new(name), 100);
        assert_eq!(read("f").unwrap(), b"own");
        for name in ["link", "folder/f", "../outer/f", "/etc/passwd", "none", "."] {
            assert!(read(name).is_err(), "{name}");
        }
        nix::unistd::mkfifo(&inner.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(read("pipe").is_err());
        assert!(super::read(&inner, Path::new("f"), 2).is_err());

        let _listener = UnixListener::bind(inner.join("s")).unwrap();
        symlink("s", inner.join("t")).unwrap();
        assert!(connect(&inner, Path::new("s")).await.is_ok());
        assert!(connect(&inner, Path::new("t")).await.is_err());
        let absent = connect(&inner, Path::new("u")).await.unwrap_err();
        assert_eq!(absent.kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn a_path_may_be_longer_than_that_of_a_socket() {
        let folder = tempfile::tempdir().unwrap();
        let long = folder.path().join("x".repeat(60)).join("y".repeat(60));
        std::fs::create_dir_all(&long).unwrap();
        let near = folder.path().join("s");
        let listener = UnixListener::bind(&near).unwrap();
        std::fs::rename(&near, long.join("s")).unwrap();
        assert!(connect(&long, Path::new("s")).await.is_ok());
        drop(listener);
        let refused = connect(&long, Path::new("s")).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
}
