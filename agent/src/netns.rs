//! Which network namespace a path leads to.
//!
//! A path (and an inode number, too) is used again for another namespace when its first one is gone. The
//! kernel's cookie of a namespace is not, until the node reboots: with the boot's id beside it, it tells whether
//! an attachment's namespace is still the one that it was made in.

use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};

use nix::libc;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::sys::statfs::{FsType, fstatfs};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

/// Magic number of nsfs (NSFS_MAGIC in linux/magic.h).
const NSFS: FsType = FsType(0x6e73_6673);

/// What tells one network namespace from every other.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetnsId {
    /// SO_NETNS_COOKIE: not used twice in a boot.
    pub cookie: u64,
    /// /proc/sys/kernel/random/boot_id.
    pub boot: String,
}

/// Why a path is not a network namespace.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// There is nothing, or it cannot be entered.
    #[error("failed to enter the network namespace `{path}`")]
    Enter {
        /// The path.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// There is something else.
    #[error("`{0}` is not a network namespace")]
    Other(String),
}

impl NetnsError {
    /// Whether the namespace is gone for good, as opposed to one that cannot be looked at.
    pub fn is_gone(&self) -> bool {
        match self {
            Self::Enter { source, .. } => source.kind() == io::ErrorKind::NotFound,
            Self::Other(_) => true,
        }
    }
}

