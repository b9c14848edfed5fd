//! Properties of the order in which claims try addresses.
#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};

use holdfast_api::pool::{Pool, mac_candidates};
use holdfast_api::underlay::{AddressRange, Subnet};
use ipnetwork::IpNetwork;
use proptest::prelude::*;

fn subnet(cidr: &str) -> Subnet {
    Subnet {
        cidr: cidr.parse().unwrap(),
        gateway: None,
        ranges: Vec::new(),
        exclude: Vec::new(),
        dns: None,
        routes: Vec::new(),
    }
}

fn v4(host: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(0x0a01_0000 + host))
}

prop_compose! {
    /// A subnet within 10.1.0.0/16 of at most 1024 addresses. Ranges and exclusions may overlap,
    /// be the wrong way round, or reach out of the prefix.
    fn small_subnet()(
        prefix in 22_u8..=32,
        gateway in proptest::option::of(0_u32..1024),
        ranges in proptest::collection::vec((0_u32..1100, 0_u32..1100), 0..4),
        exclude in proptest::collection::vec((0_u32..1100, 26_u8..=32), 0..6),
    ) -> Subnet {
        Subnet {
            gateway: gateway.map(v4),
            ranges: ranges
                .into_iter()
                .map(|(start, end)| AddressRange { start: v4(start), end: v4(end) })
                .collect(),
            exclude: exclude
                .into_iter()
                .map(|(host, prefix)| IpNetwork::new(v4(host), prefix).unwrap())
                .collect(),
            ..subnet(&format!("10.1.0.0/{prefix}"))
        }
    }
}

/// The pool by its definition, one address after the other.
fn allowed(subnet: &Subnet) -> HashSet<IpAddr> {
    subnet
        .cidr
        .iter()
        .filter(|ip| subnet.ranges.is_empty() || subnet.ranges.iter().any(|r| r.start <= *ip && *ip <= r.end))
        .filter(|ip| !subnet.exclude.iter().any(|prefix| prefix.contains(*ip)))
        .filter(|ip| subnet.gateway != Some(*ip))
        .filter(|ip| subnet.cidr.prefix() >= 31 || (*ip != subnet.cidr.network() && *ip != subnet.cidr.broadcast()))
        .collect()
}

proptest! {
    #[test]
    fn each_allowed_address_comes_once(subnet in small_subnet(), uid in "[0-9a-f-]{1,36}") {
        let tried: Vec<_> = Pool::of(&subnet).candidates(&uid).collect();
        let distinct: HashSet<_> = tried.iter().copied().collect();
        prop_assert_eq!(distinct.len(), tried.len());
        prop_assert_eq!(&distinct, &allowed(&subnet));
        let pool = Pool::of(&subnet);
        prop_assert_eq!(pool.len(), tried.len() as u128);
        prop_assert_eq!(pool.is_empty(), tried.is_empty());
        prop_assert!(subnet.cidr.iter().all(|ip| pool.contains(ip) == distinct.contains(&ip)));
        prop_assert_eq!(Pool::of(&subnet).candidates(&uid).collect::<Vec<_>>(), tried);
    }

    #[test]
    fn large_pools_cost_nothing(
        uid in "[0-9a-f-]{36}",
        cidr in prop_oneof![Just("10.0.0.0/8"), Just("2001:db8::/64"), Just("::/0"), Just("0.0.0.0/0")],
    ) {
        let subnet = subnet(cidr);
        let tried: Vec<_> = Pool::of(&subnet).candidates(&uid).take(500).collect();
        prop_assert_eq!(tried.len(), 500);
        prop_assert_eq!(tried.iter().collect::<HashSet<_>>().len(), 500);
        prop_assert!(tried.iter().all(|ip| subnet.cidr.contains(*ip)));
    }

    #[test]
    fn macs_are_unicast_and_ours(uid in "[0-9a-f-]{1,36}") {
        let tried: Vec<_> = mac_candidates(&uid).take(200).collect();
        prop_assert_eq!(tried.iter().collect::<HashSet<_>>().len(), 200);
        prop_assert!(tried.iter().all(|mac| mac.len() == 17 && mac.starts_with("02:")));
        prop_assert!(!tried.contains(&"02:00:00:00:00:00".to_owned()));
        prop_assert_eq!(mac_candidates(&uid).take(200).collect::<Vec<_>>(), tried);
    }
}

#[test]
fn claims_begin_at_different_places() {
    let subnet = subnet("10.1.0.0/16");
    let firsts: HashSet<_> =
        (0..1000).map(|n| Pool::of(&subnet).candidates(&format!("uid-{n}")).next().unwrap()).collect();
    // With 65534 addresses, 1000 claims are expected to share about 8 first choices.
    assert!(firsts.len() > 960, "{} distinct first choices", firsts.len());
}

#[test]
fn what_a_subnet_names_is_not_given_out() {
    let subnet: Subnet = serde_json::from_value(serde_json::json!({
        "cidr": "192.0.2.0/29", "gateway": "192.0.2.1",
        "dns": {"servers": ["192.0.2.2", "2001:db8::53"]},
        "routes": [{"dst": "198.51.100.0/24", "gw": "192.0.2.3"}]
    }))
    .unwrap();
    let mut left: Vec<_> = Pool::of(&subnet).candidates("uid").map(|ip| ip.to_string()).collect();
    left.sort();
    assert_eq!(left, ["192.0.2.4", "192.0.2.5", "192.0.2.6"]);
}
