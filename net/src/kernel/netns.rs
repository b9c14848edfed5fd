//! Work inside a network namespace: an OS thread of its own that enters it, opens its sockets there, and ends.
//!
//! Invariant: no thread of the runtime ever changes its namespace, and nothing here outlives the [`Namespace`] that
//! asked for it: a socket that stays open would keep a pod's namespace from being freed. The host's is there anyhow: its
//! threads are kept for the next one ([`Idle`]).

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use nix::sys::statfs::FsType;
use tokio::sync::oneshot;

use super::error::WiringError;
use super::netlink::Netlink;
use crate::desired::Netns;

/// Magic number of nsfs, whose files are namespaces (NSFS_MAGIC in linux/magic.h).
pub(super) const NSFS: FsType = FsType(0x6e73_6673);

/// How long one job may take: some requests of at most five seconds each would be a kernel that hangs.
const DEADLINE: Duration = Duration::from_secs(10);

/// How many threads are kept that have nothing to do.
const MOST_IDLE: usize = 4;

/// What a job has at hand inside the namespace.
pub(super) struct Inside {
    /// rtnetlink.
    pub(super) route: Netlink,
    /// nfnetlink.
    pub(super) netfilter: Netlink,
    /// Any socket, for the ioctls of links.
    pub(super) control: OwnedFd,
}

type Job = Box<dyn FnOnce(Result<&mut Inside, &io::Error>) + Send>;

/// A network namespace that is being worked in.
pub(super) struct Namespace {
    netns: Netns,
    jobs: mpsc::Sender<Job>,
    /// Where its thread goes when the work is done.
    idle: Option<Arc<Idle>>,
    /// It is of no use: a job of it has not ended, or it is not where it should be.
    lost: AtomicBool,
}

/// Threads of one namespace that have nothing to do: to hand them a job takes less than to start one.
#[derive(Debug, Default)]
pub(super) struct Idle(Mutex<Vec<mpsc::Sender<Job>>>);

impl Idle {
    fn threads(&self) -> MutexGuard<'_, Vec<mpsc::Sender<Job>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one; none where all work.
    pub(super) fn take(self: &Arc<Self>, netns: Netns) -> Option<Namespace> {
        let jobs = self.threads().pop()?;
        Some(Namespace { netns, jobs, idle: Some(self.clone()), lost: AtomicBool::new(false) })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Some(idle) = self.idle.take().filter(|_| !*self.lost.get_mut()) {
            let mut threads = idle.threads();
            if threads.len() < MOST_IDLE {
                threads.push(self.jobs.clone());
            }
        }
    }
}

impl Namespace {
    /// Sets out for a namespace; with a place to go to, its thread goes there in the end. Whether it arrived is told by its
    /// first job.
    pub(super) fn enter(netns: Netns, handle: File, idle: Option<Arc<Idle>>) -> Result<Self, WiringError> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let work = move || {
            let mut inside = enter(&handle);
            drop(handle);
            while let Ok(job) = inbox.recv() {
                job(inside.as_mut().map_err(|error| &*error));
            }
        };
        match std::thread::Builder::new().name("netns".to_owned()).spawn(work) {
            Ok(_) => Ok(Self { netns, jobs, idle, lost: AtomicBool::new(false) }),
            Err(source) => Err(WiringError::Enter { netns, source }),
        }
    }

    /// Does a job inside the namespace.
    pub(super) async fn call<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Inside) -> R + Send + 'static,
    ) -> Result<R, WiringError> {
        let (done, result) = oneshot::channel();
        let deadline = || {
            self.lost.store(true, Ordering::Relaxed);
            WiringError::Deadline(self.netns.clone())
        };
        let job: Job = Box::new(move |inside| {
            // The caller may have given up; the result is then of no use.
            let _ = done.send(inside.map(job).map_err(again));
        });
        self.jobs.send(job).map_err(|_| deadline())?;
        let result = tokio::time::timeout(DEADLINE, result).await.ok().and_then(Result::ok).ok_or_else(deadline)?;
        result.map_err(|source| {
            self.lost.store(true, Ordering::Relaxed);
            WiringError::Enter { netns: self.netns.clone(), source }
        })
    }
}

/// The same error once more.
fn again(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| io::Error::new(error.kind(), error.to_string()), io::Error::from_raw_os_error)
}

fn enter(handle: &File) -> io::Result<Inside> {
    setns(handle, CloneFlags::CLONE_NEWNET)?;
    Ok(Inside {
        route: Netlink::open(SockProtocol::NetlinkRoute)?,
        netfilter: Netlink::open(SockProtocol::NetlinkNetFilter)?,
        control: socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?,
    })
}
