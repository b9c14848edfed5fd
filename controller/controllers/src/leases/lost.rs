//! Which leases of VMs that run are not there (pure, but for a look at the caches).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use holdfast_api::kubevirt::VirtualMachineInstance;
use holdfast_api::lease::Claim;
use holdfast_api::status::is_final;
use holdfast_ipam::leases::{Lease, LeaseKind, is_quarantined};
use holdfast_ipam::nic::claim;

use crate::context::Context;
use crate::pod::{LeasedNic, PodFacts, pod_name};

/// A VMI and its pod, which is not over.
#[derive(Clone, Debug)]
pub(super) struct Guest {
    pub vmi: Arc<VirtualMachineInstance>,
    pub pod: Arc<PodFacts>,
}

/// The guests that have addresses of ours.
pub(super) fn guests(context: &Context) -> Vec<Guest> {
    let pods = context.pods.select(|_, pod| !pod.is_over() && !pod.nics.is_empty());
    let guest = |pod: Arc<PodFacts>| {
        let vmi = context.vmis.get(&pod.key.beside(&pod.owner_name))?;
        let own = vmi.metadata.uid.as_ref() == Some(&pod.owner) && pod.key.name == pod_name(&vmi);
        own.then_some(Guest { vmi, pod })
    };
    pods.into_iter().filter_map(guest).collect()
}

/// A lease as it is looked for: kind, id of its claim, address.
type Id = (LeaseKind, String, String);

fn id(lease: &Lease) -> Id {
    (lease.kind(), lease.claim().id(), lease.address())
}

fn ids(nic: &LeasedNic) -> impl Iterator<Item = Id> {
    let ips = nic.addresses.iter().map(|address| (LeaseKind::Ip, nic.claim.id(), address.to_string()));
    ips.chain([(LeaseKind::Mac, nic.claim.id(), nic.mac.to_string())])
}

/// What guests speak from.
pub(super) struct Spoken(HashSet<Id>);

impl Spoken {
    /// Of these guests. A VM that was deleted without its VMI is the claim's still.
    pub(super) fn of(guests: &[Guest]) -> Self {
        let own = |guest: &Guest, claim: &Claim| {
            let meta = &guest.vmi.metadata;
            meta.namespace.as_ref() == Some(&claim.namespace) && meta.name.as_ref() == Some(&claim.name)
        };
        let nics = guests.iter().flat_map(|guest| guest.pod.nics.iter().filter(move |nic| own(guest, &nic.claim)));
        Self(nics.flat_map(ids).collect())
    }

    /// Whether one of them speaks from the address of this lease, under its claim.
    pub(super) fn has(&self, lease: &Lease) -> bool {
        self.0.contains(&id(lease))
    }
}

/// A lease that is not as its guest needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Missing {
    pub kind: LeaseKind,
    pub address: String,
    /// It is there, but in quarantine.
    pub given_up: bool,
}

/// A guest's NIC without all of its leases.
#[derive(Clone, Debug)]
pub(super) struct Lost<'a> {
    pub guest: &'a Guest,
    pub nic: &'a LeasedNic,
    pub missing: Vec<Missing>,
}

