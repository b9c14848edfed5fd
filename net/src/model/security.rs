//! What a port may say of itself.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::MacAddr;

/// Port security: the addresses that whoever is behind a port may use as its own. It may be no server of DHCP and no
/// router either: it announces none, whatever its addresses are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortSecurity {
    /// Its Ethernet addresses.
    pub macs: BTreeSet<MacAddr>,
    /// Its IPv4 addresses; none: any.
    pub ipv4: Option<BTreeSet<Ipv4Addr>>,
    /// Its IPv6 addresses, beside the link-local ones that follow from its Ethernet addresses; none: any.
    pub ipv6: Option<BTreeSet<Ipv6Addr>>,
}

impl PortSecurity {
    /// Its IPv6 addresses with the link-local ones; none: any.
    pub fn all_ipv6(&self) -> Option<BTreeSet<Ipv6Addr>> {
        let given = self.ipv6.as_ref()?;
        Some(given.iter().copied().chain(self.macs.iter().map(|mac| link_local(*mac))).collect())
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
