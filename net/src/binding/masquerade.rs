//! Masquerade: the guest has a small network of its own with the pod, and the pod's address outside; so for each family
//! that the pod has an address of.
//!
//! ```text
//! guest 10.0.2.2 -- tap0 -- k6t-eth0 10.0.2.1/24 -- NAT -- eth0
//! fd10:0:2::2               fd10:0:2::1/120
//! ```

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

use super::{BindingError, LEASE_SECONDS, bare_nic, begin, bridge_name};
use crate::desired::{DesiredState, Link, LinkKind};
use crate::mark::{Mark, OwnedTable};
use crate::model::{Binding, DhcpV4, ForwardedPort, GuestNic, MacAddr};
use crate::table::{Chain, Family, Hook, Match, Rule, Table, Verdict};

/// The gateway's Ethernet address, the same in each pod: a guest that moves finds its gateway where it was.
const GATEWAY_MAC: MacAddr = MacAddr([0x02, 0, 0, 0, 0, 0]);

/// The networks between a guest and its pod; of each the first address is the gateway's, the second the guest's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Networks {
    pub v4: Ipv4Network,
    pub v6: Ipv6Network,
}

/// One address family of a masqueraded guest.
#[derive(Clone, Copy, Debug)]
struct Inner {
    /// The pod's address.
    outer: IpAddr,
    /// The gateway's address with its prefix.
    gateway: IpNetwork,
    guest: IpAddr,
}

pub(super) fn validate(binding: &Binding, networks: Networks) -> Result<(), BindingError> {
    let nic = binding.nic.clone();
    if networks.v4.prefix() > 30 {
        return Err(BindingError::Cidr { nic, cidr: networks.v4 });
    }
    if networks.v6.prefix() > 126 {
        return Err(BindingError::CidrV6 { nic, cidr: networks.v6 });
    }
    if families(binding, networks).is_empty() {
        return Err(BindingError::NoAddress { nic, pod_interface: binding.pod_interface.clone() });
    }
    Ok(())
}

/// The families in which the pod has an address.
fn families(binding: &Binding, networks: Networks) -> Vec<Inner> {
    let first = |is: fn(&IpAddr) -> bool| binding.pod.addresses.iter().map(IpNetwork::ip).find(is);
    let v4 = first(IpAddr::is_ipv4).and_then(|outer| {
        let base = u32::from(networks.v4.network());
        let gateway = Ipv4Network::new(Ipv4Addr::from(base + 1), networks.v4.prefix()).ok()?;
        Some(Inner { outer, gateway: gateway.into(), guest: Ipv4Addr::from(base + 2).into() })
    });
    let v6 = first(IpAddr::is_ipv6).and_then(|outer| {
        let base = u128::from(networks.v6.network());
        let gateway = Ipv6Network::new(Ipv6Addr::from(base + 1), networks.v6.prefix()).ok()?;
        Some(Inner { outer, gateway: gateway.into(), guest: Ipv6Addr::from(base + 2).into() })
    });
    v4.into_iter().chain(v6).collect()
}

pub(super) fn desired(binding: &Binding, networks: Networks, ports: &[ForwardedPort]) -> DesiredState {
    let families = families(binding, networks);
    let has_v6 = families.iter().any(|family| family.guest.is_ipv6());
    let bridge_name = bridge_name(&binding.pod_interface);
    let (mut state, netns) = begin(binding);
    let pod = state.namespace(&netns);

    pod.links.insert(binding.pod_interface.clone(), Link::new(LinkKind::Existing));
    let mut bridge = Link::new(LinkKind::Bridge { mark: Mark::Binding(binding.nic.clone()) });
    bridge.mac = Some(GATEWAY_MAC);
    bridge.mtu = Some(binding.pod.mtu);
    bridge.up = Some(true);
    bridge.addresses = Some(families.iter().map(|family| family.gateway).collect());
    pod.links.insert(bridge_name.clone(), bridge);

    pod.sysctls.insert("net/ipv4/ip_forward".to_owned(), "1".to_owned());
    // What a process of the pod sends to its own loopback address is forwarded to the guest, too.
    pod.sysctls.insert(format!("net/ipv4/conf/{bridge_name}/route_localnet"), "1".to_owned());
    if has_v6 {
        pod.sysctls.insert("net/ipv6/conf/all/forwarding".to_owned(), "1".to_owned());
    }
    pod.sysctls.insert(format!("net/ipv6/conf/{bridge_name}/disable_ipv6"), u8::from(!has_v6).to_string());
    pod.tables.insert(OwnedTable::of_bridge(Family::Inet, &bridge_name), nat(binding, &families, ports));
    state
}

