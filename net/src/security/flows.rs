//! Port security on an OVS bridge: flows of table 0 for what comes in through one port. What passes is handled as on a
//! bridge without flows (action NORMAL).
//!
//! Invariant: the cookie of a flow is our mark and a hash of all that the flow says, so that flows that are read back
//! are compared by their cookies, and nothing ever parses their matches.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnetwork::{Ipv4Network, Ipv6Network};
use sha2::{Digest, Sha256};

use super::{
    DHCP_CLIENT, DHCP_SERVER, DHCPV6_SERVER, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, LISTENER_REPORT,
    NEIGHBOUR_ADVERTISEMENT, NEIGHBOUR_SOLICITATION, PROTOCOL_ICMPV6, PROTOCOL_UDP, REDIRECT, ROUTER_ADVERTISEMENT,
};
use crate::model::{AttachmentId, MacAddr, PortSecurity};

/// The upper half of the cookie of each of our flows: "HFST" in ASCII.
pub const COOKIE: u64 = 0x4846_5354 << 32;
/// The part of a cookie that is our mark.
pub const COOKIE_MASK: u64 = 0xffff_ffff << 32;

/// Priorities, above what an administrator would choose.
const REFUSED: u16 = 61_000;
const CHECKED: u16 = 60_900;
const UNCHECKED: u16 = 60_800;
const PASSED: u16 = 60_700;
const REST: u16 = 60_600;

/// A flow for what comes in through a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Of the flows that match, that with the highest decides.
    pub priority: u16,
    /// What must hold beside the port, in the order in which OpenFlow wants them: a field after those that it needs.
    pub fields: Vec<Field>,
    /// Whether it passes; else it is lost.
    pub passes: bool,
}

/// A field of a frame with its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// No VLAN tag.
    Untagged,
    /// Ethernet source.
    Source(MacAddr),
    /// Ethernet type.
    EtherType(u16),
    /// Protocol of IP.
    Protocol(u8),
    /// IPv4 source.
    Ipv4Source(Ipv4Network),
    /// IPv6 source.
    Ipv6Source(Ipv6Network),
    /// UDP source port.
    UdpSource(u16),
    /// UDP destination port.
    UdpDestination(u16),
    /// IPv4 address of the sender in ARP.
    ArpAddress(Ipv4Network),
    /// Ethernet address of the sender in ARP.
    ArpMac(MacAddr),
    /// Type of ICMPv6.
    Icmpv6Type(u8),
    /// Target of neighbour discovery.
    NdTarget(Ipv6Network),
    /// Source link-layer address of neighbour discovery; all zero where there is none.
    NdSource(MacAddr),
    /// Target link-layer address of neighbour discovery; all zero where there is none.
    NdTargetMac(MacAddr),
}

impl Flow {
    /// Its cookie as a flow of this attachment, whose port has this number.
    pub fn cookie(&self, id: &AttachmentId, port: u32) -> u64 {
        let [a, b, c, d, ..]: [u8; 32] = Sha256::digest(format!("{id} {port} {self}").as_bytes()).into();
        COOKIE | u64::from(u32::from_be_bytes([a, b, c, d]))
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { priority, fields, passes } = self;
        write!(f, "{priority} {fields:?} {}", if *passes { "normal" } else { "drop" })
    }
}

/// The flows of a port. Where `tagged` is set, its frames may have a VLAN tag, and the switch says which.
pub fn flows(security: &PortSecurity, tagged: bool) -> Vec<Flow> {
    let mut flows = Flows { start: if tagged { Vec::new() } else { vec![Field::Untagged] }, flows: Vec::new() };
    flows.refuse_servers();
    for mac in &security.macs {
        flows.pass_ipv4(*mac, security.ipv4.as_ref());
        flows.pass_ipv6(*mac, security.all_ipv6().as_ref());
        if security.is_unlimited() {
            flows.pass(PASSED, *mac, &[]);
        }
    }
    let mut flows = flows.flows;
    flows.push(Flow { priority: REST, fields: Vec::new(), passes: false });
    flows
}

struct Flows {
    /// With what each match that passes begins.
    start: Vec<Field>,
    flows: Vec<Flow>,
}

impl Flows {
    fn refuse(&mut self, priority: u16, fields: &[Field]) {
        self.flows.push(Flow { priority, fields: fields.to_vec(), passes: false });
    }

