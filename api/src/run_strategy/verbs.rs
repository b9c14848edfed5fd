//! What the subresources of VMs and VMIs change, or why they cannot.
//!
//! Codes and messages are those that clients of KubeVirt know, its misspellings included: scripts
//! match on them.

use super::{RunStrategy, requests};
use crate::error_status::ErrorStatus;
use crate::kubevirt::{VirtualMachine, VirtualMachineInstance, VirtualMachineStateChangeRequest};
use crate::status::{is_final, is_true, phase};

/// What an accepted subresource call changes.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    /// What becomes of the VM.
    pub change: Change,
    /// What the VMI's `spec.terminationGracePeriodSeconds` becomes, where it changes.
    pub grace_period_seconds: Option<i64>,
}

/// A change of a VM.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// The run strategy becomes this.
    Strategy(RunStrategy),
    /// `status.stateChangeRequests` become these.
    Requests(Vec<VirtualMachineStateChangeRequest>),
    /// The VM stays as it is; only the VMI's grace period changes.
    None,
}

impl Change {
    /// Makes the change. A VM that uses the older `running` goes on using it.
    pub fn apply(&self, vm: &mut VirtualMachine) {
        match self {
            Self::Strategy(strategy) if vm.spec.running.is_some() => {
                vm.spec.running = Some(*strategy == RunStrategy::Always);
            }
            Self::Strategy(strategy) => {
                vm.spec.run_strategy = Some(strategy.as_str().to_owned());
            }
            Self::Requests(requests) => {
                let status = vm.status.get_or_insert_default();
                status.state_change_requests.clone_from(requests);
            }
            Self::None => {}
        }
    }
}

/// Starts a VM, paused where that is asked for.
pub fn start(
    vm: &VirtualMachine,
    vmi: Option<&VirtualMachineInstance>,
    paused: bool,
) -> Result<Operation, ErrorStatus> {
    if vmi.is_some_and(|vmi| !is_final(vmi) && !matches!(phase(vmi), "" | "Unknown")) {
        return Err(vm_conflict(vm, "VM is already running"));
    }
    let strategy = strategy_of(vm)?;
    let mut request = request("Start", None);
    if paused {
        request.data.insert("paused".to_owned(), "true".to_owned());
    }
    let change = match strategy {
        RunStrategy::Halted if paused => Change::Requests(unless_underway(vm, vec![request])?),
        RunStrategy::Halted => Change::Strategy(RunStrategy::Always),
        RunStrategy::Manual | RunStrategy::RerunOnFailure => {
            let ended =
                vmi.filter(|vmi| is_final(vmi) && (strategy == RunStrategy::Manual || phase(vmi) == "Succeeded"));
            let stop = ended.map(|vmi| self::request("Stop", vmi.metadata.uid.clone()));
            let list = stop.into_iter().chain([request]).collect();
            Change::Requests(unless_underway(vm, list)?)
        }
        RunStrategy::Always | RunStrategy::Once | RunStrategy::WaitAsReceiver => {
            let message = format!("{} does not support manual start requests", strategy.as_str());
            return Err(vm_conflict(vm, &message));
        }
    };
    Ok(Operation { change, grace_period_seconds: None })
}

/// Stops a VM, with a grace period of its own where one is given.
pub fn stop(
    vm: &VirtualMachine,
    vmi: Option<&VirtualMachineInstance>,
    grace_period_seconds: Option<i64>,
) -> Result<Operation, ErrorStatus> {
    let live = vmi.filter(|vmi| !is_final(vmi));
    let strategy = strategy_of(vm)?;
    let change = match (strategy, live) {
        (RunStrategy::Always | RunStrategy::Once | RunStrategy::WaitAsReceiver, _) => {
            Change::Strategy(RunStrategy::Halted)
        }
        (_, None) => return Err(vm_conflict(vm, "VM is not running")),
        (RunStrategy::Halted, Some(vmi)) => {
            let old = vmi.spec.termination_grace_period_seconds;
            let shorter = match (grace_period_seconds, old) {
                (Some(new), Some(old)) => new < old,
                (Some(_), None) => true,
                (None, _) => false,
            };
            if !shorter {
                let message = "Halted only supports manual stop requests with a shorter graceperiod";
                return Err(vm_conflict(vm, message));
            }
            Change::None
        }
        (RunStrategy::Manual | RunStrategy::RerunOnFailure, Some(vmi)) => {
            // A stop replaces what was asked for before: it is the last word.
            Change::Requests(vec![request("Stop", vmi.metadata.uid.clone())])
        }
    };
    Ok(Operation { change, grace_period_seconds: live.and(grace_period_seconds) })
}

