//! VirtualMachineInstances to pods, and what becomes of the pods back into their status.
//!
//! Invariants: addresses are taken before there is a pod that could speak; a VMI has one pod in its life, under a name
//! that is its alone, so two controllers, or one that died half way, make one pod; the finalizer of a VMI goes only
//! when its pod object is gone for good, asked of the API server and not of a cache. That is fencing: a VM is started
//! anew only when its VMI is gone. Where somebody else took the finalizer, the VMI that follows has no pod before the
//! former one's has ended.
//!
//! Of the status, this controller writes all until the phase is Scheduled; from then on virt-handler does, and this
//! controller writes an end where virt-handler cannot: pod or node are lost.

mod decide;
mod former;
pub mod nics;
mod prepare;
pub mod silent;
mod steps;
#[cfg(test)]
mod tests;
pub mod trouble;

use std::sync::Arc;
use std::time::Duration;

use holdfast_api::kubevirt::VirtualMachineInstance;
use holdfast_kubernetes::events::EventType;
use k8s_openapi::jiff::Timestamp;

use crate::api::{self, ApiError};
use crate::context::Context;
use crate::engine::{Key, Outcome};
use crate::nodes;
use crate::patch::guarded;
use crate::pod::pod_name;
use crate::vm::controls;
use decide::{Pod, Step, Told, View, decide};
use prepare::Made;

/// Most steps in one go: the longest way has three.
const STEPS: usize = 6;

/// Why a VMI is not as it shall be.
#[derive(Debug, thiserror::Error)]
pub enum VmiError {
    /// A call failed.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// An object of ours cannot be written as JSON.
    #[error("failed to encode a VirtualMachineInstance")]
    Encode(#[from] serde_json::Error),
}

/// Does what is to be done for a VMI.
pub async fn reconcile(context: Arc<Context>, key: Key) -> Result<Outcome, VmiError> {
    match look(&context, &key).await {
        // What the cache has is not as it is any more: what changed will be told, or is looked at anew soon.
        Err(VmiError::Api(error)) if error.is_stale() => Ok(Outcome::Retry),
        result => result,
    }
}

async fn look(context: &Context, key: &Key) -> Result<Outcome, VmiError> {
    let mut confirmed = false;
    for _ in 0..STEPS {
        let Some(vmi) = context.vmis.get(key) else {
            context.troubles.forget(key);
            return Ok(Outcome::Done);
        };
        let name = key.beside(&pod_name(&vmi));
        let facts = context.pods.get(&name).filter(|pod| Some(&pod.owner) == vmi.metadata.uid.as_ref());
        let pod = match &facts {
            Some(facts) => Pod::There(facts),
            None if confirmed => Pod::Gone,
            None => Pod::NotSeen,
        };
        let (trouble, again) = match &facts {
            Some(pod) => trouble::of(context, key, pod).await,
            None => (None, None),
        };
        let now = Timestamp::now();
        let node = vmi.status.as_ref().and_then(|status| status.node_name.as_deref());
        let view = View {
            vmi: &vmi,
            pod,
            trouble: trouble.as_ref(),
            node_lost: node.is_some_and(|node| nodes::lost(context, node, now)),
            owned: owner(&vmi).is_some_and(|vm| is_there(context, &vmi, &key.beside(&vm))),
            now,
        };
        let step = decide(&view);
        tracing::debug!(vmi = %key, step = step.name(), "decided");
        match step {
            Step::Confirm => confirmed = steps::confirm_gone(context, &vmi, &name).await?,
            Step::MakePod => match prepare::make_pod(context, &vmi, &name).await? {
                Made::Pod => {}
                Made::Refused(why) => return refuse(context, &vmi, why).await,
            },
            Step::Gate { unpaused } => steps::gate(context, &name, unpaused).await?,
            Step::DeletePod { uid, grace } => steps::delete_pod(context, &vmi, &name, &uid, grace).await?,
            Step::Write { vmi: wanted, told } => {
                write(context, &vmi, *wanted).await?;
                if let Some(Told { reason, message }) = told {
                    context.event(&*vmi, EventType::Warning, &reason, &message).await;
                }
            }
            Step::Wait(wait) => return Ok(Outcome::After(wait)),
            Step::Nothing => return Ok(again.map_or(Outcome::Done, Outcome::After)),
        }
    }
    Ok(Outcome::After(Duration::from_secs(1)))
}

/// Writes what differs, if anything does.
async fn write(
    context: &Context,
    vmi: &VirtualMachineInstance,
    wanted: VirtualMachineInstance,
) -> Result<(), VmiError> {
    let Some(change) = guarded(vmi, &wanted)? else { return Ok(()) };
    let key = Key::of(&vmi.metadata);
    let written: VirtualMachineInstance = api::patch(&context.client, &key, &change).await?;
    context.vmis.wrote(&written.metadata.clone(), written);
    if let Some(vm) = owner(vmi) {
        context.queues.vms.add(key.beside(&vm));
    }
    Ok(())
}

/// Says on the VMI why it has no pod, and tries again later.
async fn refuse(context: &Context, vmi: &VirtualMachineInstance, why: Told) -> Result<Outcome, VmiError> {
    write(context, vmi, decide::refused(vmi, &why, Timestamp::now())).await?;
    context.event(vmi, EventType::Warning, &why.reason, &why.message).await;
    Ok(Outcome::Retry)
}

/// Whether the VM that controls a VMI is there.
fn is_there(context: &Context, vmi: &VirtualMachineInstance, vm: &Key) -> bool {
    context.vms.get(vm).is_some_and(|vm| controls(&vm, vmi))
}

/// Name of the VM that controls a VMI.
pub fn owner(vmi: &VirtualMachineInstance) -> Option<String> {
    let owners = vmi.metadata.owner_references.as_deref().unwrap_or_default();
    let vm = owners.iter().find(|owner| owner.controller == Some(true) && owner.kind == "VirtualMachine");
    vm.map(|vm| vm.name.clone())
}