    fn pass(&mut self, priority: u16, mac: MacAddr, fields: &[Field]) {
        let fields = [self.start.as_slice(), &[Field::Source(mac)], fields].concat();
        self.flows.push(Flow { priority, fields, passes: true });
    }

    fn refuse_servers(&mut self) {
        let udp = |ethertype| [Field::EtherType(ethertype), Field::Protocol(PROTOCOL_UDP)];
        let [ipv4, ipv6] = [udp(ETHERTYPE_IPV4), udp(ETHERTYPE_IPV6)];
        self.refuse(REFUSED, &[&ipv4[..], &[Field::UdpSource(DHCP_SERVER)]].concat());
        self.refuse(REFUSED, &[&ipv4[..], &[Field::UdpDestination(DHCP_CLIENT)]].concat());
        self.refuse(REFUSED, &[&ipv6[..], &[Field::UdpSource(DHCPV6_SERVER)]].concat());
        for kind in [ROUTER_ADVERTISEMENT, REDIRECT] {
            self.refuse(REFUSED, &icmpv6(kind));
        }
    }

    fn pass_ipv4(&mut self, mac: MacAddr, own: Option<&BTreeSet<Ipv4Network>>) {
        let (arp, ipv4) = (Field::EtherType(ETHERTYPE_ARP), Field::EtherType(ETHERTYPE_IPV4));
        self.refuse(UNCHECKED, &[arp]);
        let Some(own) = own else {
            self.pass(CHECKED, mac, &[arp, Field::ArpMac(mac)]);
            self.pass(PASSED, mac, &[ipv4]);
            return;
        };
        // Without an address: who asks whether one is free (RFC 5227).
        for address in own.iter().copied().chain([Ipv4Addr::UNSPECIFIED.into()]) {
            self.pass(CHECKED, mac, &[arp, Field::ArpAddress(address), Field::ArpMac(mac)]);
        }
        let udp = [ipv4, Field::Protocol(PROTOCOL_UDP), Field::Ipv4Source(Ipv4Addr::UNSPECIFIED.into())];
        let ports = [Field::UdpSource(DHCP_CLIENT), Field::UdpDestination(DHCP_SERVER)];
        self.pass(CHECKED, mac, &[&udp[..], &ports].concat());
        for address in own {
            self.pass(PASSED, mac, &[ipv4, Field::Ipv4Source(*address)]);
        }
    }

    fn pass_ipv6(&mut self, mac: MacAddr, own: Option<&BTreeSet<Ipv6Network>>) {
        let ipv6 = Field::EtherType(ETHERTYPE_IPV6);
        let Some(own) = own else { return self.pass(PASSED, mac, &[ipv6]) };
        let unspecified = Field::Ipv6Source(Ipv6Addr::UNSPECIFIED.into());
        for kind in [NEIGHBOUR_SOLICITATION, LISTENER_REPORT] {
            let [ethertype, protocol, kind] = icmpv6(kind);
            self.pass(CHECKED, mac, &[ethertype, protocol, unspecified, kind]);
        }
        for address in own {
            let source = Field::Ipv6Source(*address);
            for known in [mac, NONE] {
                let [ethertype, protocol, kind] = icmpv6(NEIGHBOUR_SOLICITATION);
                self.pass(CHECKED, mac, &[ethertype, protocol, source, kind, Field::NdSource(known)]);
                let [ethertype, protocol, kind] = icmpv6(NEIGHBOUR_ADVERTISEMENT);
                for target in own {
                    let target = [Field::NdTarget(*target), Field::NdTargetMac(known)];
                    self.pass(CHECKED, mac, &[&[ethertype, protocol, source, kind], &target[..]].concat());
                }
            }
            self.pass(PASSED, mac, &[ipv6, source]);
        }
        for kind in [NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT] {
            self.refuse(UNCHECKED, &icmpv6(kind));
        }
    }
}

/// What a switch reads where neighbour discovery tells no link-layer address.
const NONE: MacAddr = MacAddr([0; 6]);

fn icmpv6(kind: u8) -> [Field; 3] {
    [Field::EtherType(ETHERTYPE_IPV6), Field::Protocol(PROTOCOL_ICMPV6), Field::Icmpv6Type(kind)]
}
