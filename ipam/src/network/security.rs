//! What a port of a network may say of itself: what its NIC holds, and the address pairs that the NIC asks for.

use std::collections::BTreeSet;

use holdfast_api::underlay::{AddressPair, pairs_refusal};
use holdfast_net::model::{Backend, MacAddr, PortSecurity};
use ipnetwork::IpNetwork;

use super::{Addressing, NetworkConfig};

/// A NIC asks for address pairs that it cannot have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("network `{network}`: {why}")]
pub struct PairsError {
    network: String,
    why: String,
}

impl Addressing {
    /// Whether a NIC may use these beside its own addresses.
    ///
    /// # Errors
    /// [`PairsError`] names what it may not, and what it may.
    pub fn check_pairs(&self, asked: &[AddressPair]) -> Result<(), PairsError> {
        let others = self.neighbours.iter().flat_map(|neighbour| &neighbour.subnets);
        match pairs_refusal(asked, &self.allowed_address_pairs, self.subnets.iter().chain(others)) {
            Some(why) => Err(PairsError { network: self.name.clone(), why }),
            None => Ok(()),
        }
    }
}

impl NetworkConfig {
    /// What the one with these addresses may say of itself; none: anything.
    ///
    /// Of a family in which the network gives no addresses nobody knows who has which. On a trunk that holds for both:
    /// what is in its VLANs are other networks.
    pub fn security(&self, mac: MacAddr, addresses: &[IpNetwork], pairs: &[AddressPair]) -> Option<PortSecurity> {
        let trunk = match &self.backend {
            Backend::Ovs { vlan, .. } | Backend::LinuxBridge { vlan, .. } => vlan.takes_tags(),
            Backend::Macvtap { .. } => false,
        };
        let given = |is_ipv4| !trunk && self.addressing.subnets.iter().any(|subnet| subnet.cidr.is_ipv4() == is_ipv4);
        // An address comes with its subnet's prefix, and is the only one of it that the NIC has.
        let own = addresses.iter().map(|address| IpNetwork::from(address.ip()));
        let all: BTreeSet<IpNetwork> = own.chain(pairs.iter().map(|pair| pair.cidr)).collect();
        let ipv4 = all.iter().filter_map(|prefix| match prefix {
            IpNetwork::V4(prefix) => Some(*prefix),
            IpNetwork::V6(_) => None,
        });
        let ipv6 = all.iter().filter_map(|prefix| match prefix {
            IpNetwork::V6(prefix) => Some(*prefix),
            IpNetwork::V4(_) => None,
        });
        let macs = pairs.iter().filter_map(|pair| pair.mac.as_ref()?.parse().ok());
        self.port_security.then(|| PortSecurity {
            macs: macs.chain([mac]).collect(),
            ipv4: given(true).then(|| ipv4.collect()),
            ipv6: given(false).then(|| ipv6.collect()),
        })
    }
}
