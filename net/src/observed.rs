//! What is: read from the kernel and from OVSDB, within the scope of one desired state.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::desired::{Netns, Route, Tap};
use crate::mark::{LinkMark, OwnedLink, OwnedTable};
use crate::model::{AttachmentId, IfName, MacAddr, MacvlanMode, PortVlans, Shaper, Vlan};
use crate::security::rules::Element;
use crate::table::ObservedTable;

/// What is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedState {
    /// By namespace; a namespace that does not exist has no entry.
    pub namespaces: BTreeMap<Netns, ObservedNamespace>,
    /// Open vSwitch; none where it was not asked for or is not there.
    pub ovs: Option<ObservedOvs>,
}

/// What is in one namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedNamespace {
    /// Links, by name. In the host's namespace only those in scope.
    pub links: BTreeMap<IfName, ObservedLink>,
    /// Kernel settings that were asked for and exist.
    pub sysctls: BTreeMap<String, String>,
    /// Whether the kernel has IPv6 here.
    pub ipv6: bool,
    /// Our nftables tables.
    pub tables: BTreeMap<OwnedTable, ObservedTable>,
    /// Port security; none where it was not asked for.
    pub guard: Option<ObservedGuard>,
}

/// The table of port security.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedGuard {
    /// Comments of its rules, in order; none where there is no table.
    pub rules: Vec<String>,
    /// What is in its sets.
    pub elements: BTreeSet<Element>,
}

/// A link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedLink {
    /// The kernel's number for it, from 1.
    pub index: u32,
    /// What it is.
    pub kind: ObservedKind,
    /// Whose it is.
    pub mark: LinkMark,
    /// Ethernet address; none on a link without one.
    pub mac: Option<MacAddr>,
    /// MTU in bytes.
    pub mtu: u32,
    /// Whether it is administratively up.
    pub up: bool,
    /// The bridge or other device that it is a port of, by name; an index where that one's name was not observed.
    pub master: Option<Master>,
    /// How it behaves as a port of a bridge.
    pub port: Option<ObservedPortFlags>,
    /// The VLANs that it is a member of as a port of a bridge; none where that was not asked for.
    pub vlans: Option<PortVlans>,
    /// Addresses, IPv6 link-local ones left out.
    pub addresses: BTreeSet<IpNetwork>,
    /// Routes through it with our protocol number.
    pub routes: BTreeSet<Route>,
    /// Permanent neighbours on it with our protocol number.
    pub neighbours: BTreeMap<IpAddr, MacAddr>,
    /// Whether checksums may be left to it; none where that was not asked for.
    pub tx_checksum: Option<bool>,
    /// Our token bucket; none where it has none, or that was not asked for.
    pub shaper: Option<Shaper>,
}

/// What a link is a port of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Master {
    /// A link by its name.
    Name(IfName),
    /// A link that is outside of the scope, by its index.
    Index(u32),
}

/// What a link is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObservedKind {
    /// One end of a veth pair.
    Veth {
        /// Index of the other end, in whatever namespace that is; none if it is gone.
        peer: Option<u32>,
    },
    /// A bridge.
    Bridge {
        /// How many ports it has.
        ports: usize,
        /// Whether it keeps VLANs apart.
        vlan_filtering: bool,
    },
    /// A tap.
    Tap(Tap),
    /// A macvlan or macvtap.
    Macvlan {
        /// Index of the link that it is on, in whatever namespace that is.
        uplink: u32,
        /// Its mode; none where it is one that we never set.
        mode: Option<MacvlanMode>,
        /// Whether it is a macvtap.
        tap: bool,
    },
    /// Anything else, by its kind as the kernel says it; empty for hardware.
    Other(String),
}

/// Flags of a bridge port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObservedPortFlags {
    /// Whether the bridge learns addresses from it.
    pub learning: bool,
    /// Whether it is kept from other isolated ports.
    pub isolated: bool,
    /// Whether a frame may leave where it came in.
    pub hairpin: bool,
}

/// Open vSwitch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedOvs {
    /// Bridges in scope, by name.
    pub bridges: BTreeMap<String, ObservedBridge>,
    /// Ports in scope, by name.
    pub ports: BTreeMap<String, ObservedPort>,
    /// Whether it looks at two VLAN tags of a frame; where nobody told it, it looks at one.
    pub two_tags: bool,
}

/// An OVS bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObservedBridge {
    /// Whether its datapath is in userspace (`datapath_type=netdev`).
    pub userspace: bool,
}

/// An OVS port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedPort {
    /// Its row in table Port.
    pub uuid: String,
    /// The bridge that it is a port of.
    pub bridge: String,
    /// VLAN of the port; none where it is a combination that we never set.
    pub vlan: Option<Vlan>,
    /// The attachment that our mark names; none on a port of somebody else.
    pub attachment: Option<AttachmentId>,
    /// Our note on its owner.
    pub owner: String,
    /// Its number in OpenFlow, once the switch has taken the link in.
    pub number: Option<u32>,
    /// Whether our note on it says that it has flows of ours.
    pub secured: bool,
    /// Cookies of our flows for it; none where they were not asked for.
    pub flows: Option<BTreeSet<u64>>,
    /// What the switch says is wrong with it.
    pub error: Option<String>,
}

impl ObservedLink {
    /// The proof that this link is ours, where it is.
    pub fn owned(&self, name: &IfName) -> Option<OwnedLink> {
        OwnedLink::prove(name, self.index, &self.mark)
    }
}
