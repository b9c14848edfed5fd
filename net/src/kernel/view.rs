//! What of a namespace has to be looked at for one desired state: nothing more, for a node has thousands of links.

use std::collections::{BTreeMap, BTreeSet};

use crate::attachment::host_ifname;
use crate::desired::{DesiredState, Link, LinkKind, Netns, TxChecksum};
use crate::mark::Mark;
use crate::model::IfName;
use crate::security::rules::Element;

/// How much to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// All that may have to change.
    Whole,
    /// What is wanted, and nothing that may be there besides: for what nobody has made before.
    Wanted,
}

/// What of port security to look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum GuardView {
    /// Nothing.
    #[default]
    Nothing,
    /// Whether these are there. It takes as long as there are of them, and all of it as long as the node has ports.
    Only(BTreeSet<Element>),
    /// All of it.
    All,
}

/// What to look at in one namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct View {
    /// All links; else only those below.
    pub(super) all_links: bool,
    /// Links to look at.
    pub(super) links: BTreeMap<IfName, Details>,
    /// Kernel settings.
    pub(super) sysctls: BTreeSet<String>,
    /// Whether to look at nftables.
    pub(super) tables: bool,
    /// What of port security.
    pub(super) guard: GuardView,
}

/// What of a link to look at beside its own attributes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Details {
    pub(super) addresses: bool,
    pub(super) routes: bool,
    pub(super) neighbours: bool,
    pub(super) vlans: bool,
    pub(super) tx_checksum: bool,
    pub(super) shaper: bool,
}

impl Details {
    fn of(link: &Link) -> Self {
        Self {
            addresses: link.addresses.is_some(),
            routes: link.routes.is_some(),
            neighbours: link.neighbours.is_some(),
            vlans: link.vlans.is_some(),
            tx_checksum: link.tx_checksum != TxChecksum::Any,
            shaper: link.shaper.is_some(),
        }
    }
}

/// What to look at, by namespace.
pub(super) fn views(desired: &DesiredState, look: Look) -> BTreeMap<Netns, View> {
    let mut views: BTreeMap<Netns, View> = BTreeMap::new();
    for (netns, marks) in &desired.scope {
        let view = views.entry(netns.clone()).or_default();
        if *netns == Netns::Host {
            view.guard = GuardView::All;
        }
        for mark in marks {
            match mark {
                Mark::Attachment(id) if *netns == Netns::Host => {
                    view.links.entry(host_ifname(id)).or_default();
                }
                // In a pod the name of an attachment's link is not known by its key.
                Mark::Attachment(_) => view.all_links = true,
                Mark::Binding(_) | Mark::Shared => {
                    view.all_links = true;
                    view.tables = true;
                }
            }
        }
    }
    for (netns, want) in &desired.namespaces {
        let view = views.entry(netns.clone()).or_default();
        view.all_links |= matches!(netns, Netns::Path(_));
        if !want.guard.is_empty() {
            view.guard = GuardView::All;
        }
        if look == Look::Wanted && view.guard == GuardView::All {
            view.guard = GuardView::Only(want.guard.clone());
        }
        view.sysctls.extend(want.sysctls.keys().cloned());
        for (name, link) in &want.links {
            view.links.insert(name.clone(), Details::of(link));
            view.tables |= matches!(link.kind, LinkKind::Bridge { .. });
        }
        for master in want.links.values().filter_map(|link| link.master.clone()) {
            view.links.entry(master).or_default();
        }
    }
    let uplinks = desired.namespaces.values().flat_map(|want| want.links.values());
    for link in uplinks {
        if let LinkKind::Macvlan { uplink, .. } = &link.kind {
            views.entry(Netns::Host).or_default().links.entry(uplink.clone()).or_default();
        }
    }
    views
}

/// Whether Open vSwitch has to be looked at, and which bridges and ports.
pub(super) struct OvsView {
    /// Bridges that ports are wanted on.
    pub(super) bridges: BTreeSet<String>,
    /// Ports by name.
    pub(super) ports: BTreeSet<String>,
    /// Those of them whose flows to look at.
    pub(super) secured: BTreeSet<String>,
}

/// What to look at in Open vSwitch; none where nothing is to be.
pub(super) fn ovs_view(desired: &DesiredState) -> Option<OvsView> {
    let bridges: BTreeSet<String> = desired.ovs_ports.values().map(|port| port.bridge.clone()).collect();
    let mut ports: BTreeSet<String> = desired.ovs_ports.keys().cloned().collect();
    for mark in desired.scope.get(&Netns::Host).into_iter().flatten() {
        if let Mark::Attachment(id) = mark {
            ports.insert(host_ifname(id).to_string());
        }
    }
    let secured = desired.ovs_ports.iter().filter(|(_, port)| port.security.is_some());
    let secured = secured.map(|(name, _)| name.clone()).collect();
    (!ports.is_empty()).then_some(OvsView { bridges, ports, secured })
}
