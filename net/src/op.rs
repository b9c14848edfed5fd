//! One step of a plan.
//!
//! Invariant: an op that deletes carries the proof that its object is ours (see [`crate::mark`]).

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::desired::{Netns, OvsPort, PortFlags, Route, Tap};
use crate::mark::{Mark, OwnedLink, OwnedPort, OwnedTable};
use crate::model::{IfName, MacAddr, MacvlanMode, PortVlans, Shaper};
use crate::security::flows::Flow;
use crate::security::rules::Element;
use crate::table::Table;

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Takes a port off its OVS bridge.
    DeleteOvsPort(OwnedPort),
    /// Removes a table of ours.
    DeleteTable {
        /// Where.
        netns: Netns,
        /// Which.
        table: OwnedTable,
    },
    /// Deletes links of ours, all at once.
    DeleteLinks {
        /// Where.
        netns: Netns,
        /// Which, at least one.
        links: Vec<OwnedLink>,
    },
    /// Takes elements out of the sets of port security.
    RemoveElements {
        /// Where.
        netns: Netns,
        /// Which, at least one.
        elements: BTreeSet<Element>,
    },
    /// Removes the table of port security.
    DeleteGuard {
        /// Where.
        netns: Netns,
    },
    /// Makes a bridge.
    CreateBridge {
        /// Where.
        netns: Netns,
        /// Its name.
        name: IfName,
        /// Its Ethernet address.
        mac: Option<MacAddr>,
        /// Its MTU in bytes.
        mtu: Option<u32>,
    },
    /// Makes a veth pair, each end in its own namespace.
    CreateVeth {
        /// Where the first end is.
        netns: Netns,
        /// The first end's name.
        name: IfName,
        /// The first end's Ethernet address.
        mac: Option<MacAddr>,
        /// MTU of both ends in bytes.
        mtu: Option<u32>,
        /// The bridge that the first end becomes a port of.
        master: Option<IfName>,
        /// Where the other end is.
        peer_netns: Netns,
        /// The other end's name.
        peer_name: IfName,
        /// The other end's Ethernet address.
        peer_mac: Option<MacAddr>,
    },
    /// Makes a tap.
    CreateTap {
        /// Where.
        netns: Netns,
        /// Its name.
        name: IfName,
        /// How.
        tap: Tap,
    },
    /// Makes a macvlan or macvtap on a link of the host.
    CreateMacvlan {
        /// Where it is made.
        netns: Netns,
        /// Its name.
        name: IfName,
        /// The link of the host that it is on.
        uplink: IfName,
        /// Its mode.
        mode: MacvlanMode,
        /// Whether it is a macvtap.
        tap: bool,
        /// Its Ethernet address.
        mac: Option<MacAddr>,
        /// Its MTU in bytes.
        mtu: Option<u32>,
    },
    /// Writes on a link what it is part of.
    SetMark {
        /// Where.
        netns: Netns,
        /// Which link.
        link: IfName,
        /// What it is part of.
        mark: Mark,
    },
    /// Sets a link's Ethernet address.
    SetMac {
        /// Where.
        netns: Netns,
        /// Which link.
        link: IfName,
        /// The address.
        mac: MacAddr,
    },
    /// Sets a link's MTU.
    SetMtu {
        /// Where.
        netns: Netns,
        /// Which link.
        link: IfName,
        /// Bytes.
        mtu: u32,
    },
    /// Leaves checksums to the kernel.
    DisableTxChecksum {
        /// Where.
        netns: Netns,
        /// Which link.
        link: IfName,
    },
    /// Takes an address off a link.
    RemoveAddress {
        /// Where.
        netns: Netns,
        /// Which link.
        link: IfName,
        /// The address with its prefix.
        address: IpNetwork,
    },
    /// Makes a link of ours a port of no bridge.
    ClearMaster {
        /// Where.
        netns: Netns,
        /// Which link.
        link: IfName,
    },
    /// Makes a link a port of a bridge.
    SetMaster {
        /// Where.
        netns: Netns,
        /// Which link.
        link: IfName,
        /// The bridge.
        master: IfName,
    },
    /// Sets how a bridge treats a port.
    SetPortFlags {
        /// Where.
        netns: Netns,
        /// Which link.
        link: IfName,
        /// What to set.
        flags: PortFlags,
    },
    /// Brings the VLANs of a bridge port to these and no others.
    SetPortVlans {
        /// Where.
        netns: Netns,
        /// Which link.
        link: IfName,
        /// The VLANs.
        vlans: PortVlans,
    },
    /// Sets a kernel setting.
    SetSysctl {
        /// Where.
        netns: Netns,
        /// Path under /proc/sys.
        key: String,
        /// Its value.
        value: String,
    },
    /// Brings a table of ours to its whole content, at once.
    ReplaceTable {
        /// Where.
        netns: Netns,
        /// Its name.
        name: OwnedTable,
        /// Its content.
        table: Table,
    },
    /// Makes the table of port security, or its rules anew.
    CreateGuard {
        /// Where.
        netns: Netns,
    },
    /// Puts elements into the sets of port security.
    AddElements {
        /// Where.
        netns: Netns,
        /// Which, at least one.
        elements: BTreeSet<Element>,
    },
    /// Sets a link up or down.
    SetUp {
        /// Where.
        netns: Netns,
        /// Which link.
        link: IfName,
        /// Up or down.
        up: bool,
    },
    /// Adds an address to a link.
    AddAddress {
        /// Where.
        netns: Netns,
        /// Which link.
        link: IfName,
        /// The address with its prefix.
        address: IpNetwork,
    },
    /// Takes a route of ours off.
    RemoveRoute {
        /// Where.
        netns: Netns,
        /// Through which link.
        link: IfName,
        /// The route.
        route: Route,
    },
    /// Adds a route of ours.
    AddRoute {
        /// Where.
        netns: Netns,
        /// Through which link.
        link: IfName,
        /// The route.
        route: Route,
    },
    /// Takes a neighbour of ours off.
    RemoveNeighbour {
        /// Where.
        netns: Netns,
        /// On which link.
        link: IfName,
        /// Its address.
        address: IpAddr,
    },
    /// Sets a permanent neighbour of ours.
    SetNeighbour {
        /// Where.
        netns: Netns,
        /// On which link.
        link: IfName,
        /// Its address.
        address: IpAddr,
        /// Its Ethernet address.
        mac: MacAddr,
    },
    /// Adds a port to an OVS bridge, or changes the one that is there.
    SetOvsPort {
        /// The port's, and its link's, name.
        name: String,
        /// The port.
        port: OvsPort,
        /// The port that is there.
        present: Option<OwnedPort>,
    },
    /// Waits until the switch has taken a port in.
    AwaitOvsPort {
        /// The port's name.
        name: String,
    },
    /// Sets how fast a link sends.
    SetShaper {
        /// Where.
        netns: Netns,
        /// The link.
        link: IfName,
        /// Its token bucket.
        shaper: Shaper,
    },
    /// Brings our flows of an OVS port to their whole content, at once.
    SetOvsFlows {
        /// The port's name.
        name: String,
        /// Its bridge.
        bridge: String,
        /// Its number in OpenFlow.
        number: u32,
        /// Each with its cookie.
        flows: Vec<(u64, Flow)>,
    },
}

