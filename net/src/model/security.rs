//! What a port may say of itself.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;

use ipnetwork::{Ipv4Network, Ipv6Network};
use serde::{Deserialize, Serialize};

use super::MacAddr;

/// Port security: the addresses that whoever is behind a port may use as its own, each IP address with each Ethernet
/// address: a router of VRRP says from its virtual Ethernet address who it is by its own IP address. It may be no server of
/// DHCP, and announce no router, whatever its addresses are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortSecurity {
    /// Its Ethernet addresses.
    pub macs: BTreeSet<MacAddr>,
    /// Its IPv4 addresses, as prefixes; none: any.
    pub ipv4: Option<BTreeSet<Ipv4Network>>,
    /// Its IPv6 addresses, as prefixes, beside the link-local ones that follow from its Ethernet addresses; none: any.
    pub ipv6: Option<BTreeSet<Ipv6Network>>,
}

impl PortSecurity {
    /// Its IPv6 addresses with the link-local ones; none: any.
    pub fn all_ipv6(&self) -> Option<BTreeSet<Ipv6Network>> {
        let given = self.ipv6.as_ref()?;
        Some(given.iter().copied().chain(self.macs.iter().map(|mac| link_local(*mac).into())).collect())
    }

    /// Whether it may use any IP address, and with that any protocol.
    pub fn is_unlimited(&self) -> bool {
        self.ipv4.is_none() && self.ipv6.is_none()
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
            ipv4: None,
            ipv6: Some(["2001:db8::7".parse().unwrap()].into()),
        };
        let expected = ["2001:db8::7", "fe80::ff:fe00:1"].map(|address| address.parse().unwrap());
        assert_eq!(security.all_ipv6(), Some(expected.into()));
        assert_eq!(PortSecurity { ipv6: None, ..security }.all_ipv6(), None);
    }
}
