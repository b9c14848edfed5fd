//! Port security on Linux bridges: one chain of nftables for all ports, before any bridge takes their frames in, and
//! sets of what each port may use. A port costs elements of sets, never a rule.
//!
//! Invariant: the comment of a rule ends with a hash of all that the rule says, so that rules that are read back are
//! compared by their comments.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use sha2::{Digest, Sha256};

use super::{
    DHCP_CLIENT, DHCP_SERVER, DHCPV6_SERVER, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, LISTENER_REPORT,
    NEIGHBOUR_ADVERTISEMENT, NEIGHBOUR_SOLICITATION, PROTOCOL_ICMPV6, PROTOCOL_UDP, REDIRECT, ROUTER_ADVERTISEMENT,
};
use crate::model::{IfName, PortSecurity};

/// A set whose keys begin with the name of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Set {
    /// The ports that are secured.
    Ports,
    /// Those whose IPv4 addresses are known.
    Ipv4Limited,
    /// Those whose IPv6 addresses are known.
    Ipv6Limited,
    /// A port and an Ethernet address of its.
    Sources,
    /// A port and an IPv4 address of its.
    Ipv4,
    /// A port and an IPv6 address of its.
    Ipv6,
    /// A port and the first and the last address of an IPv4 prefix of its.
    Ipv4Prefixes,
    /// A port and the first and the last address of an IPv6 prefix of its.
    Ipv6Prefixes,
    /// The ports whose frames may have a VLAN tag; the bridge says which.
    Tagged,
}

impl Set {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Ports,
        Self::Ipv4Limited,
        Self::Ipv6Limited,
        Self::Sources,
        Self::Ipv4,
        Self::Ipv6,
        Self::Ipv4Prefixes,
        Self::Ipv6Prefixes,
        Self::Tagged,
    ];

    /// Its name in nftables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ports => "ports",
            Self::Tagged => "tagged",
            Self::Ipv4Limited => "ipv4-limited",
            Self::Ipv6Limited => "ipv6-limited",
            Self::Sources => "sources",
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::Ipv4Prefixes => "ipv4-prefixes",
            Self::Ipv6Prefixes => "ipv6-prefixes",
        }
    }

    /// Whether its elements are intervals. The kernel looks those up one after the other, and copies all of them at each
    /// change: an address that is known is none.
    pub fn is_of_intervals(self) -> bool {
        matches!(self, Self::Ipv4Prefixes | Self::Ipv6Prefixes)
    }

    /// Bytes of an address in its keys; 0 where they are ports alone.
    pub fn address_length(self) -> usize {
        match self {
            Self::Ports | Self::Tagged | Self::Ipv4Limited | Self::Ipv6Limited => 0,
            Self::Sources => 6,
            Self::Ipv4 | Self::Ipv4Prefixes => 4,
            Self::Ipv6 | Self::Ipv6Prefixes => 16,
        }
    }
}

/// An element of a set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Element {
    /// The set.
    pub set: Set,
    /// Name of the port.
    pub port: IfName,
    /// The address, as it is in frames; of the length that the set says. Of an interval, the first and the last one.
    pub address: Vec<u8>,
}

/// The elements of a port.
pub fn elements(port: &IfName, security: &PortSecurity) -> BTreeSet<Element> {
    let element = |set, address: &[u8]| Element { set, port: port.clone(), address: address.to_vec() };
    let mut elements = BTreeSet::from([element(Set::Ports, &[])]);
    elements.extend(security.macs.iter().map(|mac| element(Set::Sources, &mac.octets())));
    if let Some(own) = &security.ipv4 {
        elements.insert(element(Set::Ipv4Limited, &[]));
        let (addresses, prefixes) = parted(own.iter().map(|prefix| IpNetwork::V4(*prefix)));
        elements.extend(addresses.iter().map(|address| element(Set::Ipv4, address)));
        elements.extend(prefixes.iter().map(|bounds| element(Set::Ipv4Prefixes, bounds)));
    }
    if let Some(own) = security.all_ipv6() {
        elements.insert(element(Set::Ipv6Limited, &[]));
        let (addresses, prefixes) = parted(own.iter().map(|prefix| IpNetwork::V6(*prefix)));
        elements.extend(addresses.iter().map(|address| element(Set::Ipv6, address)));
        elements.extend(prefixes.iter().map(|bounds| element(Set::Ipv6Prefixes, bounds)));
    }
    elements
}

/// Single addresses, and the bounds of prefixes; without prefixes within others, for the kernel refuses intervals that
/// overlap.
fn parted(own: impl Iterator<Item = IpNetwork>) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let is_address = |prefix: &IpNetwork| prefix.network() == prefix.broadcast();
    let (addresses, prefixes): (Vec<IpNetwork>, Vec<IpNetwork>) = own.partition(is_address);
    let is_within =
        |one: &IpNetwork| prefixes.iter().any(|other| other.prefix() < one.prefix() && other.contains(one.network()));
    let bounds = prefixes
        .iter()
        .filter(|prefix| !is_within(prefix))
        .map(|prefix| [octets(prefix.network()), octets(prefix.broadcast())].concat());
    (addresses.iter().map(|address| octets(address.ip())).collect(), bounds.collect())
}

