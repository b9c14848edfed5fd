//! How full networks are, for `kubectl get underlaynetworks`: counted anew when a lease comes or goes, written when it is
//! another number, at most once in a while.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use holdfast_api::lease::IPLease;
use holdfast_api::underlay::UnderlayNetwork;
use holdfast_ipam::leases::usage;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::api::{self, ApiError};
use crate::context::Context;
use crate::engine::{Cached, Key, Outcome};

/// The least time between two counts: a burst of leases is one write.
const PACE: Duration = Duration::from_secs(3);

/// What of a lease is counted.
#[derive(Debug)]
pub struct Address {
    segment: String,
    address: IpAddr,
}

impl Cached for Address {
    fn read(object: Value) -> Result<Self, serde_json::Error> {
        let spec = serde_json::from_value::<IPLease>(object)?.spec;
        Ok(Self { segment: spec.segment, address: spec.address })
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

/// Counts for all networks.
pub async fn reconcile(context: Arc<Context>, _all: Key) -> Result<Outcome, ApiError> {
    if let Some(left) = context.counted.begin(Instant::now()) {
        return Ok(Outcome::After(left));
    }
    let leases = context.ip_leases.select(|_, _| true);
    for network in context.underlays.select(|_, _| true) {
        let held = leases.iter().map(|held| (held.segment.as_str(), held.address));
        let counted = usage(&network, held);
        if network.status.as_ref().and_then(|status| status.addresses) == Some(counted) {
            continue;
        }
        let key = Key::of(&network.metadata);
        let networks: Api<UnderlayNetwork> = Api::all(context.client.clone());
        let change = Patch::Merge(json!({"status": {"addresses": counted}}));
        let params = PatchParams::default();
        let write = networks.patch_status(&key.name, &params, &change);
        match api::dynamic("patch the status of", "UnderlayNetwork", &key, write).await {
            Ok(written) => context.underlays.wrote(&written.metadata.clone(), written),
            Err(error) if error.is_stale() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Outcome::Done)
}

#[cfg(test)]
mod tests {
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
}
