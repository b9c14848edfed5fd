//! What shall be, of one or many attachments and bindings: the planner's first input.
//!
//! A desired state is partial: it says nothing about objects that it does not name, except that an object whose
//! [`Mark`] is in its scope and which it does not name shall not be.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnetwork::IpNetwork;

use crate::mark::{Mark, OwnedTable};
use crate::model::{AttachmentId, IfName, MacAddr, MacvlanMode, PortSecurity, PortVlans, Shaper, StaticRoute, Vlan};
use crate::security::rules::Element;
use crate::table::Table;

/// A network namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Netns {
    /// The node's own.
    Host,
    /// The one at this path, such as `/run/netns/x` or `/proc/1/ns/net`.
    Path(PathBuf),
}

impl fmt::Display for Netns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
            Self::Path(path) => write!(f, "{}", path.display()),
        }
    }
}

/// What shall be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DesiredState {
    /// What is gone if it is not named below: objects of these marks, by namespace. OVS ports count as the host's.
    pub scope: BTreeMap<Netns, BTreeSet<Mark>>,
    /// By namespace.
    pub namespaces: BTreeMap<Netns, DesiredNamespace>,
    /// Ports of OVS bridges, by name.
    pub ovs_ports: BTreeMap<String, OvsPort>,
}

/// What shall be in one namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DesiredNamespace {
    /// Links, by name.
    pub links: BTreeMap<IfName, Link>,
    /// Kernel settings: path under /proc/sys (`net/ipv4/ip_forward`) -> value. Those of a protocol that the kernel
    /// lacks are void.
    pub sysctls: BTreeMap<String, String>,
    /// nftables tables of ours, whole.
    pub tables: BTreeMap<OwnedTable, Table>,
    /// Port security: all elements of the ports that they name.
    pub guard: BTreeSet<Element>,
}

/// A link as it shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// What it is, and who makes it.
    pub kind: LinkKind,
    /// Ethernet address; none: whatever it is.
    pub mac: Option<MacAddr>,
    /// MTU in bytes; none: whatever it is.
    pub mtu: Option<u32>,
    /// Whether it is administratively up; none: whatever it is.
    pub up: Option<bool>,
    /// The bridge that it is a port of; none: no Linux bridge for a link of ours, whatever it is for another's.
    pub master: Option<IfName>,
    /// How it behaves as a port of that bridge.
    pub port: PortFlags,
    /// The VLANs that it is a member of as a port of that bridge; none: whatever they are.
    pub vlans: Option<PortVlans>,
    /// Its addresses, IPv6 link-local ones left out; none: whatever they are.
    pub addresses: Option<BTreeSet<IpNetwork>>,
    /// Our routes through it (routes of others are left alone); none: whatever they are.
    pub routes: Option<BTreeSet<Route>>,
    /// Our permanent neighbours on it (those of others are left alone); none: whatever they are.
    pub neighbours: Option<BTreeMap<IpAddr, MacAddr>>,
    /// Whether the kernel may leave checksums to the device.
    pub tx_checksum: TxChecksum,
    /// How fast it sends; none: whatever it is.
    pub shaper: Option<Shaper>,
}

/// What a link is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// One end of a veth pair, made together with its other end.
    Veth {
        /// What it is part of.
        mark: Mark,
        /// Where its other end is. It is desired there as a [`LinkKind::VethPeer`].
        peer: (Netns, IfName),
    },
    /// The other end of a veth pair; made, and deleted, with the first.
    VethPeer,
    /// A bridge.
    Bridge {
        /// What it is part of.
        mark: Mark,
    },
    /// A tap.
    Tap {
        /// What it is part of.
        mark: Mark,
        /// Who may open it.
        tap: Tap,
    },
    /// A macvlan or macvtap on a link of the host, made in its own namespace at once.
    Macvlan {
        /// What it is part of.
        mark: Mark,
        /// The link of the host, somebody else's.
        uplink: IfName,
        /// Whom it may talk to on that link.
        mode: MacvlanMode,
        /// Whether it is a macvtap.
        tap: bool,
    },
    /// A link that somebody else made. It must be there, and stays there; what the desired state says about it is done
    /// to it.
    Existing,
}