/// The element of a port whose frames may have a VLAN tag.
pub fn tagged(port: &IfName) -> Element {
    Element { set: Set::Tagged, port: port.clone(), address: Vec::new() }
}

/// Where bytes of a frame are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// From the start of the Ethernet header.
    Link,
    /// From the start of what the frame carries.
    Network,
    /// From the start of what the packet carries.
    Transport,
}

/// Bytes of a frame: of which header, from where, how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub Header, pub u8, pub u8);

/// A condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// The port that the frame came in through is in a set, or is not.
    Port(Set, bool),
    /// The port and these bytes are in a set, or are not.
    With(Bytes, Set, bool),
    /// These bytes are those.
    Is(Bytes, Vec<u8>),
    /// The protocol of the packet, behind all of its headers.
    Protocol(u8),
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What it is about, for people.
    pub name: &'static str,
    /// All of them must hold.
    pub checks: Vec<Check>,
    /// Whether the frame passes then; else it is lost.
    pub passes: bool,
}

impl Rule {
    /// Its comment in the kernel.
    pub fn comment(&self) -> String {
        let digest: [u8; 32] = Sha256::digest(format!("{self:?}").as_bytes()).into();
        let mut comment = format!("{} #", self.name);
        for byte in digest.iter().take(4) {
            // Writing to a text cannot fail.
            let _ = write!(comment, "{byte:02x}");
        }
        comment
    }
}

const SOURCE: Bytes = Bytes(Header::Link, 6, 6);
const ETHERTYPE: Bytes = Bytes(Header::Link, 12, 2);
const ARP_MAC: Bytes = Bytes(Header::Network, 8, 6);
const ARP_ADDRESS: Bytes = Bytes(Header::Network, 14, 4);
const IPV4_SOURCE: Bytes = Bytes(Header::Network, 12, 4);
const IPV6_SOURCE: Bytes = Bytes(Header::Network, 8, 16);
const SOURCE_PORT: Bytes = Bytes(Header::Transport, 0, 2);
const DESTINATION_PORT: Bytes = Bytes(Header::Transport, 2, 2);
const ICMP_TYPE: Bytes = Bytes(Header::Transport, 0, 1);
const ND_TARGET: Bytes = Bytes(Header::Transport, 8, 16);
/// The first option of neighbour discovery: type and length, then a link-layer address.
const ND_OPTION: Bytes = Bytes(Header::Transport, 24, 2);
const ND_MAC: Bytes = Bytes(Header::Transport, 26, 6);
/// Source and target link-layer address, 8 bytes long (RFC 4861, section 4.6.1).
const SOURCE_OPTION: [u8; 2] = [1, 1];
const TARGET_OPTION: [u8; 2] = [2, 1];
/// What begins a tag (IEEE 802.1Q, 802.1ad).
const TAGS: [u16; 2] = [0x8100, 0x88a8];

