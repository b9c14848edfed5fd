//! How full networks are, for `kubectl get underlaynetworks`: counted anew when a lease comes or goes, written when it is
//! another number, at most once in a while. And that a network stays while somebody holds an address of it.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use holdfast_api::lease::{IPLease, IPLeaseSpec};
use holdfast_api::underlay::{UnderlayNetwork, UnderlayNetworkStatus};
use holdfast_ipam::leases::{Lease, is_quarantined, usage};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::api::{self, ApiError};
use crate::context::Context;
use crate::engine::{Cached, Key, Outcome};

/// The least time between two counts: a burst of leases is one write.
const PACE: Duration = Duration::from_secs(3);

/// Keeps an UnderlayNetwork while addresses of it are held: one made again, with another segment or on another bridge,
/// would not know of them.
const FINALIZER: &str = "holdfast.io/leases";

/// What of a lease counts.
#[derive(Debug)]
pub struct Address {
    segment: String,
    address: IpAddr,
    /// Who holds it; none in quarantine.
    holder: Option<String>,
}

impl Cached for Address {
    fn read(object: Value) -> Result<Self, serde_json::Error> {
        let lease: IPLease = serde_json::from_value(object)?;
        let IPLeaseSpec { segment, address, claim } = lease.spec.clone();
        let holder = format!("{} {}/{}", claim.kind, claim.namespace, claim.name);
        Ok(Self { segment, address, holder: (!is_quarantined(&Lease::Ip(lease))).then_some(holder) })
    }
}

impl Cached for UnderlayNetwork {
    fn read(object: Value) -> Result<Self, serde_json::Error> {
        serde_json::from_value(object)
    }
}

/// When it was counted last.
#[derive(Debug, Default)]
pub struct Counted(Mutex<Option<Instant>>);

impl Counted {
    /// How long to wait before it is counted again; where not at all, it is counted from now on.
    fn begin(&self, now: Instant) -> Option<Duration> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left = last.map(|last| PACE.saturating_sub(now.duration_since(last))).filter(|left| !left.is_zero());
        if left.is_none() {
            *last = Some(now);
        }
        left
    }
}

/// Counts for all networks, and lets go of those that are deleted and that nobody holds an address of.
pub async fn reconcile(context: Arc<Context>, _all: Key) -> Result<Outcome, ApiError> {
    if let Some(left) = context.counted.begin(Instant::now()) {
        return Ok(Outcome::After(left));
    }
    let leases = context.ip_leases.select(|_, _| true);
    let networks = context.underlays.select(|_, _| true);
    let all: Vec<&UnderlayNetwork> = networks.iter().map(AsRef::as_ref).collect();
    for network in &networks {
        let held = leases.iter().map(|held| (held.segment.as_str(), held.address));
        let before = network.status.clone().unwrap_or_default();
        let mut status = UnderlayNetworkStatus { addresses: Some(usage(network, &all, held)), ..before.clone() };
        let held = held_alone(network, &networks, &leases);
        let deleted = network.metadata.deletion_timestamp.is_some();
        if let Some(condition) = waits(network, &held, &before.conditions).filter(|_| deleted) {
            status.conditions = vec![condition];
        }
        if status != before {
            let change = json!({"status": {"addresses": status.addresses, "conditions": status.conditions}});
            patch(&context, network, true, change).await?;
        }
        let finalizers = network.metadata.finalizers.clone().unwrap_or_default();
        let wanted = !deleted || !held.is_empty();
        if wanted == finalizers.iter().any(|name| name == FINALIZER) || (deleted && wanted) {
            continue;
        }
        let mut next: Vec<_> = finalizers.into_iter().filter(|name| name != FINALIZER).collect();
        next.extend(wanted.then(|| FINALIZER.to_owned()));
        let version = &network.metadata.resource_version;
        // Where the status was written just now, the next look does it.
        patch(&context, network, false, json!({"metadata": {"finalizers": next, "resourceVersion": version}})).await?;
    }
    Ok(Outcome::Done)
}

