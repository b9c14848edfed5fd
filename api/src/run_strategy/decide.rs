//! The one next action for a VM.

use k8s_openapi::jiff::Timestamp;

use super::vm_status::is_uncounted;
use super::{CONTROLLER_FINALIZER, Nics, RunStrategy, asks_for_paused, has_stop_request, live_nics, start_request};
use crate::kubevirt::{VirtualMachine, VirtualMachineInstance};
use crate::status::{is_final, phase};

/// The garbage collector's finalizer on an object whose dependents are to stay.
const ORPHANS: &str = "orphan";

/// What to do next. Each action is safe to do twice.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// All is as it shall be.
    Nothing,
    /// Add [`CONTROLLER_FINALIZER`] to the VM, before anything is made for it.
    AddFinalizer,
    /// Create the VMI that [`super::build_vmi`] makes, paused or not.
    CreateVmi {
        /// Whether the guest's CPUs are not started.
        paused: bool,
    },
    /// Write the VM's status, which counts that its VMI failed to start. It is done before the VMI is deleted: of one
    /// that is being deleted nobody could tell whether it ended by itself.
    CountFailure,
    /// Delete the VMI with this uid.
    DeleteVmi {
        /// The uid, so that a younger VMI of the same name is left alone.
        uid: String,
        /// Whether the VM's `status.stateChangeRequests` become one request to start, written
        /// before the VMI is deleted: the VM runs by `RerunOnFailure` and failed.
        start_again: bool,
    },
    /// Write these NICs into the VMI's spec: its guest gets and loses them while it runs.
    SetNics(Nics),
    /// Take [`CONTROLLER_FINALIZER`] from the VMI: it is being deleted and has ended.
    ReleaseVmi,
    /// Take [`CONTROLLER_FINALIZER`] from the VM: it is being deleted and nothing of it is left.
    ReleaseVm,
    /// Set the run strategy to `Always`: a halted VM was asked to start.
    StartHalted,
    /// Nothing before this time: the VM failed to start and is tried again then.
    Wait {
        /// When to decide again.
        until: Timestamp,
    },
}

/// Decides what to do next for a VM and the VMI of its name, if it has one.
///
/// A VMI that belongs to something else is none of ours: the caller passes only one whose
/// controller reference is this VM.
pub fn decide(vm: &VirtualMachine, vmi: Option<&VirtualMachineInstance>, now: Timestamp) -> Action {
    if let Some(vmi) = vmi
        && vmi.metadata.deletion_timestamp.is_some()
    {
        let held = has_finalizer(vmi.metadata.finalizers.as_deref());
        // Nothing can be decided about a VMI that is going, but for letting it go.
        return if held && is_final(vmi) { Action::ReleaseVmi } else { Action::Nothing };
    }
    let held = has_finalizer(vm.metadata.finalizers.as_deref());
    if vm.metadata.deletion_timestamp.is_some() {
        // Whoever deletes a VM so (`kubectl delete --cascade=orphan`) keeps what it has made.
        let orphans = vm.metadata.finalizers.iter().flatten().any(|entry| entry == ORPHANS);
        return match vmi {
            Some(vmi) if !orphans => delete(vmi, false),
            _ if held => Action::ReleaseVm,
            _ => Action::Nothing,
        };
    }
    if !held {
        return Action::AddFinalizer;
    }
    let Ok(strategy) = RunStrategy::of(&vm.spec) else {
        return Action::Nothing;
    };
    match vmi {
        Some(vmi) => with_vmi(vm, vmi, strategy),
        None => without_vmi(vm, strategy, now),
    }
}

/// Whether the VMI that is there goes on.
fn with_vmi(vm: &VirtualMachine, vmi: &VirtualMachineInstance, strategy: RunStrategy) -> Action {
    let stop = has_stop_request(vm, vmi);
    let counted = vm.status.as_ref().and_then(|status| status.start_failure.as_ref());
    match strategy {
        RunStrategy::Always | RunStrategy::RerunOnFailure if stop => delete(vmi, false),
        RunStrategy::Always | RunStrategy::RerunOnFailure if is_uncounted(vmi, counted) => Action::CountFailure,
        RunStrategy::Always if is_final(vmi) => delete(vmi, false),
        RunStrategy::RerunOnFailure if phase(vmi) == "Failed" => delete(vmi, true),
        RunStrategy::Manual | RunStrategy::Once | RunStrategy::WaitAsReceiver if stop => delete(vmi, false),
        RunStrategy::Halted => delete(vmi, false),
        RunStrategy::Always
        | RunStrategy::RerunOnFailure
        | RunStrategy::Manual
        | RunStrategy::Once
        | RunStrategy::WaitAsReceiver => live_nics(vm, vmi).map_or(Action::Nothing, Action::SetNics),
    }
}

/// Whether a VMI is to be.
fn without_vmi(vm: &VirtualMachine, strategy: RunStrategy, now: Timestamp) -> Action {
    let request = start_request(vm);
    let last = vm.status.as_ref().and_then(|status| status.run_strategy.as_deref());
    // The status names the strategy under which the VM ran last. A VM that comes to these
    // strategies from another one, or from none, is started for it.
    let fresh = last != Some(strategy.as_str());
    let start = match strategy {
        RunStrategy::Always => true,
        RunStrategy::Manual => request.is_some(),
        RunStrategy::RerunOnFailure | RunStrategy::Once | RunStrategy::WaitAsReceiver => fresh || request.is_some(),
        RunStrategy::Halted if request.is_some() => return Action::StartHalted,
        RunStrategy::Halted => false,
    };
    if !start {
        return Action::Nothing;
    }
    if matches!(strategy, RunStrategy::Always | RunStrategy::RerunOnFailure)
        && let Some(until) = retry_time(vm)
        && until > now
    {
        return Action::Wait { until };
    }
    Action::CreateVmi { paused: request.is_some_and(asks_for_paused) }
}

/// When a VM that failed to start is tried again.
pub(super) fn retry_time(vm: &VirtualMachine) -> Option<Timestamp> {
    let failure = vm.status.as_ref()?.start_failure.as_ref()?;
    Some(failure.retry_after_timestamp.as_ref()?.0)
}

fn delete(vmi: &VirtualMachineInstance, start_again: bool) -> Action {
    Action::DeleteVmi { uid: vmi.metadata.uid.clone().unwrap_or_default(), start_again }
}

fn has_finalizer(finalizers: Option<&[String]>) -> bool {
    finalizers.is_some_and(|list| list.iter().any(|entry| entry == CONTROLLER_FINALIZER))
}
