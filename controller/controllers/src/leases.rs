//! Giving back the addresses of VMs and VMIs that are gone.
//!
//! Derived from what is stored, so that a crash before or in the middle changes nothing: a lease whose object is not
//! there any more goes into quarantine, and is deleted after it. One that is still in use somewhere stays until it is
//! not: a VM that was deleted without its VMI leaves a guest behind that speaks from its address.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use holdfast_api::lease::Claim;
use holdfast_api::status::find;
use holdfast_ipam::leases::{Lease, LeaseError, LeaseKind, is_quarantined, release, sweep};

use crate::api::{self, ApiError};
use crate::context::Context;
use crate::engine::{Key, Outcome};
use holdfast_api::kubevirt::{VirtualMachine, VirtualMachineInstance};

/// How long an address that was given back is locked.
const QUARANTINE: Duration = Duration::from_secs(60);
/// How often everything is looked at although nothing went.
const RESYNC: Duration = Duration::from_secs(300);

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
    let mut given_up = BTreeMap::new();
    let mut quarantined = false;
    for kind in [LeaseKind::Ip, LeaseKind::Mac] {
        for lease in context.leases.list(kind).await? {
            quarantined |= is_quarantined(&lease);
            if !is_quarantined(&lease)
                && !in_use(&context, &lease).await?
                && !has_holder(&context, lease.claim()).await?
            {
                let segment = lease.segment().to_owned();
                given_up.insert((segment.clone(), lease.claim().id()), (segment, lease.claim().clone()));
            }
        }
    }
    for (segment, claim) in given_up.values() {
        tracing::info!(segment, vm = format!("{}/{}", claim.namespace, claim.name), "giving its addresses back");
        release(&*context.leases, segment, claim).await?;
    }
    let waits = quarantined || !given_up.is_empty();
    // Transition times are whole seconds.
    Ok(Outcome::After(if waits { QUARANTINE / 4 } else { RESYNC }))
}

/// Whether the object that a claim names is there. What the cache does not have is asked for.
async fn has_holder(context: &Context, claim: &Claim) -> Result<bool, ApiError> {
    let key = Key::new(&claim.namespace, &claim.name);
    let is = |uid: Option<&String>| uid == Some(&claim.uid);
    match claim.kind.as_str() {
        "VirtualMachine" => {
            if context.vms.get(&key).is_some_and(|vm| is(vm.metadata.uid.as_ref())) {
                return Ok(true);
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

/// Whether the pod that speaks from the address is there.
async fn in_use(context: &Context, lease: &Lease) -> Result<bool, ApiError> {
    let pod = lease.status().filter(|status| status.container_id.is_some()).and_then(|status| status.pod.as_ref());
    let Some(pod) = pod else { return Ok(false) };
    let key = Key::new(&lease.claim().namespace, pod);
    if context.pods.get(&key).is_some() {
        return Ok(true);
    }
    Ok(api::get::<k8s_openapi::api::core::v1::Pod>(&context.client, &key).await?.is_some())
}
