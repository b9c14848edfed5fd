//! How full a network is. Derived from its leases, never authoritative.

use std::net::IpAddr;

use holdfast_api::pool::Pool;
use holdfast_api::underlay::{AddressUsage, UnderlayNetwork};

use crate::network::{neighbours, pool};

/// Counts the addresses of a network's pools, and those of them that nobody can have now: each lease on its segment,
/// those in quarantine included. `networks` are all there are, for what others of the segment keep back nobody gets;
/// `leases` are segment and address of each lease there is.
pub fn usage<'a>(
    network: &UnderlayNetwork,
    networks: &[&UnderlayNetwork],
    leases: impl IntoIterator<Item = (&'a str, IpAddr)>,
) -> AddressUsage {
    let name = network.metadata.name.as_deref().unwrap_or_default();
    let segment = network.spec.segment(name);
    let neighbours = neighbours(Some(name), segment, networks);
    let pools: Vec<Pool> = network.spec.subnets.iter().map(|subnet| pool(subnet, &neighbours)).collect();
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
        let network = |name: &str, subnet: serde_json::Value| {
            let spec = serde_json::json!({"backend": "ovs", "bridge": "b", "segment": "lan", "subnets": [subnet]});
            UnderlayNetwork::new(name, serde_json::from_value(spec).unwrap())
        };
        let ranges = serde_json::json!([{"start": "192.0.2.10", "end": "192.0.2.19"}]);
        let subnet = serde_json::json!({"cidr": "192.0.2.0/24", "gateway": "192.0.2.12", "ranges": ranges});
        let other = network("lan2", serde_json::json!({"cidr": "192.0.2.0/24", "exclude": ["192.0.2.18/31"]}));
        let network = network("lan", subnet);
        let held = [("lan", "192.0.2.10"), ("lan", "192.0.2.11"), ("lan", "192.0.2.99"), ("wan", "192.0.2.13")];
        let held = held.map(|(segment, address)| (segment, address.parse().unwrap()));
        assert_eq!(usage(&network, &[&network], held), AddressUsage { total: 9, used: 2 });
        assert_eq!(usage(&network, &[&network, &other], held), AddressUsage { total: 7, used: 2 });
    }
}
