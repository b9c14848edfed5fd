//! Making leases again that are gone although their VM runs: deleted by hand, or lost when etcd was restored.
//!
//! By the way they were made at first, with exactly what the pod has. Until then another may have been given an
//! address: that is told on the VMI and its VM, once each time that it is something else.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use futures::StreamExt;
use holdfast_api::lease::{lease_name, mac_lease_name};
use holdfast_ipam::leases::{AllocateError, Lease, LeaseKind, LeaseStore, Request, allocate};
use holdfast_ipam::network::Addressing;
use holdfast_ipam::nic::NicError;
use holdfast_kubernetes::chain;
use holdfast_kubernetes::events::EventType;
use k8s_openapi::api::core::v1::Pod;

use super::lost::{Guest, Lost, Missing, lost};
use crate::api::{self, ApiError};
use crate::context::Context;
use crate::engine::Key;
use crate::pod::{LeasedNic, PodFacts};
use crate::vmi;
use crate::vmi::nics::{self, Trouble};

/// How many NICs are looked after at the same time.
const CONCURRENCY: usize = 8;

/// Pod and network of a NIC.
type Place = (String, String);

/// What was told of NICs whose leases cannot be made again.
#[derive(Debug, Default)]
pub struct Unrestored(Mutex<HashMap<Place, NicError>>);

impl Unrestored {
    /// Keeps what holds now; returns what of it was not known.
    fn replace(&self, now: HashMap<Place, NicError>) -> HashMap<Place, NicError> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *known, now);
        known.iter().filter(|(at, why)| before.get(*at) != Some(*why)).map(|(a, w)| (a.clone(), w.clone())).collect()
    }
}

/// Makes the leases again that the guests lack. Returns whether that is done.
pub(super) async fn restore(context: &Context, leases: &[Lease], guests: &[Guest]) -> bool {
    let lost = lost(leases, guests);
    let attempts: Vec<_> = lost.iter().map(|lost| attempt(context, lost)).collect();
    let mut attempts = futures::stream::iter(attempts).buffer_unordered(CONCURRENCY);
    let (mut troubles, mut done) = (HashMap::new(), true);
    while let Some((lost, result)) = attempts.next().await {
        let at = place(lost);
        match result {
            Ok(()) => {}
            Err(Trouble::Refused(why)) => {
                done = false;
                troubles.insert(at, why);
            }
            Err(Trouble::Unknown(error)) => {
                done = false;
                tracing::warn!(pod = %lost.guest.pod.key, network = at.1, error, "failed to make its leases again");
            }
        }
    }
    let news = context.unrestored.replace(troubles);
    for lost in &lost {
        if let Some(why) = news.get(&place(lost)) {
            tell(context, lost, why).await;
        }
    }
    done
}

fn place(lost: &Lost<'_>) -> Place {
    (lost.guest.pod.uid.clone(), lost.nic.claim.network.clone())
}

async fn attempt<'a>(context: &Context, lost: &'a Lost<'a>) -> (&'a Lost<'a>, Result<(), Trouble>) {
    (lost, one(context, lost).await)
}

async fn one(context: &Context, lost: &Lost<'_>) -> Result<(), Trouble> {
    let Lost { guest, nic, missing } = lost;
    match speaks(context, guest, nic).await {
        Ok(true) => {}
        Ok(false) => return Ok(()),
        Err(error) => return Err(Trouble::Unknown(chain(&error))),
    }
    let network = nics::addressing(context, &guest.vmi, &nic.claim.network).await?;
    let (held, conflict) = again(&*context.leases, &network, nic).await.map_err(trouble)?;
    let is_held = |missing: &&Missing| match missing.kind {
        LeaseKind::Ip => held.iter().any(|address| address.to_string() == missing.address),
        LeaseKind::Mac => true,
    };
    let made: Vec<_> = missing.iter().filter(is_held).map(|missing| restored(&network.segment, missing)).collect();
    if !made.is_empty() {
        // In one event: of several with one reason, the API shows the first and counts the others.
        let message = made.join("; ");
        tracing::warn!(vmi = %Key::of(&guest.vmi.metadata), network = nic.claim.network, "{message}");
        context.event(&*guest.vmi, EventType::Warning, "LeaseRestored", &message).await;
    }
    conflict.map_or(Ok(()), |error| Err(trouble(error)))
}