/// The namespace that links of the host are found in.
static HOST: Netns = Netns::Host;

impl Op {
    /// What of an attachment it is about, in a word: what was wrong, where it mends something.
    pub fn subject(&self) -> &'static str {
        match self {
            Self::DeleteLinks { .. }
            | Self::CreateBridge { .. }
            | Self::CreateVeth { .. }
            | Self::CreateTap { .. }
            | Self::CreateMacvlan { .. }
            | Self::SetMark { .. }
            | Self::SetMac { .. }
            | Self::SetMtu { .. }
            | Self::DisableTxChecksum { .. }
            | Self::SetUp { .. } => "link",
            Self::DeleteOvsPort(_)
            | Self::SetOvsPort { .. }
            | Self::AwaitOvsPort { .. }
            | Self::ClearMaster { .. }
            | Self::SetMaster { .. }
            | Self::SetPortFlags { .. }
            | Self::SetPortVlans { .. } => "port",
            Self::RemoveAddress { .. } | Self::AddAddress { .. } => "address",
            Self::RemoveRoute { .. } | Self::AddRoute { .. } => "route",
            Self::RemoveNeighbour { .. } | Self::SetNeighbour { .. } => "neighbour",
            Self::SetSysctl { .. } => "setting",
            Self::SetOvsFlows { .. } => "flows",
            Self::DeleteTable { .. }
            | Self::ReplaceTable { .. }
            | Self::RemoveElements { .. }
            | Self::DeleteGuard { .. }
            | Self::CreateGuard { .. }
            | Self::AddElements { .. } => "rules",
            Self::SetShaper { .. } => "bandwidth",
        }
    }

    /// The namespace that this is done inside of; none where it is done by a tool or by the switch.
    pub fn inside(&self) -> Option<&Netns> {
        match self {
            Self::DeleteOvsPort(_)
            | Self::SetOvsPort { .. }
            | Self::AwaitOvsPort { .. }
            | Self::SetOvsFlows { .. }
            | Self::DeleteTable { .. }
            | Self::ReplaceTable { .. } => None,
            Self::CreateMacvlan { .. } => Some(&HOST),
            Self::DeleteLinks { netns, .. }
            | Self::RemoveElements { netns, .. }
            | Self::DeleteGuard { netns }
            | Self::CreateGuard { netns }
            | Self::AddElements { netns, .. }
            | Self::CreateBridge { netns, .. }
            | Self::CreateVeth { netns, .. }
            | Self::CreateTap { netns, .. }
            | Self::SetMark { netns, .. }
            | Self::SetMac { netns, .. }
            | Self::SetMtu { netns, .. }
            | Self::DisableTxChecksum { netns, .. }
            | Self::RemoveAddress { netns, .. }
            | Self::ClearMaster { netns, .. }
            | Self::SetMaster { netns, .. }
            | Self::SetPortFlags { netns, .. }
            | Self::SetPortVlans { netns, .. }
            | Self::SetSysctl { netns, .. }
            | Self::SetUp { netns, .. }
            | Self::AddAddress { netns, .. }
            | Self::RemoveRoute { netns, .. }
            | Self::AddRoute { netns, .. }
            | Self::RemoveNeighbour { netns, .. }
            | Self::SetShaper { netns, .. }
            | Self::SetNeighbour { netns, .. } => Some(netns),
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DeleteOvsPort(port) => write!(f, "delete OVS port {} of {}", port.name(), port.bridge()),
            Self::DeleteTable { netns, table } => write!(f, "delete table {table} in {netns}"),
            Self::DeleteLinks { netns, links } => {
                f.write_str("delete links")?;
                links.iter().try_for_each(|link| write!(f, " {}", link.name()))?;
                write!(f, " in {netns}")
            }
            Self::RemoveElements { netns, elements } => {
                write!(f, "stop to secure")?;
                ports_of(elements).try_for_each(|port| write!(f, " {port}"))?;
                write!(f, " in {netns}")
            }
            Self::DeleteGuard { netns } => write!(f, "delete table of port security in {netns}"),
            Self::CreateGuard { netns } => write!(f, "create table of port security in {netns}"),
            Self::AddElements { netns, elements } => {
                write!(f, "secure")?;
                ports_of(elements).try_for_each(|port| write!(f, " {port}"))?;
                write!(f, " in {netns}")
            }
            Self::CreateBridge { netns, name, mac, mtu } => {
                write!(f, "create bridge {name}{} in {netns}", Details(*mac, *mtu))
            }
            Self::CreateVeth { netns, name, mac, mtu, master, peer_netns, peer_name, peer_mac } => {
                write!(f, "create veth {name}{}", Details(*mac, *mtu))?;
                if let Some(master) = master {
                    write!(f, " master {master}")?;
                }
                write!(f, " in {netns} to {peer_name}{} in {peer_netns}", Details(*peer_mac, None))
            }
            Self::CreateTap { netns, name, tap } => {
                write!(f, "create tap {name} user {} group {}", tap.uid, tap.gid)?;
                f.write_str(if tap.multi_queue { " multi-queue" } else { "" })?;
                f.write_str(if tap.vnet_header { " vnet-header" } else { "" })?;
                write!(f, " in {netns}")
            }
            Self::CreateMacvlan { netns, name, uplink, mode, tap, mac, mtu } => {
                let kind = if *tap { "macvtap" } else { "macvlan" };
                let mode = match mode {
                    MacvlanMode::Bridge => "bridge",
                    MacvlanMode::Private => "private",
                };
                write!(f, "create {kind} {name}{} mode {mode} on {uplink} in {netns}", Details(*mac, *mtu))
            }
            Self::SetMark { netns, link, mark } => write!(f, "mark {link} with {mark} in {netns}"),
            Self::SetMac { netns, link, mac } => write!(f, "set {link} mac {mac} in {netns}"),
            Self::SetMtu { netns, link, mtu } => write!(f, "set {link} mtu {mtu} in {netns}"),
            Self::DisableTxChecksum { netns, link } => write!(f, "set {link} tx-checksum off in {netns}"),
            Self::RemoveAddress { netns, link, address } => write!(f, "remove address {address} of {link} in {netns}"),
            Self::ClearMaster { netns, link } => write!(f, "set {link} no master in {netns}"),
            Self::SetMaster { netns, link, master } => write!(f, "set {link} master {master} in {netns}"),
            Self::SetPortFlags { netns, link, flags } => {
                write!(f, "set {link} port")?;
                for (name, value) in flags.named() {
                    write!(f, " {name} {}", on_off(value))?;
                }
                write!(f, " in {netns}")
            }
            Self::SetPortVlans { netns, link, vlans } => {
                write!(f, "set {link} vlan")?;
                for (id, flags) in vlans {
                    write!(f, " {id}")?;
                    f.write_str(if flags.pvid { " pvid" } else { "" })?;
                    f.write_str(if flags.untagged { " untagged" } else { "" })?;
                }
                write!(f, " in {netns}")
            }
            Self::SetSysctl { netns, key, value } => write!(f, "set {key} = {value} in {netns}"),
            Self::ReplaceTable { netns, name, table } => {
                write!(f, "replace table {name} in {netns}:")?;
                table.as_observed().rules.iter().try_for_each(|(chain, rule)| write!(f, " [{chain}: {rule}]"))
            }
            Self::SetUp { netns, link, up } => {
                write!(f, "set {link} {} in {netns}", if *up { "up" } else { "down" })
            }
            Self::AddAddress { netns, link, address } => write!(f, "add address {address} to {link} in {netns}"),
            Self::RemoveRoute { netns, link, route } => write!(f, "remove route {route} dev {link} in {netns}"),
            Self::AddRoute { netns, link, route } => write!(f, "add route {route} dev {link} in {netns}"),
            Self::RemoveNeighbour { netns, link, address } => {
                write!(f, "remove neighbour {address} dev {link} in {netns}")
            }
            Self::SetNeighbour { netns, link, address, mac } => {
                write!(f, "set neighbour {address} at {mac} dev {link} in {netns}")
            }
            Self::SetOvsPort { name, port, present } => {
                let verb = if present.is_some() { "change" } else { "add" };
                write!(f, "{verb} OVS port {name} of {}: {}", port.bridge, port.vlan)
            }
            Self::AwaitOvsPort { name } => write!(f, "await OVS port {name}"),
            Self::SetShaper { netns, link, shaper } => write!(f, "shape {link} to {shaper} in {netns}"),
            Self::SetOvsFlows { name, bridge, number, flows } => {
                write!(f, "set {} flows of OVS port {name} ({number}) of {bridge}", flows.len())
            }
        }
    }
}

/// The ports that elements are about.
fn ports_of(elements: &BTreeSet<Element>) -> impl Iterator<Item = &IfName> {
    elements.iter().map(|element| &element.port).collect::<BTreeSet<_>>().into_iter()
}

/// Ethernet address and MTU where they are given.
struct Details(Option<MacAddr>, Option<u32>);

impl fmt::Display for Details {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(mac) = self.0 {
            write!(f, " mac {mac}")?;
        }
        if let Some(mtu) = self.1 {
            write!(f, " mtu {mtu}")?;
        }
        Ok(())
    }
}

fn on_off(value: bool) -> &'static str {
    if value { "on" } else { "off" }
}

impl PortFlags {
    /// The flags that are given, by name.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, bool)> {
        [("learning", self.learning), ("isolated", self.isolated), ("hairpin", self.hairpin)]
            .into_iter()
            .filter_map(|(name, value)| value.map(|value| (name, value)))
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.destination)?;
        match self.gateway {
            Some(gateway) => write!(f, " via {gateway}"),
            None => Ok(()),
        }
    }
}
