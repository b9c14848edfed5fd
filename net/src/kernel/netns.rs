//! Work inside a network namespace: an OS thread of its own that enters it, opens its sockets there, and ends.
//!
//! Invariant: no thread of the runtime ever changes its namespace, and nothing here outlives the [`Namespace`] that
//! asked for it: a socket that stays open would keep a pod's namespace from being freed.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use tokio::sync::oneshot;

use super::error::WiringError;
use super::netlink::Netlink;
use crate::desired::Netns;

/// How long one job may take: some requests of at most five seconds each would be a kernel that hangs.
const DEADLINE: Duration = Duration::from_secs(10);

/// What a job has at hand inside the namespace.
pub(super) struct Inside {
    /// rtnetlink.
    pub(super) route: Netlink,
    /// nfnetlink.
    pub(super) netfilter: Netlink,
    /// Any socket, for the ioctls of links.
    pub(super) control: OwnedFd,
}

type Job = Box<dyn FnOnce(&mut Inside) + Send>;

/// A network namespace that is being worked in.
pub(super) struct Namespace {
    netns: Netns,
    jobs: mpsc::Sender<Job>,
}

impl Namespace {
    /// Enters a namespace.
    pub(super) async fn enter(netns: Netns, handle: File) -> Result<Self, WiringError> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (ready, entered) = oneshot::channel();
        let work = move || {
            let mut inside = match enter(&handle) {
                Ok(inside) => inside,
                Err(error) => {
                    // The caller may have given up; then nobody wants to know.
                    let _ = ready.send(Err(error));
                    return;
                }
            };
            drop(handle);
            let _ = ready.send(Ok(()));
            while let Ok(job) = inbox.recv() {
                job(&mut inside);
            }
        };
        let enter_error = |source| WiringError::Enter { netns: netns.clone(), source };
        std::thread::Builder::new().name("netns".to_owned()).spawn(work).map_err(enter_error)?;
        match tokio::time::timeout(DEADLINE, entered).await {
            Ok(Ok(Ok(()))) => Ok(Self { netns, jobs }),
            Ok(Ok(Err(source))) => Err(enter_error(source)),
            Ok(Err(_)) | Err(_) => Err(WiringError::Deadline(netns)),
        }
    }

    /// Does a job inside the namespace.
    pub(super) async fn call<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Inside) -> R + Send + 'static,
    ) -> Result<R, WiringError> {
        let (done, result) = oneshot::channel();
        let deadline = || WiringError::Deadline(self.netns.clone());
        let job: Job = Box::new(move |inside| {
            // The caller may have given up; the result is then of no use.
            let _ = done.send(job(inside));
        });
        self.jobs.send(job).map_err(|_| deadline())?;
        tokio::time::timeout(DEADLINE, result).await.ok().and_then(Result::ok).ok_or_else(deadline)
    }
}

fn enter(handle: &File) -> io::Result<Inside> {
    setns(handle, CloneFlags::CLONE_NEWNET)?;
    Ok(Inside {
        route: Netlink::open(SockProtocol::NetlinkRoute)?,
        netfilter: Netlink::open(SockProtocol::NetlinkNetFilter)?,
        control: socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?,
    })
}