/// The rules, in order.
pub fn rules() -> Vec<Rule> {
    let arp = || ethertype(ETHERTYPE_ARP);
    let (ipv4, ipv6) = (|| ethertype(ETHERTYPE_IPV4), || ethertype(ETHERTYPE_IPV6));
    let from = |port: u16| Check::Is(SOURCE_PORT, port.to_be_bytes().into());
    let to = |port: u16| Check::Is(DESTINATION_PORT, port.to_be_bytes().into());
    let udp = || Check::Protocol(PROTOCOL_UDP);
    let (unspecified4, unspecified6) = (|| Check::Is(IPV4_SOURCE, vec![0; 4]), || Check::Is(IPV6_SOURCE, vec![0; 16]));
    let foreign_mac = || Check::With(ND_MAC, Set::Sources, false);
    let mut rules = vec![
        passes("another's port", [Check::Port(Set::Ports, false)]),
        lost("source mac", [Check::With(SOURCE, Set::Sources, false)]),
    ];
    rules.extend(TAGS.map(|tag| lost("vlan tag", [ethertype(tag), Check::Port(Set::Tagged, false)])));
    rules.extend([
        lost("dhcp server", [ipv4(), udp(), from(DHCP_SERVER)]),
        lost("dhcp server", [ipv4(), udp(), to(DHCP_CLIENT)]),
        lost("dhcpv6 server", [ipv6(), udp(), from(DHCPV6_SERVER)]),
        lost("router advertisement", icmpv6(ROUTER_ADVERTISEMENT)),
        lost("redirect", icmpv6(REDIRECT)),
        lost("arp mac", [arp(), Check::With(ARP_MAC, Set::Sources, false)]),
        passes("any arp address", [arp(), Check::Port(Set::Ipv4Limited, false)]),
        passes("any ipv4 source", [ipv4(), Check::Port(Set::Ipv4Limited, false)]),
        passes("any ipv6 source", [ipv6(), Check::Port(Set::Ipv6Limited, false)]),
        passes("any protocol", [Check::Port(Set::Ipv4Limited, false), Check::Port(Set::Ipv6Limited, false)]),
        passes("arp probe", [arp(), Check::Is(ARP_ADDRESS, vec![0; 4])]),
        passes("arp address", [arp(), Check::With(ARP_ADDRESS, Set::Ipv4, true)]),
        passes("arp address in a prefix", [arp(), Check::With(ARP_ADDRESS, Set::Ipv4Prefixes, true)]),
        passes("dhcp client", [ipv4(), unspecified4(), udp(), from(DHCP_CLIENT), to(DHCP_SERVER)]),
        passes("ipv4 source", [ipv4(), Check::With(IPV4_SOURCE, Set::Ipv4, true)]),
        passes("ipv4 source in a prefix", [ipv4(), Check::With(IPV4_SOURCE, Set::Ipv4Prefixes, true)]),
        passes("duplicate address detection", with(icmpv6(NEIGHBOUR_SOLICITATION), unspecified6())),
        passes("listener report", with(icmpv6(LISTENER_REPORT), unspecified6())),
        lost(
            "nd target",
            with(
                with(icmpv6(NEIGHBOUR_ADVERTISEMENT), Check::With(ND_TARGET, Set::Ipv6, false)),
                Check::With(ND_TARGET, Set::Ipv6Prefixes, false),
            ),
        ),
    ]);
    for (kind, option) in [(NEIGHBOUR_ADVERTISEMENT, TARGET_OPTION), (NEIGHBOUR_SOLICITATION, SOURCE_OPTION)] {
        let told = with(icmpv6(kind), Check::Is(ND_OPTION, option.into()));
        rules.push(lost("nd mac", with(told, foreign_mac())));
    }
    rules.push(passes("ipv6 source", [ipv6(), Check::With(IPV6_SOURCE, Set::Ipv6, true)]));
    rules.push(passes("ipv6 source in a prefix", [ipv6(), Check::With(IPV6_SOURCE, Set::Ipv6Prefixes, true)]));
    rules.push(lost("the rest", []));
    rules
}

fn passes(name: &'static str, checks: impl Into<Vec<Check>>) -> Rule {
    Rule { name, checks: checks.into(), passes: true }
}

fn lost(name: &'static str, checks: impl Into<Vec<Check>>) -> Rule {
    Rule { name, checks: checks.into(), passes: false }
}

fn with(checks: impl Into<Vec<Check>>, last: Check) -> Vec<Check> {
    let mut checks = checks.into();
    checks.push(last);
    checks
}

fn ethertype(kind: u16) -> Check {
    Check::Is(ETHERTYPE, kind.to_be_bytes().into())
}

fn icmpv6(kind: u8) -> Vec<Check> {
    vec![ethertype(ETHERTYPE_IPV6), Check::Protocol(PROTOCOL_ICMPV6), Check::Is(ICMP_TYPE, vec![kind])]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_has_elements_for_all_that_it_may_use() {
        let port: IfName = "hf1".parse().unwrap();
        let macs = BTreeSet::from(["02:00:00:00:00:01".parse().unwrap()]);
        let any = PortSecurity { macs: macs.clone(), ipv4: None, ipv6: None };
        let sets = |security| elements(&port, security).into_iter().map(|element| element.set).collect::<Vec<_>>();
        assert_eq!(sets(&any), [Set::Ports, Set::Sources]);
        let limited = PortSecurity { macs, ipv4: Some(["192.0.2.7".parse().unwrap()].into()), ipv6: Some([].into()) };
        assert_eq!(sets(&limited), Set::ALL[..6]);
        assert!(elements(&port, &limited).iter().all(|element| element.address.len() == element.set.address_length()));
        let routing = PortSecurity {
            ipv4: Some(["10.0.0.0/8", "10.1.0.0/16", "192.0.2.7"].map(|prefix| prefix.parse().unwrap()).into()),
            ipv6: Some(["2001:db8:1::/48".parse().unwrap()].into()),
            ..limited.clone()
        };
        assert_eq!(sets(&routing), Set::ALL[..8]);
        let last = elements(&port, &routing).into_iter().next_back().unwrap();
        assert_eq!((last.set, last.address.len()), (Set::Ipv6Prefixes, 32));
    }

    #[test]
    fn each_rule_has_a_comment_of_its_own() {
        let comments: std::collections::BTreeSet<String> = rules().iter().map(Rule::comment).collect();
        assert_eq!(comments.len(), rules().len());
        assert!(comments.iter().all(|comment| comment.len() < 128));
    }
}
