//! How full a network is. Derived from its leases, never authoritative.

use std::net::IpAddr;

use holdfast_api::pool::Pool;
use holdfast_api::underlay::{AddressUsage, UnderlayNetwork};

/// Counts the addresses of a network's pools, and those of them that nobody can have now: each lease on its segment,
/// those in quarantine included. `leases` are segment and address of each lease there is.
pub fn usage<'a>(network: &UnderlayNetwork, leases: impl IntoIterator<Item = (&'a str, IpAddr)>) -> AddressUsage {
    let segment = network.spec.segment(network.metadata.name.as_deref().unwrap_or_default());
    let pools: Vec<Pool> = network.spec.subnets.iter().map(Pool::of).collect();
    let total = pools.iter().fold(0_u128, |sum, pool| sum.saturating_add(pool.len()));
    let counts = |address: IpAddr| pools.iter().any(|pool| pool.contains(address));
    let used = leases.into_iter().filter(|(at, address)| *at == segment && counts(*address)).count();
    AddressUsage { total: i64::try_from(total).unwrap_or(i64::MAX), used: i64::try_from(used).unwrap_or(i64::MAX) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_in_a_pool_and_on_the_segment_counts() {
        let network: UnderlayNetwork = serde_json::from_value(serde_json::json!({
            "apiVersion": "holdfast.io/v1alpha1", "kind": "UnderlayNetwork", "metadata": {"name": "lan"},
            "spec": {"backend": "ovs", "bridge": "b", "subnets": [{"cidr": "192.0.2.0/24", "gateway": "192.0.2.12",
                "ranges": [{"start": "192.0.2.10", "end": "192.0.2.19"}]}]}}))
        .unwrap();
        let held = [("lan", "192.0.2.10"), ("lan", "192.0.2.11"), ("lan", "192.0.2.99"), ("wan", "192.0.2.13")];
        let held = held.map(|(segment, address)| (segment, address.parse().unwrap()));
        assert_eq!(usage(&network, held), AddressUsage { total: 9, used: 2 });
    }
}
