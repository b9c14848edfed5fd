//! The first process of a sandbox: tiny, without threads, it starts the launcher proper and reaps everyone's orphans.
//!
//! libvirt waits until a hypervisor that it ended is really gone, so orphans are reaped at once. SIGTERM is handed on.
//! A launcher proper that dies (not: that ends) is started again and takes over its VM, which runs on.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

/// A launcher that dies again within this time is given up. The first death is none of its own making, perhaps: a guest
/// that has just begun outlives it, too.
const STABLE: Duration = Duration::from_secs(10);

/// Splits this process in two. Returns in the launcher proper; the reaper never returns.
///
/// # Errors
/// When the kernel does not let us; nothing was split then. Must be called before the first thread is made.
pub fn split() -> nix::Result<()> {
    nix::sys::prctl::set_child_subreaper(true)?;
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT] {
        signals.add(signal);
    }
    let before = SigSet::thread_get_mask()?;
    signals.thread_block()?;
    let mut died: Option<Instant> = None;
    loop {
        // SAFETY: there is one thread, so the child may do what it likes.
        match unsafe { fork() }? {
            ForkResult::Child => {
                before.thread_set_mask()?;
                // The launcher does not outlive its reaper: nobody would reap for it.
                return nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
            }
            ForkResult::Parent { child } => match reap_until(child, &signals) {
                End::Exited(code) => std::process::exit(code),
                End::Died(signal) if died.is_some_and(|at| at.elapsed() < STABLE) => {
                    std::process::exit(128 + signal as i32)
                }
                End::Died(_) => died = Some(Instant::now()),
            },
        }
    }
}

enum End {
    Exited(i32),
    Died(Signal),
}

/// Reaps everyone until `launcher` has ended.
fn reap_until(launcher: Pid, signals: &SigSet) -> End {
    loop {
        match signals.wait() {
            Ok(Signal::SIGCHLD) => {
                if let Some(end) = reap(launcher) {
                    return end;
                }
            }
            // A launcher that is just ending needs no signal.
            Ok(signal) => drop(kill(launcher, signal)),
            Err(_) => {}
        }
    }
}

fn reap(launcher: Pid) -> Option<End> {
    let mut end = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == launcher => end = Some(End::Exited(code)),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == launcher => end = Some(End::Died(signal)),
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return end,
            Ok(_) | Err(_) => {}
        }
    }
}