/// Restarts a VM; with a grace period of 0 without waiting for the guest.
pub fn restart(
    vm: &VirtualMachine,
    vmi: Option<&VirtualMachineInstance>,
    grace_period_seconds: Option<i64>,
) -> Result<Operation, ErrorStatus> {
    match grace_period_seconds {
        None | Some(0) => {}
        Some(1..) => {
            let message = "For force restart, only gracePeriod=0 is supported for now";
            return Err(ErrorStatus::bad_request(message));
        }
        Some(_) => {
            let message = "gracePeriod has to be greater or equal to 0";
            return Err(ErrorStatus::bad_request(message));
        }
    }
    let strategy = strategy_of(vm)?;
    if matches!(strategy, RunStrategy::Halted | RunStrategy::Once) {
        let message = format!("RunStategy {} does not support manual restart requests", strategy.as_str());
        return Err(vm_conflict(vm, &message));
    }
    let Some(vmi) = vmi else {
        return Err(vm_conflict(vm, "VM is not running: Halted"));
    };
    let list = vec![request("Stop", vmi.metadata.uid.clone()), request("Start", None)];
    Ok(Operation {
        change: Change::Requests(unless_underway(vm, list)?),
        grace_period_seconds: grace_period_seconds.map(|_| 1),
    })
}

/// Whether a VMI may be paused.
pub fn pause(vmi: &VirtualMachineInstance) -> Result<(), ErrorStatus> {
    running(vmi)?;
    if vmi.spec.liveness_probe.is_some() {
        let message = "Pausing VMIs with LivenessProbe is currently not supported";
        return Err(ErrorStatus::forbidden(KIND_VMI, name(vmi), message));
    }
    if is_paused(vmi) {
        return Err(vmi_conflict(vmi, "VMI is already paused"));
    }
    Ok(())
}

/// Whether a VMI may go on after a pause.
pub fn unpause(vmi: &VirtualMachineInstance) -> Result<(), ErrorStatus> {
    running(vmi)?;
    if !is_paused(vmi) {
        return Err(vmi_conflict(vmi, "VMI is not paused"));
    }
    Ok(())
}

/// Whether a VMI's guest may be asked to reboot.
pub fn soft_reboot(vmi: &VirtualMachineInstance) -> Result<(), ErrorStatus> {
    running(vmi)?;
    if is_paused(vmi) {
        return Err(vmi_conflict(vmi, "VMI is paused"));
    }
    Ok(())
}

/// Whether a VMI may be reset.
pub fn reset(vmi: &VirtualMachineInstance) -> Result<(), ErrorStatus> {
    running(vmi)
}

/// The kind of a VM as errors name it.
const KIND_VM: &str = "virtualmachine";
/// The kind of a VMI as errors name it.
const KIND_VMI: &str = "virtualmachineinstance";

fn running(vmi: &VirtualMachineInstance) -> Result<(), ErrorStatus> {
    if phase(vmi) == "Running" {
        return Ok(());
    }
    Err(vmi_conflict(vmi, "VMI is not running"))
}

fn is_paused(vmi: &VirtualMachineInstance) -> bool {
    vmi.status.as_ref().is_some_and(|status| is_true(&status.conditions, "Paused"))
}

fn strategy_of(vm: &VirtualMachine) -> Result<RunStrategy, ErrorStatus> {
    RunStrategy::of(&vm.spec).map_err(|error| ErrorStatus::bad_request(&error.to_string()))
}

/// The requests, unless others wait already. That this is an internal error is what clients know.
fn unless_underway(
    vm: &VirtualMachine,
    list: Vec<VirtualMachineStateChangeRequest>,
) -> Result<Vec<VirtualMachineStateChangeRequest>, ErrorStatus> {
    if requests(vm).is_empty() {
        return Ok(list);
    }
    Err(ErrorStatus::internal("unable to complete request: stop/start already underway"))
}

fn request(action: &str, uid: Option<String>) -> VirtualMachineStateChangeRequest {
    VirtualMachineStateChangeRequest { action: action.to_owned(), uid, ..VirtualMachineStateChangeRequest::default() }
}

fn name(vmi: &VirtualMachineInstance) -> &str {
    vmi.metadata.name.as_deref().unwrap_or_default()
}

fn vm_conflict(vm: &VirtualMachine, message: &str) -> ErrorStatus {
    let name = vm.metadata.name.as_deref().unwrap_or_default();
    ErrorStatus::conflict(KIND_VM, name, message)
}

fn vmi_conflict(vmi: &VirtualMachineInstance, message: &str) -> ErrorStatus {
    ErrorStatus::conflict(KIND_VMI, name(vmi), message)
}
