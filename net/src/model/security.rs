//! What a port may say of itself.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::MacAddr;

/// Port security: the addresses that whoever is behind a port may use as its own. It may be no server of DHCP and no
/// router either: it announces none, whatever its addresses are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortSecurity {
    /// Its Ethernet addresses.
    pub macs: BTreeSet<MacAddr>,
    /// Its IP addresses; any where it is empty. The IPv6 link-local ones that follow from its Ethernet addresses are
    /// its own without being named.
    pub addresses: BTreeSet<IpAddr>,
}

impl PortSecurity {
    /// Whether it may only use some addresses.
    pub fn is_limited(&self) -> bool {
        !self.addresses.is_empty()
    }

    /// Its IPv4 addresses.
    pub fn ipv4(&self) -> BTreeSet<Ipv4Addr> {
        let ipv4 = self.addresses.iter().filter_map(|address| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        });
        ipv4.collect()
    }

    /// Its IPv6 addresses with the link-local ones.
    pub fn ipv6(&self) -> BTreeSet<Ipv6Addr> {
        let given = self.addresses.iter().filter_map(|address| match address {
            IpAddr::V6(address) => Some(*address),
            IpAddr::V4(_) => None,
        });
        given.chain(self.macs.iter().map(|mac| link_local(*mac))).collect()
    }
}

/// The link-local address of an Ethernet address (RFC 4291, appendix A).
fn link_local(mac: MacAddr) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.octets();
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_has_the_link_local_addresses_of_its_macs() {
        let security = PortSecurity {
            macs: BTreeSet::from(["02:00:00:00:00:01".parse().unwrap()]),
            addresses: ["192.0.2.7", "2001:db8::7"].map(|address| address.parse().unwrap()).into(),
        };
        assert_eq!(security.ipv4(), ["192.0.2.7".parse().unwrap()].into());
        assert_eq!(security.ipv6(), ["2001:db8::7", "fe80::ff:fe00:1"].map(|a| a.parse().unwrap()).into());
    }
}
