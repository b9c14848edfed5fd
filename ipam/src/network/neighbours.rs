//! The networks that share a segment: what one of them keeps back (gateways, name servers, next hops, what is excluded,
//! the subnet's own addresses) none of them gives out.
//!
//! Asked when an address is given out, so it holds whichever of them came first, and whatever was changed since. An
//! UnderlayNetwork keeps back for all, for an administrator made it; an inline configuration for itself alone.

use std::net::IpAddr;

use holdfast_api::pool::{Pool, keeps_back};
use holdfast_api::underlay::{Subnet, UnderlayNetwork};

use super::Addressing;

/// Another UnderlayNetwork of the same segment.
#[derive(Clone, Debug, PartialEq)]
pub struct Neighbour {
    /// Its name.
    pub name: String,
    /// Its subnets, which say what it keeps back.
    pub subnets: Vec<Subnet>,
}

/// Those of `underlays` that are on `segment`, without the one of the name `own`.
pub(crate) fn neighbours(own: Option<&str>, segment: &str, underlays: &[&UnderlayNetwork]) -> Vec<Neighbour> {
    let named = underlays.iter().map(|network| (network.metadata.name.as_deref().unwrap_or_default(), *network));
    let others = named.filter(|(name, network)| Some(*name) != own && network.spec.segment(name) == segment);
    others.map(|(name, network)| Neighbour { name: name.to_owned(), subnets: network.spec.subnets.clone() }).collect()
}

/// What a network of a segment gives out of one of its subnets, beside its neighbours.
pub(crate) fn pool<'a>(subnet: &Subnet, neighbours: impl IntoIterator<Item = &'a Neighbour>) -> Pool {
    let others = neighbours.into_iter().flat_map(|neighbour| &neighbour.subnets);
    others.fold(Pool::of(subnet), Pool::beside)
}

impl Addressing {
    /// The neighbour that keeps `address` back.
    pub(crate) fn kept_back_by(&self, address: IpAddr) -> Option<&Neighbour> {
        let keeps = |neighbour: &&Neighbour| neighbour.subnets.iter().any(|subnet| keeps_back(subnet, address));
        self.neighbours.iter().find(keeps)
    }

    /// The names of the neighbours that keep back what these subnets would give out.
    pub(crate) fn kept_back_from(&self, subnets: &[&Subnet]) -> Vec<String> {
        let keeps =
            |neighbour: &&Neighbour| subnets.iter().any(|subnet| pool(subnet, [*neighbour]) != Pool::of(subnet));
        self.neighbours.iter().filter(keeps).map(|neighbour| neighbour.name.clone()).collect()
    }
}