/// Whether the pod is there and has that NIC, as the API server has it and not a cache: what is made for one that is
/// gone would keep others off the address.
async fn speaks(context: &Context, guest: &Guest, nic: &LeasedNic) -> Result<bool, ApiError> {
    let pod = api::get::<Pod>(&context.client, &guest.pod.key).await?.map(PodFacts::of);
    let same = |pod: &PodFacts| pod.uid == guest.pod.uid && !pod.deleting && !pod.is_over() && pod.nics.contains(nic);
    Ok(pod.as_ref().is_some_and(same))
}

/// Gives a NIC what it has once more. An address that is another's by now does not keep the others from it: returns
/// the addresses that are held, and why one is not.
///
/// All is asked for at once: what the claim holds beside it would be given up.
async fn again(
    store: &dyn LeaseStore,
    network: &Addressing,
    nic: &LeasedNic,
) -> Result<(Vec<IpAddr>, Option<AllocateError>), AllocateError> {
    let mut ips = nic.addresses.clone();
    let mut conflict = None;
    loop {
        // It gets none of a family that it has none of.
        let mut network = network.clone();
        network.subnets.retain(|subnet| ips.iter().any(|ip| ip.is_ipv6() == subnet.cidr.is_ipv6()));
        // It was there before its network's deletion, and that waits for it.
        network.deleting = false;
        let request = Request { network: &network, claim: &nic.claim, mac: Some(nic.mac), ips: &ips, labels: &[] };
        let error = match allocate(store, &request).await {
            Ok(_) => return Ok((ips, conflict)),
            Err(error) => error,
        };
        let before = ips.len();
        if let AllocateError::Taken { address, .. } = &error {
            ips.retain(|ip| ip.to_string() != *address);
        }
        if ips.len() == before {
            return Err(conflict.unwrap_or(error));
        }
        conflict.get_or_insert(error);
    }
}

fn trouble(error: AllocateError) -> Trouble {
    match error {
        AllocateError::Store(error) => Trouble::Unknown(chain(&error)),
        error => Trouble::Refused(NicError { reason: error.reason(), message: chain(&error) }),
    }
}

fn restored(segment: &str, missing: &Missing) -> String {
    let name = match missing.kind {
        LeaseKind::Ip => missing.address.parse().ok().and_then(|address| lease_name(segment, address).ok()),
        LeaseKind::Mac => mac_lease_name(segment, &missing.address).ok(),
    };
    let lease = format!("{} `{}`", missing.kind, name.as_ref().unwrap_or(&missing.address));
    match missing.given_up {
        true => format!("{lease} was given up while the VM runs, and is taken back"),
        false => format!("{lease} was gone while the VM runs, and is made again"),
    }
}

