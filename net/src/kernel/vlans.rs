//! VLANs of bridge ports (RTM_NEWVLAN and the like of linux/if_bridge.h): read and set for one port, which takes as long
//! however many ports the bridge has. The older dump of IFLA_AF_SPEC is of all links of the namespace.

use std::io;

use super::links;
use super::netlink::{NLM_F_DUMP, Netlink};
use crate::model::{IfName, PortVlans, VlanFlags};

/// Types of messages, of which those of the first tell of changes, too.
const RTM_NEWVLAN: u16 = 112;
const RTM_DELVLAN: u16 = 113;
const RTM_GETVLAN: u16 = 114;
/// Family of struct br_vlan_msg, and its length.
const AF_BRIDGE: u8 = 7;
const HEADER: usize = 8;
/// Attributes: BRIDGE_VLANDB_ENTRY, and _INFO and _RANGE inside of it.
const ENTRY: u16 = 1;
const INFO: u16 = 1;
const RANGE: u16 = 2;
/// Bits of an attribute's type that are none of it.
const NESTED: u16 = 0x8000;
const TYPE: u16 = 0x3fff;
/// Flags of struct bridge_vlan_info.
const PVID: u16 = 2;
const UNTAGGED: u16 = 4;

/// The VLANs that a port is a member of.
pub(super) fn read(route: &mut Netlink, index: u32) -> io::Result<PortVlans> {
    let answers = route.exchange(RTM_GETVLAN, NLM_F_DUMP, &header(index))?;
    let mut vlans = PortVlans::new();
    for (kind, payload) in answers {
        let of = payload.get(4..HEADER).and_then(|bytes| bytes.first_chunk()).map(|bytes| u32::from_ne_bytes(*bytes));
        if kind != RTM_NEWVLAN || of != Some(index) {
            continue;
        }
        let entries = Attributes(payload.get(HEADER..).unwrap_or_default());
        for (_, entry) in entries.filter(|(kind, _)| *kind == ENTRY) {
            vlans.extend(parse_entry(entry));
        }
    }
    Ok(vlans)
}

/// Brings the VLANs of a port to these and no others.
pub(super) fn set(route: &mut Netlink, link: &IfName, wanted: &PortVlans) -> io::Result<()> {
    let index = links::index(link)?;
    let present = read(route, index)?;
    // Those that are wanted come first: the port is never in none.
    let missing = wanted.iter().filter(|(id, flags)| present.get(*id) != Some(*flags));
    let surplus = present.iter().filter(|(id, _)| !wanted.contains_key(*id));
    change(route, RTM_NEWVLAN, index, missing)?;
    change(route, RTM_DELVLAN, index, surplus)
}

fn change<'a>(
    route: &mut Netlink,
    kind: u16,
    index: u32,
    vlans: impl Iterator<Item = (&'a u16, &'a VlanFlags)>,
) -> io::Result<()> {
    let mut payload = header(index).to_vec();
    vlans.for_each(|(id, flags)| payload.extend(entry(*id, *flags)));
    if payload.len() == HEADER {
        return Ok(());
    }
    route.exchange(kind, 0, &payload).map(drop)
}

/// struct br_vlan_msg.
fn header(index: u32) -> [u8; HEADER] {
    let [a, b, c, d] = index.to_ne_bytes();
    [AF_BRIDGE, 0, 0, 0, a, b, c, d]
}

/// BRIDGE_VLANDB_ENTRY with its info.
fn entry(id: u16, flags: VlanFlags) -> Vec<u8> {
    let bits = if flags.pvid { PVID } else { 0 } | if flags.untagged { UNTAGGED } else { 0 };
    [12, ENTRY | NESTED, 8, INFO, bits, id].iter().flat_map(|number| number.to_ne_bytes()).collect()
}

/// The VLANs of an entry: one, or a range of them that are alike.
fn parse_entry(entry: &[u8]) -> Vec<(u16, VlanFlags)> {
    let number = |bytes: &[u8]| bytes.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes));
    let (mut info, mut last) = (None, None);
    for (kind, value) in Attributes(entry) {
        match kind {
            INFO => info = number(value).zip(value.get(2..).and_then(number)),
            RANGE => last = number(value),
            _ => {}
        }
    }
    let Some((bits, first)) = info else { return Vec::new() };
    let flags = VlanFlags { pvid: bits & PVID != 0, untagged: bits & UNTAGGED != 0 };
    (first..=last.unwrap_or(first)).map(|id| (id, flags)).collect()
}

/// Type and value of each attribute; it ends where one is cut off.
struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let [l0, l1, k0, k1, ..] = *self.0 else { return None };
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([k0, k1]) & TYPE, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_entries_that_it_writes_and_ranges() {
        let flags = VlanFlags { pvid: true, untagged: true };
        let written = entry(7, flags);
        let (kind, inner) = Attributes(&written).next().unwrap();
        assert_eq!((kind, parse_entry(inner)), (ENTRY, vec![(7, flags)]));
        let range = [8, INFO, 0, 5, 6, RANGE, 7, 0].iter().flat_map(|number: &u16| number.to_ne_bytes());
        let range: Vec<u8> = range.collect();
        let tagged = VlanFlags::default();
        assert_eq!(parse_entry(&range), [(5, tagged), (6, tagged), (7, tagged)]);
        for length in 0..8 {
            assert_eq!(parse_entry(&range[..length]), []);
        }
    }
}
