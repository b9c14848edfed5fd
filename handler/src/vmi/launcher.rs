//! The process of a launcher, found by its socket and believed only as a process of its own pod.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use holdfast_agent::beneath;
use holdfast_agent::netns::{NetnsError, NetnsId};
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};

/// Why a launcher is not believed.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// Nobody listens (yet).
    #[error("failed to reach the launcher at `{}`", path.display())]
    Absent {
        /// Its socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Who listens is somebody else.
    #[error("refused the listener at `{}`: process {pid} {why}", path.display())]
    Foreign {
        /// Its socket.
        path: PathBuf,
        /// The process.
        pid: i32,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Its process cannot be looked at.
    #[error("failed to look at process {pid} of the launcher")]
    Process {
        /// The process.
        pid: i32,
        /// Why.
        source: io::Error,
    },
    /// Its network namespace cannot be looked at.
    #[error(transparent)]
    Netns(#[from] NetnsError),
}

/// A launcher's place on the network.
#[derive(Debug)]
pub struct Found {
    /// Keeps its network namespace, and so the path below, for as long as this lives.
    netns: OwnedFd,
    /// What tells the namespace from others.
    pub id: NetnsId,
}

impl Found {
    /// Path of the network namespace, in this process.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.netns.as_raw_fd()))
    }
}

/// Finds the process behind a launcher's socket.
///
/// # Errors
/// [`FindError`].
pub async fn find(socket: &Path, pod_uid: &str) -> Result<Found, FindError> {
    let (folder, name) = (socket.parent().unwrap_or(Path::new("/")), socket.file_name().unwrap_or_default());
    let connected = beneath::connect(folder, Path::new(name)).await;
    let stream = connected.map_err(|source| FindError::Absent { path: socket.to_owned(), source })?;
    let pid = getsockopt(&stream, sockopt::PeerCredentials).map(|peer| peer.pid()).unwrap_or_default();
    let foreign = |why| FindError::Foreign { path: socket.to_owned(), pid, why };
    if pid <= 0 {
        return Err(foreign("is none that this node can see"));
    }
    let failed = |source| FindError::Process { pid, source };
    let process = pidfd(pid).map_err(failed)?;
    let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).map_err(failed)?;
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).map_err(failed)?;
    let netns = OwnedFd::from(File::open(format!("/proc/{pid}/ns/net")).map_err(failed)?);
    // What was read was its own only if it lives still.
    if has_ended(&process).map_err(failed)? {
        return Err(foreign("has ended"));
    }
    if !is_of_pod(&cgroups, &mounts, pod_uid) {
        return Err(foreign("does not belong to the pod"));
    }
    let path = PathBuf::from(format!("/proc/self/fd/{}", netns.as_raw_fd()));
    let id = tokio::task::block_in_place(|| NetnsId::of(&path))?;
    if NetnsId::own().map_err(failed)? == id {
        return Err(foreign("lives in the network namespace of the node"));
    }
    Ok(Found { netns, id })
}

/// Whether a process belongs to a pod: by its control group, which is out of the pod's own hands, or by the pod's
/// volumes, where groups are not named after pods.
fn is_of_pod(cgroups: &str, mounts: &str, uid: &str) -> bool {
    // The systemd driver has no dashes in names.
    let names = [format!("pod{uid}"), format!("pod{}", uid.replace('-', "_"))];
    if cgroups.lines().any(|line| line.split('/').any(|part| names.iter().any(|name| is_named(part, name)))) {
        return true;
    }
    let volumes = format!("/pods/{uid}/volumes/kubernetes.io~empty-dir/sockets");
    // Fields 4 and 5 of a line: what is mounted, and where (proc(5)).
    mounts.lines().any(|line| {
        let mut fields = line.split(' ').skip(3);
        let (root, point) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        root.ends_with(&volumes) && point.ends_with("/kubevirt/sockets")
    })
}

/// `pod<uid>`, `kubepods-burstable-pod<uid>.slice`.
fn is_named(part: &str, name: &str) -> bool {
    part == name || part.strip_suffix(".slice").is_some_and(|part| part.ends_with(&format!("-{name}")))
}

fn pidfd(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = RawFd::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A pidfd becomes readable when its process has ended.
fn has_ended(process: &OwnedFd) -> io::Result<bool> {
    let mut wait = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    loop {
        match poll(&mut wait, PollTimeout::ZERO) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const UID: &str = "dac7dd85-459f-4320-b798-58ed58e793da";

    #[test]
    fn a_process_is_told_by_its_group_or_its_volumes() {
        let by_group = |group: &str| is_of_pod(group, "", UID);
        assert!(by_group(&format!("12:memory:/\n3:cpu:/node1/kubepods/burstable/pod{UID}/abc\n")));
        let slice = UID.replace('-', "_");
        assert!(by_group(&format!("0::/../../kubepods-burstable-pod{slice}.slice/cri-containerd-abc.scope\n")));
        assert!(!by_group(&format!("0::/kubepods/pod{UID}x/abc\n")));
        assert!(!by_group(&format!("0::/kubepods/x-pod{UID}/abc\n")));
        assert!(!by_group("0::/\n"));

        let mount = |root: &str, point: &str| {
            is_of_pod("0::/\n", &format!("36 35 98:0 {root} {point} rw,noatime - ext4 /dev/root rw\n"), UID)
        };
        let root = format!("/var/lib/kubelet/pods/{UID}/volumes/kubernetes.io~empty-dir/sockets");
        assert!(mount(&root, "/var/run/kubevirt/sockets"));
        assert!(!mount(&root, "/elsewhere"));
        assert!(!mount("/var/lib/kubelet/pods/other/volumes/kubernetes.io~empty-dir/sockets", "/run/kubevirt/sockets"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_process_outside_the_pod_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("launcher.sock");
        assert!(matches!(find(&socket, UID).await.unwrap_err(), FindError::Absent { .. }));
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let error = find(&socket, UID).await.unwrap_err();
        assert!(error.to_string().contains("does not belong to the pod"), "{error}");
    }
}
