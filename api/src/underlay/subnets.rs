//! Which subnets of an UnderlayNetwork are refused: see [`super::rules`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv4Network};

use super::rules::Found;
use super::{AddressRange, Subnet};
use crate::names::is_search_domain;
use crate::pool::Pool;

/// Prefixes whose addresses a NIC cannot be given, and what they are for.
const NOT_GIVEN: &[(IpAddr, u8, &str)] = &[
    (IpAddr::V4(Ipv4Addr::new(0, 0, 0, 0)), 8, "no address yet"),
    (IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8, "loopback"),
    (IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0)), 4, "multicast"),
    (IpAddr::V6(Ipv6Addr::UNSPECIFIED), 128, "no address yet"),
    (IpAddr::V6(Ipv6Addr::LOCALHOST), 128, "loopback"),
    (IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0)), 96, "IPv4 addresses in IPv6"),
    (IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), 10, "link-local"),
    (IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)), 8, "multicast"),
];

/// What is wrong with one subnet; `at` is its field.
pub(super) fn subnets(at: &str, subnet: &Subnet, found: &mut Found) {
    let before = found.causes.len();
    put_prefix(&format!("{at}.cidr"), subnet.cidr, found);
    let cidr = subnet.cidr;
    range(&format!("{at}.cidr"), cidr, found);
    let outside = |address| format!("`{address}` is not in `{cidr}`");
    if let Some(gateway) = subnet.gateway {
        hop(&format!("{at}.gateway"), gateway, cidr, found);
    }
    for (index, AddressRange { start, end }) in subnet.ranges.iter().enumerate() {
        let at = format!("{at}.ranges[{index}]");
        for (field, address) in [("start", start), ("end", end)] {
            if !cidr.contains(*address) {
                found.add(format!("{at}.{field}"), outside(*address));
            }
        }
        if end < start {
            found.add(format!("{at}.end"), format!("`{end}` is below the start `{start}`"));
        }
    }
    for (index, exclude) in subnet.exclude.iter().enumerate() {
        let at = format!("{at}.exclude[{index}]");
        put_prefix(&at, *exclude, found);
        if !overlap(*exclude, cidr) {
            found.add(at, format!("`{exclude}` has nothing in common with `{cidr}`"));
        }
    }
    for (index, route) in subnet.routes.iter().enumerate() {
        let at = format!("{at}.routes[{index}]");
        put_prefix(&format!("{at}.dst"), route.dst, found);
        if route.dst.is_ipv6() != cidr.is_ipv6() {
            found.add(format!("{at}.dst"), format!("`{}` is of the other family than `{cidr}`", route.dst));
        }
        match route.gw {
            Some(address) => hop(&format!("{at}.gw"), address, cidr, found),
            None if subnet.gateway.is_none() => {
                found.add(format!("{at}.gw"), "a next hop is needed, as the subnet has no gateway".to_owned())
            }
            None => {}
        }
    }
    for (index, domain) in subnet.dns.iter().flat_map(|dns| &dns.search).enumerate() {
        if !is_search_domain(domain) {
            found.add(format!("{at}.dns.search[{index}]"), format!("`{domain}` is no DNS name, such as `lab.example`"));
        }
    }
    if found.causes.len() == before && Pool::of(subnet).is_empty() {
        found.add(at, format!("no address of `{cidr}` is left to give out"));
    }
}

/// A subnet is one of addresses that NICs can have.
fn range(field: &str, cidr: IpNetwork, found: &mut Found) {
    let valid = if cidr.is_ipv6() { "such as `2001:db8::/64`" } else { "such as `192.0.2.0/24`" };
    if let Some((special, purpose)) = special(cidr) {
        let of = format!("`{cidr}` has addresses of `{special}` ({purpose}), which no NIC is given");
        found.add(field, format!("{of}: valid is a subnet of unicast addresses, {valid}"));
    } else if cidr.prefix() == if cidr.is_ipv6() { 128 } else { 32 } {
        let one = format!("`{cidr}` is one address, as each is without a prefix length");
        found.add(field, format!("{one}: valid is a subnet with a prefix length, {valid}"));
    }
}

/// Who packets go to is a host of the subnet.
fn hop(field: &str, address: IpAddr, cidr: IpNetwork, found: &mut Found) {
    if !cidr.contains(address) {
        found.add(field, format!("`{address}` is not in `{cidr}`"));
    } else if let (IpAddr::V4(address), IpNetwork::V4(cidr)) = (address, cidr)
        && let Some(part) = part_of_no_host(address, cidr)
    {
        let (first, last) = (cidr.network().to_bits() + 1, cidr.broadcast().to_bits() - 1);
        let (first, last) = (Ipv4Addr::from_bits(first), Ipv4Addr::from_bits(last));
        let message =
            format!("`{address}` is the {part} of `{cidr}`, which no host has: `{first}` to `{last}` are valid");
        found.add(field, message);
    }
}

/// What an address stands for that is the subnet's own. One of two addresses has none such (RFC 3021).
fn part_of_no_host(address: Ipv4Addr, cidr: Ipv4Network) -> Option<&'static str> {
    match address {
        _ if cidr.prefix() > 30 => None,
        address if address == cidr.network() => Some("network address"),
        address if address == cidr.broadcast() => Some("broadcast address"),
        _ => None,
    }
}

/// The addresses in a prefix that no NIC can be given, and what they are for.
pub(super) fn special(cidr: IpNetwork) -> Option<(IpNetwork, &'static str)> {
    NOT_GIVEN.iter().find_map(|(address, length, purpose)| {
        let special = IpNetwork::new(*address, *length).ok()?;
        overlap(cidr, special).then_some((special, *purpose))
    })
}

/// A prefix has no bits behind its length.
pub(super) fn prefix(prefix: IpNetwork) -> Option<String> {
    (prefix.ip() != prefix.network())
        .then(|| format!("`{prefix}` has bits behind the prefix: `{}/{}` has none", prefix.network(), prefix.prefix()))
}

fn put_prefix(field: &str, cidr: IpNetwork, found: &mut Found) {
    if let Some(message) = prefix(cidr) {
        found.add(field, message);
    }
}

pub(super) fn overlap(one: IpNetwork, other: IpNetwork) -> bool {
    one.contains(other.network()) || other.contains(one.network())
}