/// All ports, or those listed, go to the guest; what leaves the guest has the pod's address.
fn nat(binding: &Binding, families: &[Inner], ports: &[ForwardedPort]) -> Table {
    let all = |rules: fn(&Binding, &Inner, &[ForwardedPort]) -> Vec<Rule>| -> Vec<Rule> {
        families.iter().flat_map(|family| rules(binding, family, ports)).collect()
    };
    let chains =
        [(Hook::Prerouting, all(inbound)), (Hook::Output, all(from_loopback)), (Hook::Postrouting, all(outbound))];
    let chains = chains.into_iter().filter(|(_, rules)| !rules.is_empty());
    Table { chains: chains.map(|(hook, rules)| Chain { hook, rules }).collect() }
}

/// What comes to the pod's address.
fn inbound(binding: &Binding, family: &Inner, ports: &[ForwardedPort]) -> Vec<Rule> {
    let matches = vec![Match::Input(binding.pod_interface.clone()), Match::Destination(family.outer.into())];
    to_guest(matches, family, ports)
}

/// What the pod sends to its own loopback address. That of IPv6 is routed nowhere else by any kernel.
fn from_loopback(_: &Binding, family: &Inner, ports: &[ForwardedPort]) -> Vec<Rule> {
    let loopback = loopback(family).map(|loopback| to_guest(vec![Match::Destination(loopback)], family, ports));
    loopback.unwrap_or_default()
}

fn outbound(binding: &Binding, family: &Inner, _: &[ForwardedPort]) -> Vec<Rule> {
    let out = Match::Output(binding.pod_interface.clone());
    let mut rules = vec![Rule { matches: vec![Match::Source(family.guest.into()), out], verdict: Verdict::Masquerade }];
    rules.extend(loopback(family).map(|loopback| {
        let to_own_guest = Match::Output(bridge_name(&binding.pod_interface));
        Rule { matches: vec![Match::Source(loopback), to_own_guest], verdict: Verdict::Snat(family.gateway.ip()) }
    }));
    rules
}

fn loopback(family: &Inner) -> Option<IpNetwork> {
    family.guest.is_ipv4().then(|| IpAddr::V4(Ipv4Addr::LOCALHOST).into())
}

/// Destination NAT to the guest of all that matches, or of the listed ports of it.
fn to_guest(matches: Vec<Match>, family: &Inner, ports: &[ForwardedPort]) -> Vec<Rule> {
    let verdict = Verdict::Dnat(family.guest);
    let sorted: BTreeSet<&ForwardedPort> = ports.iter().collect();
    if sorted.is_empty() {
        return vec![Rule { matches, verdict }];
    }
    let of_port = |ForwardedPort { protocol, port }: &ForwardedPort| {
        let mut matches = matches.clone();
        matches.push(Match::DestinationPort(*protocol, *port));
        Rule { matches, verdict }
    };
    sorted.into_iter().map(of_port).collect()
}

pub(super) fn guest_nic(binding: &Binding, networks: Networks) -> GuestNic {
    let delivery = binding.delivery.clone().unwrap_or_default();
    let lease = families(binding, networks).into_iter().find_map(|family| {
        let (IpAddr::V4(guest), IpAddr::V4(gateway)) = (family.guest, family.gateway.ip()) else { return None };
        Some(DhcpV4 {
            address: Ipv4Network::new(guest, family.gateway.prefix()).ok()?,
            server: gateway,
            router: Some(gateway),
            dns: super::ipv4_of(&delivery.dns),
            search: delivery.search.clone(),
            routes: Vec::new(),
            hostname: Some(binding.hostname.clone()).filter(|name| !name.is_empty()),
            lease_seconds: LEASE_SECONDS,
        })
    });
    // The address by which others reach the guest is the pod's.
    GuestNic { dhcp_v4: lease, addresses: binding.pod.addresses.clone(), ..bare_nic(binding) }
}
