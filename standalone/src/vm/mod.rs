//! The VMIs of this host: what scheduler, kubelet, container runtime and agent do for a pod in a cluster.
//!
//! Reading order: [`supervisor`] keeps one [`task`] per VMI, [`setup`] brings a VMI into a sandbox, step by step:
//! [`nics`] (addresses), [`volumes`] (disks, secrets), [`network`] (CNI), [`launch`] (the launcher); [`status`]
//! writes what came of it; [`pods`] answers the agent's questions.
//!
//! Invariants: addresses are settled before a sandbox exists, so a conflict leaves nothing on the wire; what a
//! failed set-up made is taken down before it is reported; a VMI that runs is touched by nothing but its own
//! deletion, whatever became of its networks, its secrets, or holdfastd.

mod hotplug;
mod launch;
mod network;
mod nics;
mod pods;
mod setup;
mod status;
mod supervisor;
mod task;
mod volumes;

use holdfast_ipam::nic::NicError;
pub use pods::Pods;
pub use supervisor::supervise;

/// Why a VMI cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct SetupError {
    /// CamelCase word for conditions and events.
    pub reason: &'static str,
    /// The sentence for people, with all causes.
    pub message: String,
}

impl SetupError {
    /// An error for which there is no cause to add.
    fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }

    /// An error with its chain of causes.
    fn of(reason: &'static str, error: &dyn std::error::Error) -> Self {
        Self { reason, message: crate::host::chain(error) }
    }
}

impl From<NicError> for SetupError {
    fn from(NicError { reason, message }: NicError) -> Self {
        Self { reason, message }
    }
}
