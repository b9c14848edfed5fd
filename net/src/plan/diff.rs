//! What differs between a link as it is and as it shall be.

use crate::desired::{Link, Netns, PortFlags, TxChecksum};
use crate::mark::LinkMark;
use crate::model::IfName;
use crate::observed::{Master, ObservedLink, ObservedPortFlags, ObservedState};
use crate::op::Op;

/// A link that is there, or will be when its turn comes.
pub(super) struct Target<'a> {
    pub(super) observed: &'a ObservedState,
    pub(super) netns: &'a Netns,
    pub(super) name: &'a IfName,
}

impl Target<'_> {
    fn at(&self) -> (Netns, IfName) {
        (self.netns.clone(), self.name.clone())
    }

    /// Adds the steps that bring the link to what shall be.
    pub(super) fn diff(&self, want: &Link, have: &ObservedLink, ops: &mut Vec<Op>) {
        self.diff_hardware(want, have, ops);
        self.diff_port(want, have, ops);
        if let Some(up) = want.up.filter(|up| have.up != *up) {
            let (netns, link) = self.at();
            ops.push(Op::SetUp { netns, link, up });
        }
        self.diff_addresses(want, have, ops);
        if let Some(shaper) = want.shaper.filter(|shaper| have.shaper != Some(*shaper)) {
            let (netns, link) = self.at();
            ops.push(Op::SetShaper { netns, link, shaper });
        }
        self.diff_neighbours(want, have, ops);
    }

    fn diff_hardware(&self, want: &Link, have: &ObservedLink, ops: &mut Vec<Op>) {
        if let Some(mark) = want.kind.mark()
            && have.mark != LinkMark::Ours(mark.clone())
        {
            let (netns, link) = self.at();
            ops.push(Op::SetMark { netns, link, mark: mark.clone() });
        }
        if let Some(mac) = want.mac.filter(|mac| have.mac != Some(*mac)) {
            let (netns, link) = self.at();
            ops.push(Op::SetMac { netns, link, mac });
        }
        if let Some(mtu) = want.mtu.filter(|mtu| have.mtu != *mtu) {
            let (netns, link) = self.at();
            ops.push(Op::SetMtu { netns, link, mtu });
        }
        if self.checksum_off(&want.tx_checksum) && have.tx_checksum != Some(false) {
            let (netns, link) = self.at();
            ops.push(Op::DisableTxChecksum { netns, link });
        }
    }

    fn checksum_off(&self, wanted: &TxChecksum) -> bool {
        match wanted {
            TxChecksum::Any => false,
            TxChecksum::OffOnUserspaceBridge(bridge) => {
                let ovs = self.observed.ovs.as_ref();
                ovs.and_then(|ovs| ovs.bridges.get(bridge)).is_some_and(|bridge| bridge.userspace)
            }
        }
    }

    fn diff_port(&self, want: &Link, have: &ObservedLink, ops: &mut Vec<Op>) {
        let (mut present, mut vlans) = (have.port, have.vlans.as_ref());
        match &want.master {
            Some(master) if have.master != Some(Master::Name(master.clone())) => {
                let (netns, link) = self.at();
                ops.push(Op::SetMaster { netns, link, master: master.clone() });
                // What was read is of the bridge before; a new port begins with the defaults.
                (present, vlans) = (None, None);
            }
            None if want.kind.mark().is_some() => {
                // A port of the kernel's Open vSwitch has a master as well: that one is the switch's affair.
                if have.port.is_some() {
                    let (netns, link) = self.at();
                    ops.push(Op::ClearMaster { netns, link });
                }
                return;
            }
            Some(_) | None => {}
        }
        let flags = missing_flags(want.port, present);
        if flags != PortFlags::default() {
            let (netns, link) = self.at();
            ops.push(Op::SetPortFlags { netns, link, flags });
        }
        if let Some(wanted) = want.vlans.as_ref().filter(|wanted| vlans != Some(*wanted)) {
            let (netns, link) = self.at();
            ops.push(Op::SetPortVlans { netns, link, vlans: wanted.clone() });
        }
    }

    fn diff_addresses(&self, want: &Link, have: &ObservedLink, ops: &mut Vec<Op>) {
        if let Some(wanted) = &want.addresses {
            for address in have.addresses.difference(wanted) {
                let (netns, link) = self.at();
                ops.push(Op::RemoveAddress { netns, link, address: *address });
            }
            for address in wanted.difference(&have.addresses) {
                let (netns, link) = self.at();
                ops.push(Op::AddAddress { netns, link, address: *address });
            }
        }
        if let Some(wanted) = &want.routes {
            for route in have.routes.difference(wanted) {
                let (netns, link) = self.at();
                ops.push(Op::RemoveRoute { netns, link, route: route.clone() });
            }
            for route in wanted.difference(&have.routes) {
                let (netns, link) = self.at();
                ops.push(Op::AddRoute { netns, link, route: route.clone() });
            }
        }
    }

    fn diff_neighbours(&self, want: &Link, have: &ObservedLink, ops: &mut Vec<Op>) {
        let Some(wanted) = &want.neighbours else { return };
        for address in have.neighbours.keys().filter(|address| !wanted.contains_key(address)) {
            let (netns, link) = self.at();
            ops.push(Op::RemoveNeighbour { netns, link, address: *address });
        }
        for (address, mac) in wanted.iter().filter(|(address, mac)| have.neighbours.get(address) != Some(mac)) {
            let (netns, link) = self.at();
            ops.push(Op::SetNeighbour { netns, link, address: *address, mac: *mac });
        }
    }
}

/// The flags that differ; all where nothing is known of the port.
fn missing_flags(want: PortFlags, have: Option<ObservedPortFlags>) -> PortFlags {
    let PortFlags { learning, isolated, hairpin } = want;
    PortFlags {
        learning: learning.filter(|flag| have.is_none_or(|have| have.learning != *flag)),
        isolated: isolated.filter(|flag| have.is_none_or(|have| have.isolated != *flag)),
        hairpin: hairpin.filter(|flag| have.is_none_or(|have| have.hairpin != *flag)),
    }
}
