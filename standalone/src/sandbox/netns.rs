//! Named network namespaces: made, found and removed as bind mounts under RUN/netns.
//!
//! Invariant: only a throw-away thread ever leaves this process's namespace, and it ends there.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// Why a network namespace could not be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// It could not be made.
    #[error("failed to make network namespace `{0}`")]
    Make(PathBuf, #[source] io::Error),
    /// It could not be removed.
    #[error("failed to remove network namespace `{0}`")]
    Remove(PathBuf, #[source] io::Error),
}

/// Makes a network namespace with its loopback up and keeps it at `path`. One that is there already stays as it
/// is: a namespace is never replaced under somebody's feet.
pub fn make(path: &Path) -> Result<(), NetnsError> {
    let failed = |error| NetnsError::Make(path.to_owned(), error);
    if is_netns(path) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    // A file without a mount is what a crash between these steps left: it is used.
    OpenOptions::new().write(true).create(true).truncate(false).open(path).map_err(failed)?;
    let target = path.to_owned();
    thread::Builder::new()
        .name("netns".to_owned())
        .spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            loopback_up()?;
            let own = Path::new("/proc/thread-self/ns/net");
            mount(Some(own), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>).map_err(io::Error::from)
        })
        .map_err(failed)?
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("the thread that makes it panicked")))
        .map_err(failed)
}

/// Removes the namespace at `path`, whatever of it there is; nothing is a success. Links in it go with it, once
/// the last process in it has ended.
pub fn remove(path: &Path) -> Result<(), NetnsError> {
    let failed = |error| NetnsError::Remove(path.to_owned(), error);
    // Several mounts may lie on one file; EINVAL says that none is left.
    while is_netns(path) {
        umount2(path, MntFlags::MNT_DETACH).map_err(|errno| failed(errno.into()))?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
        _ => Ok(()),
    }
}

/// Whether a namespace is mounted at `path`: its device is then that of the kernel's own file system.
pub fn is_netns(path: &Path) -> bool {
    match (fs::metadata(path), fs::metadata("/proc/self/ns/net")) {
        (Ok(found), Ok(own)) => found.dev() == own.dev(),
        _ => false,
    }
}

#[repr(C)]
struct InterfaceFlags {
    name: [u8; 16],
    flags: nix::libc::c_short,
    padding: [u8; 22],
}

mod ioctls {
    nix::ioctl_write_ptr_bad!(set_flags, nix::libc::SIOCSIFFLAGS, super::InterfaceFlags);
}

fn loopback_up() -> io::Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut name = [0; 16];
    name[..2].copy_from_slice(b"lo");
    let flags = (nix::libc::IFF_UP | nix::libc::IFF_RUNNING) as nix::libc::c_short;
    let request = InterfaceFlags { name, flags, padding: [0; 22] };
    // SAFETY: the request has the layout and the size of struct ifreq and outlives the call.
    unsafe { ioctls::set_flags(socket.as_raw_fd(), &request) }?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_made_once_and_removed_for_good() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("netns/x");
        make(&path).unwrap();
        let first = fs::metadata(&path).unwrap().ino();
        make(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().ino(), first);
        assert_ne!(fs::metadata("/proc/self/ns/net").unwrap().ino(), first);
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn what_a_crash_left_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        fs::write(&path, "").unwrap();
        assert!(!is_netns(&path));
        make(&path).unwrap();
        assert!(is_netns(&path));
        remove(&path).unwrap();
    }
}
