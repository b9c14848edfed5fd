//! Keeping the addresses of VMs that run, and giving back those of VMs and VMIs that are gone.
//!
//! Derived from what is stored, so that a crash before or in the middle changes nothing: a lease that a pod speaks from
//! and that is not there is made again; one whose object is not there any more goes into quarantine, and is deleted
//! after it. One that is still in use somewhere stays until it is not: a VM that was deleted without its VMI leaves a
//! guest behind that speaks from its address.

mod lost;
mod restore;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use holdfast_api::kubevirt::{VirtualMachine, VirtualMachineInstance};
use holdfast_api::lease::Claim;
use holdfast_api::run_strategy::has_network;
use holdfast_api::status::find;
use holdfast_ipam::leases::{Lease, LeaseError, LeaseKind, is_quarantined, release, sweep};

use crate::api::{self, ApiError};
use crate::context::Context;
use crate::engine::{Key, Outcome};
use lost::Spoken;
pub use restore::Unrestored;

/// How long an address that was given back is locked.
const QUARANTINE: Duration = Duration::from_secs(60);
/// How often everything is looked at although nothing went.
const RESYNC: Duration = Duration::from_secs(300);

/// How long leases that go are waited for, so that a burst of them is one look.
pub const BURST: Duration = Duration::from_secs(2);

/// Why addresses could not be given back.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// Leases could not be read or written.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// Whether an object is there could not be found out.
    #[error(transparent)]
    Api(#[from] ApiError),
}

/// Looks at all leases.
pub async fn reconcile(context: Arc<Context>, _all: Key) -> Result<Outcome, SweepError> {
    if sweep(&*context.leases, QUARANTINE).await? > 0 {
        // Who waits for one of them need not wait for its own next attempt.
        let waits = |_: &Key, vmi: &VirtualMachineInstance| {
            let conditions = vmi.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
            let reason = find(conditions, "Synchronized").and_then(|condition| condition.reason.as_deref());
            matches!(reason, Some("AddressConflict" | "AddressesExhausted"))
        };
        context.vmis.select(waits).iter().for_each(|vmi| context.queues.vmis.add(Key::of(&vmi.metadata)));
    }
    // Before the leases: those of a pod are there before it is.
    let guests = lost::guests(&context);
    let mut leases = context.leases.list(LeaseKind::Ip).await?;
    leases.extend(context.leases.list(LeaseKind::Mac).await?);
    let restored = restore::restore(&context, &leases, &guests).await;
    let spoken = Spoken::of(&guests);
    let (mut given_up, mut kept) = (BTreeMap::new(), BTreeSet::new());
    let mut quarantined = false;
    for lease in &leases {
        let at = (lease.segment().to_owned(), lease.claim().id());
        if is_quarantined(lease) {
            quarantined = true;
        } else if spoken.has(lease) || in_use(&context, lease).await? {
            kept.insert(at);
        } else if !has_holder(&context, lease.claim()).await? {
            given_up.insert(at, lease.claim());
        }
    }
    // What a claim has on a segment is given back together.
    given_up.retain(|at, _| !kept.contains(at));
    for ((segment, _), claim) in &given_up {
        tracing::info!(segment, vm = format!("{}/{}", claim.namespace, claim.name), "giving its addresses back");
        release(&*context.leases, segment, claim).await?;
    }
    let waits = quarantined || !given_up.is_empty();
    // Transition times are whole seconds.
    Ok(Outcome::After(match (waits, restored) {
        (true, _) => QUARANTINE / 4,
        (false, false) => QUARANTINE,
        (false, true) => RESYNC,
    }))
}

/// Whether the object that a claim names is there, and has that network. What the cache does not have is asked for.
async fn has_holder(context: &Context, claim: &Claim) -> Result<bool, ApiError> {
    let key = Key::new(&claim.namespace, &claim.name);
    let is = |uid: Option<&String>| uid == Some(&claim.uid);
    match claim.kind.as_str() {
        "VirtualMachine" => {
            if let Some(vm) = context.vms.get(&key).filter(|vm| is(vm.metadata.uid.as_ref())) {
                // A NIC that was unplugged, and is in the template no more, leaves its addresses behind.
                let vmi = context.vmis.get(&key);
                return Ok(has_network(&vm, vmi.as_deref(), &claim.network));
            }
            let vm = api::get::<VirtualMachine>(&context.client, &key).await?;
            Ok(vm.is_some_and(|vm| is(vm.metadata.uid.as_ref())))
        }
        "VirtualMachineInstance" => {
            if context.vmis.get(&key).is_some_and(|vmi| is(vmi.metadata.uid.as_ref())) {
                return Ok(true);
            }
            let vmi = api::get::<VirtualMachineInstance>(&context.client, &key).await?;
            Ok(vmi.is_some_and(|vmi| is(vmi.metadata.uid.as_ref())))
        }
        // Plain pods are virt-handler's.
        _ => Ok(true),
    }
}

/// Whether the pod that was noted on the lease is there.
async fn in_use(context: &Context, lease: &Lease) -> Result<bool, ApiError> {
    let pod = lease.status().filter(|status| status.container_id.is_some()).and_then(|status| status.pod.as_ref());
    let Some(pod) = pod else { return Ok(false) };
    let key = Key::new(&lease.claim().namespace, pod);
    if context.pods.get(&key).is_some() {
        return Ok(true);
    }
    Ok(api::get::<k8s_openapi::api::core::v1::Pod>(&context.client, &key).await?.is_some())
}
