//! VirtualMachines to VirtualMachineInstances, by the API's pure decisions.
//!
//! Invariants: what a VMI was made from is written down before the VMI is; creating the VMI is the lock, for it has the
//! VM's name; the VM's finalizer goes only when its VMI is gone, and its addresses only after the VM.

mod act;
mod ended;
pub mod revision;
mod sizes;

use std::sync::Arc;
use std::time::Duration;

use holdfast_api::kubevirt::{VirtualMachine, VirtualMachineInstance};
use holdfast_api::run_strategy::{Action, Failure, Observed, RunStrategy, decide, vm_status};
use holdfast_kubernetes::events::EventType;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rand::Rng;
use serde_json::json;

use crate::api::{self, ApiError};
use crate::context::Context;
use crate::engine::{Key, Outcome};
use crate::patch::difference;
use act::{Done, act};
use sizes::Found;

/// Most steps in one go: the longest way has four.
const STEPS: usize = 8;
/// How often what was refused is tried again.
const RETRY: Duration = Duration::from_secs(10);
/// How often what was refused only because the API server has not heard of our kinds yet is tried again.
const SOON: Duration = Duration::from_secs(1);

/// Why a VM is not as it shall be.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// A call failed.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// An object of ours cannot be written as JSON.
    #[error("failed to encode a VirtualMachine")]
    Encode(#[from] serde_json::Error),
}

/// Does what is to be done for a VM, and writes its status.
pub async fn reconcile(context: Arc<Context>, key: Key) -> Result<Outcome, VmError> {
    let mut failure = None;
    let mut outcome = Outcome::Done;
    for _ in 0..STEPS {
        let found = context.vmis.get(&key);
        let Some(vm) = context.vms.get(&key) else {
            // A VMI that waits for its VM to let it go waits in vain now.
            if found.is_some() {
                context.queues.vmis.add(key);
            }
            return Ok(Outcome::Done);
        };
        let vmi = found.as_deref().filter(|vmi| controls(&vm, vmi));
        if let (Some(stranger), None) = (&found, vmi)
            && RunStrategy::of(&vm.spec).is_ok_and(|strategy| strategy != RunStrategy::Halted)
            && vm.metadata.deletion_timestamp.is_none()
        {
            failure = Some(refused(&context, &vm, &taken(stranger)).await);
            break;
        }
        let sizes = match find_sizes(&context, &vm).await {
            Ok(Found::There(sizes)) => sizes,
            Ok(Found::Step) => continue,
            Ok(Found::Refused(why)) => {
                failure = Some(refused(&context, &vm, &why).await);
                outcome = Outcome::After(RETRY);
                break;
            }
            Err(VmError::Api(error)) if error.is_stale() => return Ok(Outcome::Retry),
            Err(error) => return Err(error),
        };
        let action = decide(&vm, vmi, Timestamp::now());
        tracing::debug!(vm = %key, ?action, "decided");
        let done = act(&context, &vm, vmi, &sizes, &action).await;
        if let (Ok(_), Some(why)) = (&done, vmi.and_then(|vmi| ended::untold_failure(&vm, vmi))) {
            context.event(&*vm, EventType::Warning, ended::REASON, &why).await;
        }
        match done {
            Ok(Done::Step) => {}
            Ok(Done::Nothing) => break,
            Ok(Done::Wait(until)) => {
                outcome = Outcome::After(wait(until));
                break;
            }
            Ok(Done::Refused(message)) => {
                failure = Some(refused(&context, &vm, &message).await);
                outcome = Outcome::After(RETRY);
                break;
            }
            Ok(Done::Early(message)) => {
                // Without an event: it passes by itself, and is tried every second.
                failure = Some(failed_create(&message));
                outcome = Outcome::After(SOON);
                break;
            }
            // The cache lags behind: what changed will be told, or is looked at anew soon.
            Err(VmError::Api(error)) if error.is_stale() => return Ok(Outcome::Retry),
            Err(error) => return Err(error),
        }
        if action == Action::ReleaseVm {
            return Ok(Outcome::Done);
        }
    }
    match write_status(&context, &key, failure.as_ref()).await {
        Err(VmError::Api(error)) if error.is_stale() => Ok(Outcome::Retry),
        Err(error) => Err(error),
        Ok(()) => Ok(outcome),
    }
}

/// Instance type and preference of a VM that is ours to keep; a VM without costs nothing.
async fn find_sizes(context: &Context, vm: &VirtualMachine) -> Result<Found, VmError> {
    let names = vm.spec.instancetype.is_some() || vm.spec.preference.is_some();
    if names && vm.metadata.deletion_timestamp.is_none() {
        sizes::find(context, vm).await
    } else {
        Ok(Found::There(Box::default()))
    }
}

/// Whether the VMI is this VM's.
pub fn controls(vm: &VirtualMachine, vmi: &VirtualMachineInstance) -> bool {
    let owners = vmi.metadata.owner_references.as_deref().unwrap_or_default();
    owners.iter().any(|owner| owner.controller == Some(true) && Some(&owner.uid) == vm.metadata.uid.as_ref())
}

fn taken(stranger: &VirtualMachineInstance) -> String {
    let key = Key::of(&stranger.metadata);
    format!("failed to create virtual machine instance: {key} exists and is not controlled by this VM")
}

async fn refused(context: &Context, vm: &VirtualMachine, message: &str) -> Failure {
    context.event(vm, EventType::Warning, "FailedCreate", message).await;
    failed_create(message)
}

fn failed_create(message: &str) -> Failure {
    Failure { reason: "FailedCreate".to_owned(), message: message.to_owned() }
}

fn wait(until: Timestamp) -> Duration {
    until.duration_since(Timestamp::now()).max(SignedDuration::from_millis(10)).unsigned_abs()
}

/// Writes the status that follows from the objects, if it is another one.
async fn write_status(context: &Context, key: &Key, failure: Option<&Failure>) -> Result<(), VmError> {
    let Some(vm) = context.vms.get(key) else { return Ok(()) };
    let found = context.vmis.get(key);
    let vmi = found.as_deref().filter(|vmi| controls(&vm, vmi));
    let started = match vmi {
        Some(vmi) => context.revisions.started(&context.client, &vm, vmi).await?,
        None => None,
    };
    let status = vm_status(&Observed {
        vm: &vm,
        vmi,
        started: started.as_deref(),
        hot_plug: false,
        failure,
        now: Timestamp::now(),
        jitter: rand::rng().random_range(0.0..1.0),
    });
    let before = vm.status.as_ref().map_or_else(|| Ok(json!({})), serde_json::to_value)?;
    let Some(change) = difference(&before, &serde_json::to_value(&status)?) else { return Ok(()) };
    let change = json!({"metadata": {"resourceVersion": vm.metadata.resource_version}, "status": change});
    let written: VirtualMachine = api::patch_status(&context.client, key, &change).await?;
    context.vms.wrote(&written.metadata.clone(), written);
    Ok(())
}
