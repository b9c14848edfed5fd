//! Port security, as flows of an OVS bridge and as rules of a Linux bridge. Both say the same:
//!
//! - who is behind a port sends from its own Ethernet addresses, in frames and in ARP alike;
//! - it serves no DHCP, and announces no router and no redirect;
//! - where its addresses of a family are known, it sends from those, and claims no other by ARP or neighbour discovery;
//!   what is neither ARP nor IP is lost then.
//!
//! Fields of neighbour discovery are looked at where they nearly always are: the link-layer address as first option.

pub mod flows;
pub mod rules;

/// UDP ports of DHCPv4 (RFC 2131) and of a DHCPv6 server (RFC 8415).
const DHCP_SERVER: u16 = 67;
const DHCP_CLIENT: u16 = 68;
const DHCPV6_SERVER: u16 = 547;
/// Types of ICMPv6 (RFC 4861, RFC 3810).
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;
const LISTENER_REPORT: u8 = 143;
/// Types of Ethernet frames, and protocols of IP.
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const PROTOCOL_UDP: u8 = 17;
const PROTOCOL_ICMPV6: u8 = 58;
