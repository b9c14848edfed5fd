//! Whether KVM can run a guest here.
//!
//! A device node that opens, and even a vCPU that is created, prove nothing: under a hypervisor without nested
//! virtualisation KVM may offer both and then interpret each guest instruction, or fail on the first. So the
//! probe runs guest code (`guest`) and looks at the time.
//!
//! Invariant: [`probe`] returns within its deadline whatever the kernel does with the vCPU.

mod guest;

use std::io;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use nix::libc;
use nix::unistd::gettid;

use guest::Trial;

const DEVICE: &str = "/dev/kvm";
/// The whole probe takes some milliseconds where KVM works.
const DEADLINE: Duration = Duration::from_secs(2);
/// How long an interrupted vCPU may take to stop before its thread is left to itself.
const STOPPING: Duration = Duration::from_millis(500);
/// Longest time for one round of guest code ([`guest::LOOPS`]). A CPU needs some 30 µs for it, an
/// emulator of instructions more than a hundred milliseconds.
const LONGEST_ROUND: Duration = Duration::from_millis(10);

/// What the probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KvmVerdict {
    /// A guest runs at the CPU's own speed.
    Usable,
    /// There is no /dev/kvm.
    Absent,
    /// It is there and cannot run a guest.
    Unusable {
        /// For people: what was tried and what came of it.
        why: String,
    },
}

impl KvmVerdict {
    /// Whether guests may use KVM.
    pub fn is_usable(&self) -> bool {
        matches!(self, Self::Usable)
    }
}

/// Runs guest code in long mode and judges by its results and its speed. Blocks for up to 2.5 s; the answer
/// holds until the host reboots.
pub fn probe() -> KvmVerdict {
    match std::fs::metadata(DEVICE) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => KvmVerdict::Absent,
        Err(error) => KvmVerdict::Unusable { why: format!("{DEVICE} cannot be looked at: {error}") },
        Ok(_) => judge(&within(DEADLINE, || guest::run(Path::new(DEVICE)))),
    }
}

/// The verdict on a trial.
fn judge(trial: &Trial) -> KvmVerdict {
    match trial {
        Trial::Ran { fastest } if *fastest <= LONGEST_ROUND => KvmVerdict::Usable,
        Trial::Ran { fastest } => KvmVerdict::Unusable {
            why: format!(
                "{} loops of guest code took {} ms at best, where a CPU needs less than {}: KVM interprets them",
                guest::LOOPS,
                fastest.as_millis(),
                LONGEST_ROUND.as_millis()
            ),
        },
        Trial::Endless => {
            KvmVerdict::Unusable { why: format!("guest code did not end within {} s", DEADLINE.as_secs()) }
        }
        Trial::Failed(why) => KvmVerdict::Unusable { why: why.clone() },
    }
}

/// Runs `trial` on a thread of its own. After `deadline` the thread is interrupted; one that does not heed that
/// is left behind, for it is stuck in the kernel.
fn within(deadline: Duration, trial: impl FnOnce() -> Trial + Send + 'static) -> Trial {
    let (tell_id, id) = mpsc::channel();
    let (tell_result, result) = mpsc::channel();
    let work = move || {
        // A closed channel: the caller gave up.
        let _ = tell_id.send(gettid());
        let _ = tell_result.send(trial());
    };
    if let Err(error) = std::thread::Builder::new().name("kvm-probe".to_owned()).spawn(work) {
        return Trial::Failed(format!("no thread for the probe: {error}"));
    }
    match (result.recv_timeout(deadline), id.try_recv()) {
        (Ok(trial), _) => trial,
        (Err(RecvTimeoutError::Timeout), Ok(thread)) => {
            // SAFETY: tgkill takes integers only. The signal is one that is ignored where it is not blocked, so
            // that it is harmless even if the thread has just ended and its number was given away.
            unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread.as_raw(), guest::INTERRUPT) };
            result.recv_timeout(STOPPING).unwrap_or(Trial::Endless)
        }
        (Err(_), _) => Trial::Failed("the probe's thread ended without a result".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn speed_decides() {
        let ran = |micros| judge(&Trial::Ran { fastest: Duration::from_micros(micros) });
        assert_eq!(ran(150), KvmVerdict::Usable);
        assert_eq!(ran(10_000), KvmVerdict::Usable);
        let KvmVerdict::Unusable { why } = ran(312_000) else { panic!("called usable") };
        assert!(why.contains("312 ms") && why.contains("interprets"), "{why}");
        assert!(!judge(&Trial::Endless).is_usable());
        assert!(!judge(&Trial::Failed("it died".to_owned())).is_usable());
    }

    #[test]
    fn a_stuck_trial_does_not_hang_the_caller() {
        let start = Instant::now();
        let (release, blocked) = mpsc::channel::<()>();
        let trial = within(Duration::from_millis(20), move || {
            let _ = blocked.recv();
            Trial::Ran { fastest: Duration::ZERO }
        });
        assert_eq!(trial, Trial::Endless);
        assert!(start.elapsed() < Duration::from_secs(5));
        drop(release);
    }

    #[test]
    fn a_trial_that_panics_is_no_success() {
        // Without the hook, whose message would look like a failure of this test.
        let trial = within(Duration::from_secs(5), || std::panic::resume_unwind(Box::new("on purpose")));
        assert!(matches!(trial, Trial::Failed(_)), "{trial:?}");
    }

    /// A host whose CPU offers no virtualisation cannot run a guest, whatever its device node says.
    #[test]
    fn a_device_without_virtualisation_behind_it_is_not_usable() {
        let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap();
        let capable = flags.split_whitespace().any(|flag| flag == "vmx" || flag == "svm");
        let start = Instant::now();
        let verdict = probe();
        println!("{verdict:?} after {:?}", start.elapsed());
        assert!(start.elapsed() < DEADLINE + STOPPING + Duration::from_secs(1));
        if capable {
            return;
        }
        assert!(!verdict.is_usable(), "{verdict:?} on a CPU without vmx and svm");
        if matches!(&verdict, KvmVerdict::Unusable { why } if why.contains("interprets")) {
            // Far too short for an interpreter: the signal has to stop the vCPU in the middle of a round.
            let start = Instant::now();
            let trial = within(Duration::from_millis(20), || guest::run(Path::new(DEVICE)));
            assert_eq!(trial, Trial::Endless);
            assert!(start.elapsed() < STOPPING, "the vCPU was not interrupted");
        }
    }
}
