//! What becomes of a VM, decided without doing anything.
//!
//! The controller observes a VM and its VMI, asks [`decide()`] for the one next action, performs it,
//! and writes what [`vm_status()`] says. All inputs (the time, randomness) are passed in, so that
//! each decision is a value that a test can compare. `verbs` holds what start, stop and the other
//! subresources change; [`build_vmi`] makes the VMI of a VM.
//!
//! Invariant: a decision depends only on what is stored in the objects, never on what was decided
//! before, so that a controller that dies at any point and starts again converges.

mod build;
mod decide;
mod nics;
mod restart;
mod verbs;
mod vm_status;

pub use build::{build_vmi, legacy_firmware_uuid, revision_name};
pub use decide::{Action, decide};
pub use nics::{ABSENT, Nics, has_network, is_absent, live_nics};
pub use restart::restart_required;
pub use verbs::{Change, Operation, pause, reset, restart, soft_reboot, start, stop, unpause};
pub use vm_status::{Failure, Observed, start_backoff_seconds, vm_status};

use thiserror::Error;

use crate::kubevirt::{VirtualMachine, VirtualMachineInstance, VirtualMachineSpec, VirtualMachineStateChangeRequest};

/// The finalizer with which the VM controller holds a VM and its VMI.
pub const CONTROLLER_FINALIZER: &str = "kubevirt.io/virtualMachineControllerFinalize";
/// The annotation of a VMI that names the generation of the VM that it was made from.
pub const GENERATION_ANNOTATION: &str = "kubevirt.io/vm-generation";
/// The annotation of a VMI that is made to receive a migration.
pub const MIGRATION_TARGET_ANNOTATION: &str = "kubevirt.io/create-migration-target";

/// When a VM is to run (`spec.runStrategy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunStrategy {
    /// Always: it is started again whenever it ends.
    Always,
    /// Never.
    Halted,
    /// As the start and stop subresources say.
    Manual,
    /// It is started again when it fails, not when it ends well.
    RerunOnFailure,
    /// It is started once and then left as it ends.
    Once,
    /// It is started as the target of a migration from elsewhere.
    WaitAsReceiver,
}

impl RunStrategy {
    /// All strategies, in the order in which the API lists them.
    pub const ALL: [Self; 6] =
        [Self::Always, Self::Halted, Self::Manual, Self::RerunOnFailure, Self::Once, Self::WaitAsReceiver];

    /// The value as the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::Halted => "Halted",
            Self::Manual => "Manual",
            Self::RerunOnFailure => "RerunOnFailure",
            Self::Once => "Once",
            Self::WaitAsReceiver => "WaitAsReceiver",
        }
    }

    /// The strategy of a VM: `runStrategy`, or what the older `running` stands for.
    pub fn of(spec: &VirtualMachineSpec) -> Result<Self, StrategyError> {
        match (spec.run_strategy.as_deref(), spec.running) {
            (Some(text), None) => Self::ALL
                .into_iter()
                .find(|strategy| strategy.as_str() == text)
                .ok_or_else(|| StrategyError::Unknown(text.to_owned())),
            (None, Some(true)) => Ok(Self::Always),
            (None, Some(false)) => Ok(Self::Halted),
            (None, None) => Err(StrategyError::Missing),
            (Some(_), Some(_)) => Err(StrategyError::Both),
        }
    }
}

/// Why a VM has no run strategy. Validation refuses such a VM; the decision leaves it alone.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum StrategyError {
    /// Neither `running` nor `runStrategy` is set.
    #[error("One of Running or RunStrategy must be specified")]
    Missing,
    /// Both are set.
    #[error(
        "Running and RunStrategy are mutually exclusive. Note that Running is deprecated, please use RunStrategy instead"
    )]
    Both,
    /// The value is none of those known.
    #[error("Invalid RunStrategy ({0})")]
    Unknown(String),
}

/// The requests that subresources left in a VM's status, oldest first.
fn requests(vm: &VirtualMachine) -> &[VirtualMachineStateChangeRequest] {
    vm.status.as_ref().map(|status| status.state_change_requests.as_slice()).unwrap_or_default()
}

/// Whether the next request is to stop this very VMI.
fn has_stop_request(vm: &VirtualMachine, vmi: &VirtualMachineInstance) -> bool {
    requests(vm)
        .first()
        .is_some_and(|request| request.action == "Stop" && request.uid.is_some() && request.uid == vmi.metadata.uid)
}

/// The request to start, where it is the next one.
fn start_request(vm: &VirtualMachine) -> Option<&VirtualMachineStateChangeRequest> {
    requests(vm).first().filter(|request| request.action == "Start")
}

/// Whether a request to start asks for a paused guest.
fn asks_for_paused(request: &VirtualMachineStateChangeRequest) -> bool {
    request.data.get("paused").is_some_and(|value| value == "true")
}

#[cfg(test)]
mod tests;