impl LinkKind {
    /// What a link of this kind is marked with.
    pub fn mark(&self) -> Option<&Mark> {
        match self {
            Self::Veth { mark, .. } | Self::Bridge { mark } | Self::Tap { mark, .. } | Self::Macvlan { mark, .. } => {
                Some(mark)
            }
            Self::VethPeer | Self::Existing => None,
        }
    }
}

/// How a tap is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tap {
    /// User that may open it.
    pub uid: u32,
    /// Group that may open it.
    pub gid: u32,
    /// Whether it takes more than one queue.
    pub multi_queue: bool,
    /// Whether frames have a virtio header (offloads).
    pub vnet_header: bool,
}

/// Flags of a bridge port; none: whatever it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortFlags {
    /// Whether the bridge learns addresses from it.
    pub learning: Option<bool>,
    /// Whether it may talk to other isolated ports.
    pub isolated: Option<bool>,
    /// Whether a frame may leave where it came in.
    pub hairpin: Option<bool>,
}

/// A route of ours through a link, in the main table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Destination prefix, its host bits zero.
    pub destination: IpNetwork,
    /// Next hop; none for a destination on the link.
    pub gateway: Option<IpAddr>,
}

impl Route {
    /// The route to the network that an address is in.
    pub(crate) fn on_link(address: IpNetwork) -> Self {
        Self { destination: network_of(address), gateway: None }
    }
}

impl From<&StaticRoute> for Route {
    fn from(route: &StaticRoute) -> Self {
        Self { destination: network_of(route.destination), gateway: route.gateway }
    }
}

/// The prefix with its host bits zero, as the kernel wants it.
fn network_of(prefix: IpNetwork) -> IpNetwork {
    IpNetwork::new(prefix.network(), prefix.prefix()).unwrap_or(prefix)
}

/// Whether the kernel may leave checksums to a link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TxChecksum {
    /// Whatever it is.
    #[default]
    Any,
    /// No where the OVS bridge of this name has a userspace datapath: that one neither completes nor carries partial
    /// checksums, and TCP hangs.
    OffOnUserspaceBridge(String),
}

/// A port of an OVS bridge that exists; its interface is the link of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OvsPort {
    /// The bridge.
    pub bridge: String,
    /// VLAN of the port.
    pub vlan: Vlan,
    /// What it is part of.
    pub attachment: AttachmentId,
    /// For people.
    pub owner: String,
    /// What may come in through it; none: anything.
    pub security: Option<PortSecurity>,
}

/// Two desired states want different things of one object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to merge desired states: they want different things of {object}")]
pub struct MergeError {
    /// The object, for people.
    pub object: String,
}

