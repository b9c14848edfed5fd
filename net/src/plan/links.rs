//! Links, and what is set on them: addresses, routes, neighbours, settings and tables of their namespace.

use std::collections::{BTreeMap, BTreeSet};

use super::PlanError;
use super::diff::Target;
use crate::attachment::host_ifname;
use crate::desired::{DesiredNamespace, DesiredState, Link, LinkKind, Netns};
use crate::mark::{LinkMark, Mark, OwnedLink};
use crate::model::IfName;
use crate::observed::{Master, ObservedKind, ObservedLink, ObservedNamespace, ObservedState};
use crate::op::Op;

/// The MTU of a bridge, tap or veth for which none was asked.
const DEFAULT_MTU: u32 = 1500;

/// Adds the steps for all namespaces; tells which links they make.
pub(super) fn plan(
    desired: &DesiredState,
    observed: &ObservedState,
    ops: &mut Vec<Op>,
) -> Result<BTreeSet<(Netns, IfName)>, PlanError> {
    let mut planner = Planner { desired, observed, ops, fresh: BTreeSet::new(), doomed: BTreeMap::new() };
    for (netns, marks) in &desired.scope {
        planner.plan_scope(netns, marks);
    }
    for (netns, want) in &desired.namespaces {
        planner.plan_namespace(netns, want)?;
    }
    let Planner { ops, fresh, doomed, .. } = planner;
    ops.extend(doomed.into_iter().map(|(netns, links)| Op::DeleteLinks { netns, links: links.into_iter().collect() }));
    Ok(fresh)
}

struct Planner<'a> {
    desired: &'a DesiredState,
    observed: &'a ObservedState,
    ops: &'a mut Vec<Op>,
    /// Links that the plan makes.
    fresh: BTreeSet<(Netns, IfName)>,
    /// Links that the plan deletes.
    doomed: BTreeMap<Netns, BTreeSet<OwnedLink>>,
}

