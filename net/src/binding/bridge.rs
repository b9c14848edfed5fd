//! Bridge: the guest sits on the pod's segment itself, with the address that the pod interface had or a lease says.
//!
//! ```text
//! guest -- tap -- k6t-… -- pod interface (no address, other MAC) -- backend
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnetwork::Ipv4Network;

use super::{LEASE_SECONDS, bare_nic, begin, bridge_name, ipv4, ipv4_of, ipv4_routes, tap_name};
use crate::desired::{DesiredState, Link, LinkKind};
use crate::mark::{Mark, OwnedTable};
use crate::model::{Binding, Delivery, DhcpV4, GuestNic, IfName, MacAddr, Protocol};
use crate::table::{Chain, Family, Hook, Match, Rule, Table, Verdict};

/// UDP ports of DHCPv4 (RFC 2131).
const DHCP_SERVER: u16 = 67;
const DHCP_CLIENT: u16 = 68;

pub(super) fn desired(binding: &Binding) -> DesiredState {
    let bridge_name = bridge_name(&binding.pod_interface);
    let tap_name = tap_name(&binding.pod_interface);
    let guard = guest_nic(binding).dhcp_v4.is_some();
    let (mut state, netns) = begin(binding);
    let pod = state.namespace(&netns);

    let mut bridge = Link::new(LinkKind::Bridge { mark: Mark::Binding(binding.nic.clone()) });
    bridge.mac = Some(MacAddr::hashed(&format!("bridge of {}", binding.guest_mac)));
    bridge.mtu = Some(binding.pod.mtu);
    bridge.up = Some(true);
    bridge.addresses = Some(BTreeSet::new());
    pod.links.insert(bridge_name.clone(), bridge);

    let mut port = Link::new(LinkKind::Existing);
    // With the guest's own address on it, the bridge would take the guest's frames for itself.
    port.mac = Some(MacAddr::hashed(&format!("port of {}", binding.guest_mac)));
    port.master = Some(bridge_name.clone());
    port.addresses = Some(BTreeSet::new());
    port.routes = Some(BTreeSet::new());
    port.neighbours = Some(BTreeMap::new());
    port.up = Some(true);
    // The guest's address that comes back by a loop of the segment must not be learned on this side.
    port.port.learning = Some(false);
    pod.links.insert(binding.pod_interface.clone(), port);

    for quiet in [&bridge_name, &binding.pod_interface] {
        pod.sysctls.insert(format!("net/ipv6/conf/{quiet}/disable_ipv6"), "1".to_owned());
    }
    if guard {
        let name = OwnedTable::of_bridge(Family::Bridge, &bridge_name);
        pod.tables.insert(name, dhcp_guard(&tap_name, &binding.pod_interface));
    }
    state
}

/// The guest's DHCP is between it and us: its requests stay off the segment, and no server of the segment reaches it.
fn dhcp_guard(tap: &IfName, port: &IfName) -> Table {
    let drop = |input: &IfName, port| Rule {
        matches: vec![Match::Input(input.clone()), Match::DestinationPort(Protocol::Udp, port)],
        verdict: Verdict::Drop,
    };
    let rules = vec![drop(tap, DHCP_SERVER), drop(tap, DHCP_CLIENT), drop(port, DHCP_CLIENT)];
    Table { chains: vec![Chain { hook: Hook::Forward, rules }] }
}

pub(super) fn guest_nic(binding: &Binding) -> GuestNic {
    let (lease, addresses) = match &binding.delivery {
        Some(delivery) => (delivered(delivery), delivery.addresses.clone()),
        None => (inherited(binding), binding.pod.addresses.clone()),
    };
    let lease =
        lease.map(|lease| DhcpV4 { hostname: Some(binding.hostname.clone()).filter(|name| !name.is_empty()), ..lease });
    GuestNic { dhcp_v4: lease, addresses, ..bare_nic(binding) }
}

/// What the network says.
fn delivered(delivery: &Delivery) -> Option<DhcpV4> {
    let address = ipv4(&delivery.addresses).filter(|_| delivery.dhcp_v4)?;
    let router = ipv4_of(&delivery.gateways).first().copied();
    Some(DhcpV4 {
        dns: ipv4_of(&delivery.dns),
        search: delivery.search.clone(),
        routes: delivery.routes.iter().filter(|route| route.destination.is_ipv4()).cloned().collect(),
        ..lease(address, router)
    })
}

/// What the pod interface had: the address that the CNI plugin gave it is the guest's now.
fn inherited(binding: &Binding) -> Option<DhcpV4> {
    let (router, routes) = ipv4_routes(&binding.pod);
    Some(DhcpV4 { routes, ..lease(ipv4(&binding.pod.addresses)?, router) })
}

fn lease(address: Ipv4Network, router: Option<Ipv4Addr>) -> DhcpV4 {
    DhcpV4 {
        address,
        server: router.unwrap_or_else(|| neighbour_of(address)),
        router,
        dns: Vec::new(),
        search: Vec::new(),
        routes: Vec::new(),
        hostname: None,
        lease_seconds: LEASE_SECONDS,
    }
}

/// An address of the same network that is not the guest's; a link-local one where the network has no room.
fn neighbour_of(address: Ipv4Network) -> Ipv4Addr {
    address
        .iter()
        .find(|candidate| {
            *candidate != address.ip() && *candidate != address.network() && *candidate != address.broadcast()
        })
        .unwrap_or(Ipv4Addr::new(169, 254, 75, 1))
}