/// The leases of a network's segment that somebody holds, where no other network stands for that segment.
fn held_alone<'a>(
    network: &UnderlayNetwork,
    networks: &[Arc<UnderlayNetwork>],
    leases: &'a [Arc<Address>],
) -> Vec<&'a Address> {
    let name = |network: &UnderlayNetwork| network.metadata.name.clone().unwrap_or_default();
    let segment = |network: &UnderlayNetwork| network.spec.segment(&name(network)).to_owned();
    let own = segment(network);
    let another = networks.iter().any(|other| {
        name(other) != name(network) && other.metadata.deletion_timestamp.is_none() && segment(other) == own
    });
    let held = leases.iter().filter(|lease| !another && lease.segment == own && lease.holder.is_some());
    held.map(AsRef::as_ref).collect()
}

/// What a deletion waits for, in words.
fn waits(network: &UnderlayNetwork, held: &[&Address], before: &[Condition]) -> Option<Condition> {
    let first = held.first()?;
    let message = format!(
        "the deletion waits until nobody holds an address of the network any more; leases held: {}, one of them on \
         {} by {}",
        held.len(),
        first.address,
        first.holder.as_deref().unwrap_or_default()
    );
    let since =
        before.iter().find(|condition| condition.type_ == "InUse").map(|known| known.last_transition_time.clone());
    Some(Condition {
        type_: "InUse".to_owned(),
        status: "True".to_owned(),
        reason: "LeasesHeld".to_owned(),
        message,
        last_transition_time: since.unwrap_or_else(|| Time(Timestamp::now())),
        observed_generation: network.metadata.generation,
    })
}

async fn patch(context: &Context, network: &UnderlayNetwork, status: bool, change: Value) -> Result<(), ApiError> {
    let key = Key::of(&network.metadata);
    let networks: Api<UnderlayNetwork> = Api::all(context.client.clone());
    let (params, change) = (PatchParams::default(), Patch::Merge(change));
    let write = async {
        match status {
            true => networks.patch_status(&key.name, &params, &change).await,
            false => networks.patch(&key.name, &params, &change).await,
        }
    };
    match api::dynamic("patch", "UnderlayNetwork", &key, write).await {
        Ok(written) => context.underlays.wrote(&written.metadata.clone(), written),
        Err(error) if error.is_stale() => context.queues.usage.add(Key::default()),
        Err(error) => return Err(error),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_burst_is_counted_once() {
        let counted = Counted::default();
        let now = Instant::now();
        assert_eq!(counted.begin(now), None);
        assert_eq!(counted.begin(now + PACE / 3), Some(PACE - PACE / 3));
        assert_eq!(counted.begin(now + PACE), None);
        assert_eq!(counted.begin(now + PACE), Some(PACE));
    }

    #[test]
    fn a_network_is_held_by_who_has_an_address_of_its_segment() {
        let network = |name: &str, segment: Option<&str>| {
            let spec = json!({"backend": "ovs", "bridge": "b", "segment": segment});
            Arc::new(UnderlayNetwork::new(name, serde_json::from_value(spec).unwrap()))
        };
        let address = |segment: &str, holder: Option<&str>| {
            let (segment, holder) = (segment.to_owned(), holder.map(str::to_owned));
            Arc::new(Address { segment, address: [192, 0, 2, 1].into(), holder })
        };
        let leases = [address("lan", Some("VirtualMachine a/b")), address("lan", None), address("wan", Some("x"))];
        let lan = network("lan", None);
        assert_eq!(held_alone(&lan, std::slice::from_ref(&lan), &leases).len(), 1);
        assert_eq!(held_alone(&lan, &[lan.clone(), network("twin", Some("lan"))], &leases).len(), 0);
        let told = waits(&lan, &held_alone(&lan, std::slice::from_ref(&lan), &leases), &[]).unwrap();
        assert!(told.message.contains("192.0.2.1 by VirtualMachine a/b"), "{}", told.message);
        assert!(waits(&lan, &[], &[]).is_none());
    }
}