impl Planner<'_> {
    /// What is in scope and not desired goes.
    fn plan_scope(&mut self, netns: &Netns, marks: &BTreeSet<Mark>) {
        let Some(have) = self.observed.namespaces.get(netns) else { return };
        let want = self.desired.namespaces.get(netns);
        let host_names: BTreeSet<IfName> = marks
            .iter()
            .filter_map(|mark| match mark {
                Mark::Attachment(id) => Some(host_ifname(id)),
                Mark::Binding(_) | Mark::Shared => None,
            })
            .collect();
        let sharing = marks.contains(&Mark::Shared);
        let binding = marks.iter().any(|mark| matches!(mark, Mark::Binding(_)));
        for (name, link) in &have.links {
            if want.is_some_and(|want| want.links.contains_key(name)) {
                continue;
            }
            let in_scope = match &link.mark {
                LinkMark::Foreign => false,
                LinkMark::Ours(mark) => marks.contains(mark),
                // The alias is missing: what can be told by name or kind is.
                LinkMark::Unnamed => {
                    host_names.contains(name)
                        || binding
                        || (sharing && matches!(link.kind, ObservedKind::Bridge { .. }))
                }
            };
            let in_use = matches!(link.kind, ObservedKind::Bridge { ports, .. } if ports > 0);
            let shared = *netns == Netns::Host && !host_names.contains(name) && sharing;
            if in_scope && !(shared && in_use) {
                self.doom(netns, name, link);
            }
        }
        if sharing || binding {
            self.plan_orphan_tables(netns, have, want);
        }
    }

    /// A table of ours whose bridge is not there, or is about to go, goes first.
    fn plan_orphan_tables(&mut self, netns: &Netns, have: &ObservedNamespace, want: Option<&DesiredNamespace>) {
        let doomed = self.doomed.get(netns);
        let stays = |bridge: &str| {
            have.links.keys().any(|name| name.as_str() == bridge)
                && !doomed.is_some_and(|links| links.iter().any(|link| link.name().as_str() == bridge))
        };
        for table in have.tables.keys() {
            let desired = want.is_some_and(|want| want.links.keys().any(|name| name.as_str() == table.bridge()));
            if !desired && !stays(table.bridge()) {
                self.ops.push(Op::DeleteTable { netns: netns.clone(), table: table.clone() });
            }
        }
    }

    /// Plans the deletion of a link if it is ours; false where it is not.
    fn doom(&mut self, netns: &Netns, name: &IfName, link: &ObservedLink) -> bool {
        match link.owned(name) {
            Some(owned) => {
                self.doomed.entry(netns.clone()).or_default().insert(owned);
                true
            }
            None => false,
        }
    }

    fn plan_namespace(&mut self, netns: &Netns, want: &DesiredNamespace) -> Result<(), PlanError> {
        let have = self.observed.namespaces.get(netns).ok_or_else(|| PlanError::MissingNetns(netns.clone()))?;
        for (name, link) in &want.links {
            self.plan_link(netns, name, link, have)?;
        }
        for (key, value) in &want.sysctls {
            let void = key.starts_with("net/ipv6/") && !have.ipv6;
            if !void && (self.of_new_link(netns, key) || have.sysctls.get(key) != Some(value)) {
                self.ops.push(Op::SetSysctl { netns: netns.clone(), key: key.clone(), value: value.clone() });
            }
        }
        for (name, table) in &want.tables {
            if have.tables.get(name) != Some(&table.as_observed()) {
                let (netns, name, table) = (netns.clone(), name.clone(), table.clone());
                self.ops.push(Op::ReplaceTable { netns, name, table });
            }
        }
        // Of a bridge that is desired, the desired state says all.
        for table in have.tables.keys().filter(|table| !want.tables.contains_key(table)) {
            if want.links.keys().any(|name| name.as_str() == table.bridge()) {
                self.ops.push(Op::DeleteTable { netns: netns.clone(), table: table.clone() });
            }
        }
        Ok(())
    }

    /// Whether a setting belongs to a link that the plan makes: what was read is then of its predecessor.
    fn of_new_link(&self, netns: &Netns, key: &str) -> bool {
        key.split('/')
            .nth(3)
            .is_some_and(|link| link.parse::<IfName>().is_ok_and(|name| self.fresh.contains(&(netns.clone(), name))))
    }

    fn plan_link(
        &mut self,
        netns: &Netns,
        name: &IfName,
        link: &Link,
        have: &ObservedNamespace,
    ) -> Result<(), PlanError> {
        self.check_master(netns, link, have)?;
        let present = have.links.get(name);
        match &link.kind {
            LinkKind::Existing => {
                let missing = || PlanError::MissingLink { netns: netns.clone(), name: name.clone() };
                self.diff(netns, name, link, present.ok_or_else(missing)?);
            }
            // Its maker plans both ends.
            LinkKind::VethPeer => {
                let made = self.desired.namespaces.values().flat_map(|want| want.links.values()).any(
                    |link| matches!(&link.kind, LinkKind::Veth { peer: (at, end), .. } if at == netns && end == name),
                );
                if !made {
                    return Err(PlanError::LoneVeth(name.clone()));
                }
            }
            LinkKind::Veth { peer, .. } => self.plan_veth(netns, name, link, present, peer)?,
            LinkKind::Bridge { .. } => match present {
                Some(present)
                    if matches!(present.kind, ObservedKind::Bridge { .. }) && present.owned(name).is_some() =>
                {
                    self.diff(netns, name, link, present);
                }
                _ => {
                    self.make_room(netns, name, present)?;
                    let (mac, mtu) = (link.mac, link.mtu);
                    self.ops.push(Op::CreateBridge { netns: netns.clone(), name: name.clone(), mac, mtu });
                    let made = fresh(ObservedKind::Bridge { ports: 0, vlan_filtering: false }, link, None);
                    self.diff(netns, name, link, &made);
                }
            },
            LinkKind::Macvlan { uplink, mode, tap, .. } => {
                let host = self.observed.namespaces.get(&Netns::Host);
                let on = host.and_then(|host| host.links.get(uplink));
                let on = on.ok_or_else(|| PlanError::MissingUplink(uplink.clone()))?.index;
                let kind = ObservedKind::Macvlan { uplink: on, mode: Some(*mode), tap: *tap };
                match present {
                    Some(present) if present.kind == kind && present.owned(name).is_some() => {
                        self.diff(netns, name, link, present);
                    }
                    _ => {
                        self.make_room(netns, name, present)?;
                        let (netns, name, uplink) = (netns.clone(), name.clone(), uplink.clone());
                        let (mac, mtu) = (link.mac, link.mtu);
                        let made = fresh(kind, link, None);
                        self.diff(&netns, &name, link, &made);
                        self.ops.push(Op::CreateMacvlan { netns, name, uplink, mode: *mode, tap: *tap, mac, mtu });
                    }
                }
            }
            LinkKind::Tap { tap, .. } => match present {
                Some(present) if present.kind == ObservedKind::Tap(*tap) && present.owned(name).is_some() => {
                    self.diff(netns, name, link, present);
                }
                _ => {
                    self.make_room(netns, name, present)?;
                    self.ops.push(Op::CreateTap { netns: netns.clone(), name: name.clone(), tap: *tap });
                    // TUNSETIFF takes neither: both are set afterwards.
                    let made =
                        ObservedLink { mac: None, mtu: DEFAULT_MTU, ..fresh(ObservedKind::Tap(*tap), link, None) };
                    self.diff(netns, name, link, &made);
                }
            },
        }
        Ok(())
    }

    /// A desired bridge has to be desired as a link as well, or be there.
    fn check_master(&self, netns: &Netns, link: &Link, have: &ObservedNamespace) -> Result<(), PlanError> {
        let Some(master) = &link.master else { return Ok(()) };
        let made = self.desired.namespaces.get(netns).and_then(|want| want.links.get(master));
        if made.is_some_and(|made| matches!(made.kind, LinkKind::Bridge { .. })) {
            return Ok(());
        }
        match have.links.get(master).map(|present| &present.kind) {
            // Switched on by us it would cut others off, whose ports are in no VLAN yet.
            Some(ObservedKind::Bridge { vlan_filtering: false, .. }) if link.vlans.is_some() => {
                Err(PlanError::NoVlanFiltering { netns: netns.clone(), name: master.clone() })
            }
            Some(ObservedKind::Bridge { .. }) => Ok(()),
            Some(_) => Err(PlanError::NotABridge { netns: netns.clone(), name: master.clone() }),
            None => Err(PlanError::MissingBridge { netns: netns.clone(), name: master.clone() }),
        }
    }

    /// Frees a name for a link that is to be made.
    fn make_room(&mut self, netns: &Netns, name: &IfName, present: Option<&ObservedLink>) -> Result<(), PlanError> {
        if let Some(present) = present
            && !self.doom(netns, name, present)
        {
            return Err(PlanError::ForeignLink { netns: netns.clone(), name: name.clone() });
        }
        self.fresh.insert((netns.clone(), name.clone()));
        Ok(())
    }

    fn diff(&mut self, netns: &Netns, name: &IfName, want: &Link, have: &ObservedLink) {
        Target { observed: self.observed, netns, name }.diff(want, have, self.ops);
    }

    fn plan_veth(
        &mut self,
        netns: &Netns,
        name: &IfName,
        link: &Link,
        present: Option<&ObservedLink>,
        (peer_netns, peer_name): &(Netns, IfName),
    ) -> Result<(), PlanError> {
        let peer = self.desired.namespaces.get(peer_netns).and_then(|want| want.links.get(peer_name));
        let peer = peer
            .filter(|peer| matches!(peer.kind, LinkKind::VethPeer))
            .ok_or_else(|| PlanError::LoneVeth(name.clone()))?;
        let there = self.observed.namespaces.get(peer_netns);
        let there = there.ok_or_else(|| PlanError::MissingNetns(peer_netns.clone()))?.links.get(peer_name);
        let paired = matches!((present, there), (Some(a), Some(b)) if are_ends(a, b));
        match (present, there) {
            (Some(present), Some(there)) if paired && present.owned(name).is_some() => {
                self.diff(netns, name, link, present);
                self.diff(peer_netns, peer_name, peer, there);
            }
            (_, Some(_)) => {
                return Err(PlanError::ForeignLink { netns: peer_netns.clone(), name: peer_name.clone() });
            }
            (_, None) => {
                self.make_room(netns, name, present)?;
                self.fresh.insert((peer_netns.clone(), peer_name.clone()));
                self.ops.push(Op::CreateVeth {
                    netns: netns.clone(),
                    name: name.clone(),
                    mac: link.mac,
                    mtu: link.mtu,
                    master: link.master.clone(),
                    peer_netns: peer_netns.clone(),
                    peer_name: peer_name.clone(),
                    peer_mac: peer.mac,
                });
                let end = ObservedKind::Veth { peer: None };
                let made = fresh(end.clone(), link, link.master.clone());
                self.diff(netns, name, link, &made);
                let made = ObservedLink { mtu: link.mtu.unwrap_or(DEFAULT_MTU), ..fresh(end, peer, None) };
                self.diff(peer_netns, peer_name, peer, &made);
            }
        }
        Ok(())
    }
}

/// Whether two links are the two ends of one veth pair.
fn are_ends(a: &ObservedLink, b: &ObservedLink) -> bool {
    a.kind == ObservedKind::Veth { peer: Some(b.index) } && b.kind == ObservedKind::Veth { peer: Some(a.index) }
}

/// A link as it is right after its creation with what the message of creation can say.
fn fresh(kind: ObservedKind, link: &Link, master: Option<IfName>) -> ObservedLink {
    ObservedLink {
        index: 0,
        kind,
        mark: LinkMark::Unnamed,
        mac: link.mac,
        mtu: link.mtu.unwrap_or(DEFAULT_MTU),
        up: false,
        master: master.map(Master::Name),
        port: None,
        vlans: None,
        addresses: BTreeSet::new(),
        routes: BTreeSet::new(),
        neighbours: BTreeMap::new(),
        tx_checksum: None,
        shaper: None,
    }
}