async fn tell(context: &Context, lost: &Lost<'_>, why: &NicError) {
    let Lost { guest, nic, missing } = lost;
    let vmi = &*guest.vmi;
    let addresses: Vec<_> = missing.iter().map(|missing| missing.address.as_str()).collect();
    let message = format!(
        "the VM runs on network `{}` without all of its leases ({}): {}",
        nic.claim.network,
        addresses.join(", "),
        why.message
    );
    tracing::warn!(vmi = %Key::of(&vmi.metadata), reason = why.reason, "{message}");
    context.event(vmi, EventType::Warning, why.reason, &message).await;
    let vm = vmi::owner(vmi).and_then(|vm| context.vms.get(&guest.pod.key.beside(&vm)));
    if let Some(vm) = vm {
        context.event(&*vm, EventType::Warning, why.reason, &message).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use holdfast_api::lease::Claim;
    use holdfast_ipam::leases::{FileStore, is_quarantined};
    use serde_json::json;

    use super::*;

    fn claim(uid: &str) -> Claim {
        let text = |text: &str| text.to_owned();
        let (kind, namespace, network) = (text("VirtualMachine"), text("n"), text("lan"));
        Claim { uid: text(uid), kind, namespace, name: text(uid), network }
    }

    fn network() -> Addressing {
        Addressing {
            name: "lan".to_owned(),
            underlay: None,
            segment: "lan".to_owned(),
            subnets: serde_json::from_value(json!([{"cidr": "192.0.2.0/24"}, {"cidr": "2001:db8::/64"}])).unwrap(),
            dhcp: serde_json::from_value(json!({})).unwrap(),
            deleting: true,
            allowed_address_pairs: Vec::new(),
            bandwidth: None,
            neighbours: Vec::new(),
            macvtap: false,
        }
    }

    fn nic(addresses: &[&str]) -> LeasedNic {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        LeasedNic { claim: claim("own"), mac: "02:00:00:00:00:01".parse().unwrap(), addresses }
    }

    /// What is held by whom, in order.
    async fn held(store: &dyn LeaseStore) -> Vec<(String, String)> {
        let mut leases = store.list(LeaseKind::Ip).await.unwrap();
        leases.extend(store.list(LeaseKind::Mac).await.unwrap());
        assert!(leases.iter().all(|lease| !is_quarantined(lease)));
        let mut held: Vec<_> = leases.iter().map(|lease| (lease.address(), lease.claim().uid.clone())).collect();
        held.sort();
        held
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(address, uid)| ((*address).to_owned(), (*uid).to_owned())).collect()
    }

    #[tokio::test]
    async fn a_nic_gets_what_it_has_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let store = FileStore::open(folder.path()).unwrap();
        let (nic, network) = (nic(&["192.0.2.7"]), network());
        let expected = pairs(&[("02:00:00:00:00:01", "own"), ("192.0.2.7", "own")]);
        for _ in 0..2 {
            let (held_ips, conflict) = again(&store, &network, &nic).await.unwrap();
            assert_eq!((held_ips, conflict.is_none()), (nic.addresses.clone(), true));
            assert_eq!(held(&store).await, expected);
        }
        let leases = store.list(LeaseKind::Ip).await.unwrap();
        store.delete(leases[0].clone()).await.unwrap();
        again(&store, &network, &nic).await.unwrap();
        assert_eq!(held(&store).await, expected);
    }

    #[tokio::test]
    async fn what_another_has_by_now_keeps_nothing_else_away() {
        let folder = tempfile::tempdir().unwrap();
        let store = FileStore::open(folder.path()).unwrap();
        let network = Addressing { deleting: false, ..network() };
        let stranger = Request {
            network: &network,
            claim: &claim("other"),
            mac: Some("02:00:00:00:00:02".parse().unwrap()),
            ips: &["192.0.2.7".parse().unwrap(), "2001:db8::2".parse().unwrap()],
            labels: &[],
        };
        allocate(&store, &stranger).await.unwrap();
        let (ips, conflict) = again(&store, &network, &nic(&["192.0.2.7", "2001:db8::7"])).await.unwrap();
        assert_eq!(ips, ["2001:db8::7".parse::<IpAddr>().unwrap()]);
        let Trouble::Refused(why) = trouble(conflict.unwrap()) else { panic!() };
        assert_eq!(why.reason, "AddressConflict");
        assert!(why.message.contains("192.0.2.7") && why.message.contains("VirtualMachine `n/other`"), "{why}");
        let expected = [
            ("02:00:00:00:00:01", "own"),
            ("02:00:00:00:00:02", "other"),
            ("192.0.2.7", "other"),
            ("2001:db8::2", "other"),
            ("2001:db8::7", "own"),
        ];
        assert_eq!(held(&store).await, pairs(&expected));
    }

    #[test]
    fn each_trouble_is_told_once_until_it_is_over_or_another() {
        let known = Unrestored::default();
        let at = || ("pod".to_owned(), "lan".to_owned());
        let tells = |message: &str| known.replace([(at(), NicError::network(message))].into()).len();
        assert_eq!([tells("a"), tells("a"), tells("b")], [1, 0, 1]);
        assert!(known.replace(HashMap::new()).is_empty());
        assert_eq!(tells("b"), 1);
    }

    #[test]
    fn a_lease_is_told_by_its_name() {
        let told =
            |kind, address: &str, given_up| restored("lan", &Missing { kind, address: address.into(), given_up });
        let gone = "IPLease `lan.c0000207` was gone while the VM runs, and is made again";
        assert_eq!(told(LeaseKind::Ip, "192.0.2.7", false), gone);
        let back = "MACLease `lan.020000000001` was given up while the VM runs, and is taken back";
        assert_eq!(told(LeaseKind::Mac, "02:00:00:00:00:01", true), back);
    }
}