impl NetnsId {
    /// The namespace that `path` leads to. Blocks for as long as a thread takes to start.
    ///
    /// # Errors
    /// [`NetnsError`].
    pub fn of(path: &Path) -> Result<Self, NetnsError> {
        let file = open(path)?;
        // On a thread of its own, which ends in that namespace: nothing else ever runs there.
        let entered = std::thread::Builder::new().name("netns".to_owned()).spawn(move || {
            setns(&file, CloneFlags::CLONE_NEWNET)?;
            cookie()
        });
        let joined = entered.map(|thread| thread.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into())));
        Self::found(path, joined.flatten())
    }

    fn found(path: &Path, cookie: io::Result<u64>) -> Result<Self, NetnsError> {
        let failed = |source| NetnsError::Enter { path: path.display().to_string(), source };
        match cookie {
            Ok(cookie) => Ok(Self { cookie, boot: boot_id().map_err(failed)? }),
            // Of another kind: a pid namespace, say.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                Err(NetnsError::Other(path.display().to_string()))
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// [`io::Error`] of a kernel without cookies.
    pub fn own() -> io::Result<Self> {
        Ok(Self { cookie: cookie()?, boot: boot_id()? })
    }
}

/// Opens what may be a network namespace.
fn open(path: &Path) -> Result<File, NetnsError> {
    let failed = |source| NetnsError::Enter { path: path.display().to_string(), source };
    let file = File::open(path).map_err(failed)?;
    match fstatfs(&file).map_err(|errno| failed(errno.into()))?.filesystem_type() {
        NSFS => Ok(file),
        _ => Err(NetnsError::Other(path.display().to_string())),
    }
}

/// Identifies namespaces by a thread that goes there and comes back, which takes less than to start one. Clones share it;
/// it ends with the last of them.
#[derive(Clone, Debug)]
pub(crate) struct Visitor(Arc<Mutex<mpsc::Sender<Visit>>>);

/// A namespace, and where to tell its cookie.
type Visit = (File, oneshot::Sender<io::Result<u64>>);

impl Visitor {
    /// A visitor that is at home in the namespace of the calling thread.
    ///
    /// # Errors
    /// [`io::Error`] where that cannot be opened.
    pub(crate) fn start() -> io::Result<Self> {
        let home = File::open("/proc/thread-self/ns/net")?;
        Ok(Self(Arc::new(Mutex::new(set_out(home)?))))
    }

    /// The namespace that `path` leads to.
    ///
    /// # Errors
    /// [`NetnsError`].
    pub(crate) async fn identify(&self, path: &Path) -> Result<NetnsId, NetnsError> {
        let (reply, cookie) = oneshot::channel();
        let visit = (open(path)?, reply);
        let sent = self.0.lock().unwrap_or_else(PoisonError::into_inner).send(visit);
        match (sent, cookie.await) {
            (Ok(()), Ok(cookie)) => NetnsId::found(path, cookie),
            // It did not come back from an earlier visit.
            _ => NetnsId::of(path),
        }
    }
}

fn set_out(home: File) -> io::Result<mpsc::Sender<Visit>> {
    let (visits, inbox) = mpsc::channel::<Visit>();
    std::thread::Builder::new().name("visitor".to_owned()).spawn(move || {
        while let Ok((there, reply)) = inbox.recv() {
            let found = setns(&there, CloneFlags::CLONE_NEWNET).map_err(io::Error::from).and_then(|()| cookie());
            let back = setns(&home, CloneFlags::CLONE_NEWNET);
            drop(there);
            // Who asked may have given up.
            let _ = reply.send(found);
            if back.is_err() {
                // It must not keep a pod's namespace.
                return tracing::error!("a thread that looked at a network namespace cannot leave it");
            }
        }
    })?;
    Ok(visits)
}

fn boot_id() -> io::Result<String> {
    static BOOT: OnceLock<String> = OnceLock::new();
    if let Some(boot) = BOOT.get() {
        return Ok(boot.clone());
    }
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim_end().to_owned();
    Ok(BOOT.get_or_init(|| boot).clone())
}

fn cookie() -> io::Result<u64> {
    let fd = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut cookie = 0_u64;
    let mut size = mem::size_of::<u64>() as libc::socklen_t;
    // SAFETY: `cookie` and `size` outlive the call, and `size` is that of `cookie`.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut size,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

/// The MTU of a link in the calling thread's namespace; none where there is no such link.
///
/// # Errors
/// [`io::Error`] where it cannot be asked for.
pub fn link_mtu(name: &holdfast_net::model::IfName) -> io::Result<Option<u32>> {
    let fd = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: all zero is a valid ifreq: an empty name and integers.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    // An IfName has at most 15 bytes, so a zero is left at the end.
    for (to, from) in request.ifr_name.iter_mut().zip(name.as_str().bytes()) {
        *to = from as libc::c_char;
    }
    // SAFETY: SIOCGIFMTU reads and writes one ifreq, which outlives the call.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::SIOCGIFMTU, &raw mut request) };
    if result != 0 {
        let error = io::Error::last_os_error();
        return if error.raw_os_error() == Some(libc::ENODEV) { Ok(None) } else { Err(error) };
    }
    // SAFETY: SIOCGIFMTU has succeeded, so it has written this member of the union.
    Ok(u32::try_from(unsafe { request.ifr_ifru.ifru_mtu }).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_namespaces_apart() {
        let own = NetnsId::own().unwrap();
        assert_eq!(NetnsId::of(Path::new("/proc/self/ns/net")).unwrap(), own);
        let other = std::thread::spawn(|| {
            nix::sched::unshare(CloneFlags::CLONE_NEWNET).unwrap();
            (NetnsId::own().unwrap(), NetnsId::of(Path::new("/proc/thread-self/ns/net")).unwrap())
        });
        let (there, by_path) = other.join().unwrap();
        assert_eq!(there, by_path);
        assert_ne!(there, own);
    }

    #[test]
    fn tells_what_is_no_namespace() {
        assert!(NetnsId::of(Path::new("/nowhere/at/all")).unwrap_err().is_gone());
        assert!(matches!(NetnsId::of(Path::new("/proc/self/ns/pid")), Err(NetnsError::Other(_))));
        assert!(matches!(NetnsId::of(Path::new("/etc/passwd")), Err(NetnsError::Other(_))));
    }

    #[test]
    fn reads_an_mtu() {
        assert_eq!(link_mtu(&"lo".parse().unwrap()).unwrap(), Some(65536));
        assert_eq!(link_mtu(&"no-such-link".parse().unwrap()).unwrap(), None);
    }
}
