//! Masquerade: the guest has a small network of its own with the pod, and the pod's address outside.
//!
//! ```text
//! guest 10.0.2.2 -- tap0 -- k6t-eth0 10.0.2.1/24 -- NAT -- eth0
//! ```

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::{IpNetwork, Ipv4Network};

use super::{BindingError, LEASE_SECONDS, bare_nic, begin, bridge_name, ipv4};
use crate::desired::{DesiredState, Link, LinkKind};
use crate::mark::{Mark, OwnedTable};
use crate::model::{Binding, DhcpV4, ForwardedPort, GuestNic, MacAddr};
use crate::table::{Chain, Family, Hook, Match, Rule, Table, Verdict};

/// The gateway's Ethernet address, the same in each pod: a guest that moves finds its gateway where it was.
const GATEWAY_MAC: MacAddr = MacAddr([0x02, 0, 0, 0, 0, 0]);

pub(super) fn validate(binding: &Binding, cidr: Ipv4Network) -> Result<(), BindingError> {
    if cidr.prefix() > 30 {
        return Err(BindingError::Cidr { nic: binding.nic.clone(), cidr });
    }
    if ipv4(&binding.pod.addresses).is_none() {
        let (nic, pod_interface) = (binding.nic.clone(), binding.pod_interface.clone());
        return Err(BindingError::NoAddress { nic, pod_interface });
    }
    Ok(())
}

/// The first address of the network is the gateway's, the second the guest's.
fn inner(cidr: Ipv4Network) -> (Ipv4Addr, Ipv4Addr) {
    let network = u32::from(cidr.network());
    (Ipv4Addr::from(network + 1), Ipv4Addr::from(network + 2))
}

pub(super) fn desired(binding: &Binding, cidr: Ipv4Network, ports: &[ForwardedPort]) -> DesiredState {
    let (gateway, _) = inner(cidr);
    let bridge_name = bridge_name(&binding.pod_interface);
    let (mut state, netns) = begin(binding);
    let pod = state.namespace(&netns);

    pod.links.insert(binding.pod_interface.clone(), Link::new(LinkKind::Existing));
    let mut bridge = Link::new(LinkKind::Bridge { mark: Mark::Binding(binding.nic.clone()) });
    bridge.mac = Some(GATEWAY_MAC);
    bridge.mtu = Some(binding.pod.mtu);
    bridge.up = Some(true);
    bridge.addresses = Ipv4Network::new(gateway, cidr.prefix()).ok().map(|own| BTreeSet::from([IpNetwork::V4(own)]));
    pod.links.insert(bridge_name.clone(), bridge);

    pod.sysctls.insert("net/ipv4/ip_forward".to_owned(), "1".to_owned());
    // What a process of the pod sends to its own loopback address is forwarded to the guest, too.
    pod.sysctls.insert(format!("net/ipv4/conf/{bridge_name}/route_localnet"), "1".to_owned());
    pod.sysctls.insert(format!("net/ipv6/conf/{bridge_name}/disable_ipv6"), "1".to_owned());
    pod.tables.insert(OwnedTable::of_bridge(Family::Inet, &bridge_name), nat(binding, cidr, ports));
    state
}

/// All ports, or those listed, go to the guest; what leaves the guest has the pod's address.
fn nat(binding: &Binding, cidr: Ipv4Network, ports: &[ForwardedPort]) -> Table {
    let (gateway, guest) = inner(cidr);
    let loopback = IpNetwork::V4(Ipv4Network::from(Ipv4Addr::LOCALHOST));
    let guest_only = IpNetwork::V4(Ipv4Network::from(guest));
    let to_guest = |first: Match| -> Vec<Rule> {
        let verdict = Verdict::Dnat(IpAddr::V4(guest));
        let sorted: BTreeSet<&ForwardedPort> = ports.iter().collect();
        if sorted.is_empty() {
            return vec![Rule { matches: vec![first], verdict }];
        }
        sorted
            .into_iter()
            .map(|ForwardedPort { protocol, port }| Rule {
                matches: vec![first.clone(), Match::DestinationPort(*protocol, *port)],
                verdict,
            })
            .collect()
    };
    let out = Match::Output(binding.pod_interface.clone());
    let to_own_guest = Match::Output(bridge_name(&binding.pod_interface));
    let own = ipv4(&binding.pod.addresses).map(|address| IpNetwork::V4(Ipv4Network::from(address.ip())));
    let inbound = own.into_iter().flat_map(|own| {
        to_guest(Match::Destination(own)).into_iter().map(|mut rule| {
            rule.matches.insert(0, Match::Input(binding.pod_interface.clone()));
            rule
        })
    });
    Table {
        chains: vec![
            Chain { hook: Hook::Prerouting, rules: inbound.collect() },
            Chain { hook: Hook::Output, rules: to_guest(Match::Destination(loopback)) },
            Chain {
                hook: Hook::Postrouting,
                rules: vec![
                    Rule { matches: vec![Match::Source(guest_only), out], verdict: Verdict::Masquerade },
                    Rule {
                        matches: vec![Match::Source(loopback), to_own_guest],
                        verdict: Verdict::Snat(IpAddr::V4(gateway)),
                    },
                ],
            },
        ],
    }
}

pub(super) fn guest_nic(binding: &Binding, cidr: Ipv4Network) -> GuestNic {
    let (gateway, guest) = inner(cidr);
    let delivery = binding.delivery.clone().unwrap_or_default();
    let lease = Ipv4Network::new(guest, cidr.prefix()).ok().map(|address| DhcpV4 {
        address,
        server: gateway,
        router: Some(gateway),
        dns: super::ipv4_of(&delivery.dns),
        search: delivery.search,
        routes: Vec::new(),
        hostname: Some(binding.hostname.clone()).filter(|name| !name.is_empty()),
        lease_seconds: LEASE_SECONDS,
    });
    // The address by which others reach the guest is the pod's.
    GuestNic { dhcp_v4: lease, addresses: binding.pod.addresses.clone(), ..bare_nic(binding) }
}
