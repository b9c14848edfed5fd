//! Macvtap: the pod interface is a macvtap, and its frames are the guest's.
//!
//! ```text
//! guest -- macvtap (the guest's MAC, no address) -- uplink of the host
//! ```
//!
//! Nothing stands between guest and wire where DHCP could be answered: a frame that is sent on the macvtap leaves for
//! the wire, and only the wire reaches the guest.

use std::collections::{BTreeMap, BTreeSet};

use super::{bare_nic, claim};
use crate::desired::{DesiredState, Link, LinkKind};
use crate::model::{Binding, GuestNic};

pub(super) fn desired(binding: &Binding) -> DesiredState {
    let (mut state, netns) = claim(binding);
    let pod = state.namespace(&netns);
    let mut link = Link::new(LinkKind::Existing);
    link.mac = Some(binding.guest_mac);
    link.addresses = Some(BTreeSet::new());
    link.routes = Some(BTreeSet::new());
    link.neighbours = Some(BTreeMap::new());
    link.up = Some(true);
    pod.links.insert(binding.pod_interface.clone(), link);
    pod.sysctls.insert(format!("net/ipv6/conf/{}/disable_ipv6", binding.pod_interface), "1".to_owned());
    state
}

pub(super) fn guest_nic(binding: &Binding) -> GuestNic {
    let addresses = match &binding.delivery {
        Some(delivery) => delivery.addresses.clone(),
        None => binding.pod.addresses.clone(),
    };
    GuestNic { tap: binding.pod_interface.clone(), macvtap: true, addresses, ..bare_nic(binding) }
}