impl DesiredState {
    /// The state in which nothing of these attachments is left on the node.
    pub fn without<'a>(ids: impl IntoIterator<Item = &'a AttachmentId>) -> Self {
        let marks = ids.into_iter().cloned().map(Mark::Attachment).collect();
        Self { scope: BTreeMap::from([(Netns::Host, marks)]), ..Self::default() }
    }

    /// The state in which this attachment has nothing left in its pod: what goes with no host end.
    pub fn without_inside(netns: PathBuf, id: AttachmentId) -> Self {
        let marks = BTreeSet::from([Mark::Attachment(id)]);
        Self { scope: BTreeMap::from([(Netns::Path(netns), marks)]), ..Self::default() }
    }

    /// The state in which nothing is left that attachments shared and none uses any more.
    pub fn without_unused() -> Self {
        Self { scope: BTreeMap::from([(Netns::Host, BTreeSet::from([Mark::Shared]))]), ..Self::default() }
    }

    /// The state in which nothing of this VM interface's binding is left in its pod.
    pub fn without_binding(netns: PathBuf, nic: &str) -> Self {
        let marks = BTreeSet::from([Mark::Binding(nic.to_owned())]);
        Self { scope: BTreeMap::from([(Netns::Path(netns), marks)]), ..Self::default() }
    }

    /// The links, settings and tables of a namespace, to be filled.
    pub fn namespace(&mut self, netns: &Netns) -> &mut DesiredNamespace {
        self.namespaces.entry(netns.clone()).or_default()
    }

    /// Adds a mark to the scope.
    pub fn claim(&mut self, netns: Netns, mark: Mark) {
        self.scope.entry(netns).or_default().insert(mark);
    }

    /// Joins two desired states. Of a link that one of them makes and the other adopts ([`LinkKind::Existing`]), the
    /// adopter has the last word: a binding takes the address off the interface that the attachment made.
    ///
    /// # Errors
    /// When both say different things about one object.
    pub fn merge(mut self, other: Self) -> Result<Self, MergeError> {
        for (netns, marks) in other.scope {
            self.scope.entry(netns).or_default().extend(marks);
        }
        for (netns, theirs) in other.namespaces {
            let ours = self.namespaces.entry(netns.clone()).or_default();
            for (name, link) in theirs.links {
                let merged = match ours.links.remove(&name) {
                    Some(present) => merge_links(present, link)
                        .ok_or_else(|| MergeError { object: format!("link `{name}` in {netns}") })?,
                    None => link,
                };
                ours.links.insert(name, merged);
            }
            ours.guard.extend(theirs.guard);
            insert_all(&mut ours.sysctls, theirs.sysctls, |key| format!("setting `{key}` in {netns}"))?;
            insert_all(&mut ours.tables, theirs.tables, |key| format!("nftables table `{key}` in {netns}"))?;
        }
        insert_all(&mut self.ovs_ports, other.ovs_ports, |key| format!("OVS port `{key}`"))?;
        Ok(self)
    }
}

/// Adds the entries of one map to another; the same key must have the same value.
fn insert_all<K: Ord, V: PartialEq>(
    into: &mut BTreeMap<K, V>,
    from: BTreeMap<K, V>,
    describe: impl Fn(&K) -> String,
) -> Result<(), MergeError> {
    for (key, value) in from {
        match into.get(&key) {
            Some(present) if *present != value => return Err(MergeError { object: describe(&key) }),
            Some(_) | None => into.insert(key, value),
        };
    }
    Ok(())
}

/// One link out of two; none where they contradict each other.
fn merge_links(a: Link, b: Link) -> Option<Link> {
    match (&a.kind, &b.kind) {
        _ if a == b => Some(a),
        (LinkKind::Existing, LinkKind::Existing) => None,
        (_, LinkKind::Existing) => Some(a.adopted_as(b)),
        (LinkKind::Existing, _) => Some(b.adopted_as(a)),
        _ => None,
    }
}

impl Link {
    /// A link of this kind about which nothing else is said.
    pub fn new(kind: LinkKind) -> Self {
        Self {
            kind,
            mac: None,
            mtu: None,
            up: None,
            master: None,
            port: PortFlags::default(),
            vlans: None,
            addresses: None,
            routes: None,
            neighbours: None,
            tx_checksum: TxChecksum::Any,
            shaper: None,
        }
    }

    /// This link with what its adopter says of it on top.
    fn adopted_as(self, adopter: Self) -> Self {
        let Self { kind: _, mac, mtu, up, master, port, vlans, addresses, routes, neighbours, tx_checksum, shaper } =
            adopter;
        Self {
            kind: self.kind,
            mac: mac.or(self.mac),
            mtu: mtu.or(self.mtu),
            up: up.or(self.up),
            master: master.or(self.master),
            port: PortFlags {
                learning: port.learning.or(self.port.learning),
                isolated: port.isolated.or(self.port.isolated),
                hairpin: port.hairpin.or(self.port.hairpin),
            },
            vlans: vlans.or(self.vlans),
            addresses: addresses.or(self.addresses),
            routes: routes.or(self.routes),
            neighbours: neighbours.or(self.neighbours),
            tx_checksum: if tx_checksum == TxChecksum::Any { self.tx_checksum } else { tx_checksum },
            shaper: shaper.or(self.shaper),
        }
    }
}