/// What is missing. Only what a VMI itself leads to is believed of a pod's annotation: a claim of another's would be
/// given that other's addresses.
pub(super) fn lost<'a>(leases: &[Lease], guests: &'a [Guest]) -> Vec<Lost<'a>> {
    let known: HashMap<Id, bool> = leases.iter().map(|lease| (id(lease), is_quarantined(lease))).collect();
    let missing = |nic: &LeasedNic| -> Vec<Missing> {
        let lacks = ids(nic).filter_map(|id| match known.get(&id) {
            Some(false) => None,
            found => Some(Missing { kind: id.0, address: id.2, given_up: found.is_some() }),
        });
        lacks.collect()
    };
    let stays = |guest: &&Guest| !guest.pod.deleting && !is_final(&guest.vmi);
    let nics = guests.iter().filter(stays).flat_map(|guest| guest.pod.nics.iter().map(move |nic| (guest, nic)));
    nics.filter(|(guest, nic)| nic.claim == claim(&guest.vmi, &nic.claim.network))
        .map(|(guest, nic)| Lost { guest, nic, missing: missing(nic) })
        .filter(|lost| !lost.missing.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use holdfast_api::lease::{IPLease, IPLeaseSpec, MACLease, MACLeaseSpec};
    use serde_json::json;

    use super::*;

    const MAC: &str = "02:00:00:00:00:01";

    fn guest(phase: &str) -> Guest {
        let vmi: VirtualMachineInstance = serde_json::from_value(json!({
            "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
            "metadata": {"name": "a", "namespace": "n", "uid": "vmi", "ownerReferences": [{
                "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "name": "a", "uid": "vm", "controller": true}]},
            "spec": {"domain": {"devices": {}}}, "status": {"phase": phase},
        }))
        .unwrap();
        let nic = LeasedNic {
            claim: claim(&vmi, "lan"),
            mac: MAC.parse().unwrap(),
            addresses: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
        };
        let pod = PodFacts { phase: "Running".into(), nics: vec![nic], ..PodFacts::default() };
        Guest { vmi: Arc::new(vmi), pod: Arc::new(pod) }
    }

    fn ip(claim: &Claim, address: &str) -> Lease {
        let (segment, address, claim) = ("lan".to_owned(), address.parse().unwrap(), claim.clone());
        Lease::Ip(IPLease::new("l", IPLeaseSpec { segment, address, claim }))
    }

    fn all(claim: &Claim) -> Vec<Lease> {
        let spec = MACLeaseSpec { segment: "lan".to_owned(), address: MAC.to_owned(), claim: claim.clone() };
        vec![ip(claim, "192.0.2.1"), ip(claim, "2001:db8::1"), Lease::Mac(MACLease::new("m", spec))]
    }

    fn quarantined(lease: &mut Lease) {
        let Lease::Ip(lease) = lease else { panic!() };
        let condition = json!({"type": "Quarantined", "status": "True", "reason": "r", "message": "m",
            "lastTransitionTime": "2026-01-01T00:00:00Z"});
        lease.status = Some(serde_json::from_value(json!({"conditions": [condition]})).unwrap());
    }

    fn found(leases: &[Lease], guest: &Guest) -> Vec<(String, bool)> {
        let lost = lost(leases, std::slice::from_ref(guest));
        lost.into_iter().flat_map(|lost| lost.missing).map(|missing| (missing.address, missing.given_up)).collect()
    }

    #[test]
    fn each_address_needs_a_lease_of_its_claim() {
        let guest = guest("Running");
        let own = guest.pod.nics[0].claim.clone();
        assert_eq!(found(&all(&own), &guest), []);
        let lost = |address: &str, given_up| (address.to_owned(), given_up);
        for (index, address) in ["192.0.2.1", "2001:db8::1", MAC].iter().enumerate() {
            let mut leases = all(&own);
            leases.remove(index);
            assert_eq!(found(&leases, &guest), [lost(address, false)]);
        }
        let mut leases = all(&own);
        leases[0] = ip(&Claim { uid: "another".into(), ..own.clone() }, "192.0.2.1");
        assert_eq!(found(&leases, &guest), [lost("192.0.2.1", false)]);
        let mut leases = all(&own);
        quarantined(&mut leases[0]);
        assert_eq!(found(&leases, &guest), [lost("192.0.2.1", true)]);
    }

    #[test]
    fn only_who_goes_on_running_needs_leases() {
        for phase in ["Scheduling", "Running"] {
            assert_eq!(found(&[], &guest(phase)).len(), 3, "{phase}");
        }
        assert_eq!(found(&[], &guest("Failed")), []);
        let mut going = guest("Running");
        Arc::make_mut(&mut going.pod).deleting = true;
        assert_eq!(found(&[], &going), []);
    }

    #[test]
    fn nobody_gets_what_his_vmi_does_not_lead_to() {
        for change in [
            |claim: &mut Claim| claim.uid = "another".into(),
            |claim: &mut Claim| claim.namespace = "another".into(),
            |claim: &mut Claim| claim.kind = "Pod".into(),
        ] {
            let mut guest = guest("Running");
            change(&mut Arc::make_mut(&mut guest.pod).nics[0].claim);
            assert_eq!(found(&[], &guest), []);
        }
    }

    #[test]
    fn what_is_spoken_from_is_in_use_also_without_a_note() {
        let mut guest = guest("Failed");
        let own = guest.pod.nics[0].claim.clone();
        let stranger = ip(&Claim { uid: "another".into(), ..own.clone() }, "192.0.2.1");
        Arc::make_mut(&mut guest.pod).deleting = true;
        // Its VM is gone.
        Arc::make_mut(&mut guest.vmi).metadata.owner_references = None;
        let spoken = Spoken::of(std::slice::from_ref(&guest));
        assert!(all(&own).iter().all(|lease| spoken.has(lease)));
        assert!(!spoken.has(&ip(&own, "192.0.2.2")) && !spoken.has(&stranger));
        Arc::make_mut(&mut guest.pod).nics[0].claim.name = "b".into();
        let claim = guest.pod.nics[0].claim.clone();
        assert!(!Spoken::of(&[guest]).has(&ip(&claim, "192.0.2.1")), "another's lease is not held by it");
    }
}
