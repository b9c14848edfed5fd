//! One VMI on this node: its NICs wired, its launcher told what to run, its state reported.
//!
//! Reading order: [`input`] is what a VMI's task is given, [`nics`] makes bindings of it (pure), [`record`] writes
//! down what cannot be read back, [`wire`] brings the bindings about, [`launcher`] speaks to the launcher, [`task`] is
//! the handle of the task and `worker` its level-triggered loop over all these, [`report`] is what it says, and
//! [`status`] makes the VMI's status and events of a report (pure).
//!
//! Invariants: a task that is dropped, at whatever instruction, leaves the VM and its network as they are; a
//! task that starts finds them and changes nothing about a healthy one; a pod interface is recorded before
//! the first op touches it; a launcher is believed only when its process lives in the VMI's own sandbox.

pub mod capabilities;
pub mod input;
pub mod launcher;
pub mod nics;
pub mod record;
pub mod report;
pub mod status;
pub mod task;
pub mod wire;
mod worker;

pub use capabilities::Capabilities;
pub use input::{NicInput, Sandbox, VmiInput, Wanted};
pub use report::{NicReport, VmiReport};
pub use worker::last_words;

pub use task::{CommandError, Timing, VmiContext, VmiMetrics, VmiTask};

/// An error with its causes in one line, for a condition's message.
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
