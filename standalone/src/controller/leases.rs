//! Giving back the addresses of VMs and VMIs that are gone.

use std::collections::BTreeMap;

use holdfast_api::kubevirt::{VirtualMachine, VirtualMachineInstance};
use holdfast_api::lease::Claim;
use holdfast_api::run_strategy;
use holdfast_ipam::leases::{LeaseKind, is_quarantined, release, sweep};

use crate::host::{Host, chain};
use crate::store::Kind;

/// Puts every lease into quarantine whose VM or VMI is not there any more, or has that network no more; the agent
/// deletes it after that. Derived
/// from what is stored, so a crash before or in the middle changes nothing. Returns whether there were any.
pub async fn release_unowned(host: &Host) -> bool {
    let mut unowned = BTreeMap::new();
    for kind in [LeaseKind::Ip, LeaseKind::Mac] {
        let leases = match host.leases.list(kind).await {
            Ok(leases) => leases,
            Err(error) => {
                tracing::warn!("{}", chain(&error));
                return false;
            }
        };
        for lease in leases.iter().filter(|lease| !is_quarantined(lease)) {
            let claim = lease.claim();
            let owner = match claim.kind.as_str() {
                "VirtualMachine" => Kind::VirtualMachine,
                "VirtualMachineInstance" => Kind::VirtualMachineInstance,
                // Pods are the CNI server's.
                _ => continue,
            };
            let objects = host.store.list(owner, None);
            let held = objects.iter().any(|object| object["metadata"]["uid"] == claim.uid.as_str());
            if !held || !has_network(host, claim) {
                let segment = lease.segment().to_owned();
                unowned.insert((segment.clone(), claim.id()), (segment, claim.clone()));
            }
        }
    }
    let found = !unowned.is_empty();
    for (segment, claim) in unowned.into_values() {
        if let Err(error) = release(&*host.leases, &segment, &claim).await {
            tracing::warn!("{}", chain(&error));
        }
    }
    found
}

/// Deletes the leases whose quarantine is over, and tells those who wait for an address.
pub async fn sweep_quarantine(host: &Host) {
    match sweep(&*host.leases, host.quarantine).await {
        Ok(0) => {}
        Ok(_) => host.world.send_modify(|count| *count += 1),
        Err(error) => tracing::warn!("{}", chain(&error)),
    }
}

/// Whether the VM of a claim has the claim's network; what is no VM keeps all.
fn has_network(host: &Host, claim: &Claim) -> bool {
    let Claim { kind, namespace, name, network, .. } = claim;
    let Some(vm) = host.store.read::<VirtualMachine>(namespace, name).filter(|_| kind == "VirtualMachine") else {
        return true;
    };
    let vmi: Option<VirtualMachineInstance> = host.store.read(namespace, name);
    run_strategy::has_network(&vm, vmi.as_ref(), network)
}
