//! A kernel and a switch with state. They do what they are told as the real ones would, and refuse what those would
//! refuse: a step out of order is an error here, too.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use holdfast_net::desired::{Netns, Route};
use holdfast_net::mark::LinkMark;
use holdfast_net::model::{IfName, MacAddr, PortVlans, VlanFlags};
use holdfast_net::observed::{
    Master, ObservedBridge, ObservedGuard, ObservedKind, ObservedLink, ObservedNamespace, ObservedOvs, ObservedPort,
    ObservedPortFlags, ObservedState,
};
use holdfast_net::op::Op;
use holdfast_net::plan::Plan;
use holdfast_net::security::rules::{Rule, rules};

#[derive(Clone)]
pub struct Fake {
    pub state: ObservedState,
    last_index: u32,
}

impl Fake {
    /// A host with the Linux bridge and the OVS bridge `br0`, and some pods.
    pub fn new(pods: usize, userspace: bool) -> Self {
        let mut fake = Self { state: ObservedState::default(), last_index: 0 };
        let paths = (0..pods).map(|pod| Netns::Path(PathBuf::from(format!("/pods/{pod}"))));
        for netns in [Netns::Host].into_iter().chain(paths) {
            let sysctls = BTreeMap::from([
                ("net/ipv4/ip_forward".to_owned(), "0".to_owned()),
                ("net/ipv6/conf/all/forwarding".to_owned(), "0".to_owned()),
            ]);
            let guard = (netns == Netns::Host).then(ObservedGuard::default);
            let namespace = ObservedNamespace { ipv6: true, sysctls, guard, ..ObservedNamespace::default() };
            fake.state.namespaces.insert(netns, namespace);
        }
        let bridges = BTreeMap::from([("br0".to_owned(), ObservedBridge { userspace })]);
        fake.state.ovs = Some(ObservedOvs { bridges, ports: BTreeMap::new(), two_tags: true });
        fake.make(
            &Netns::Host,
            &name("br0"),
            ObservedKind::Bridge { ports: 0, vlan_filtering: true },
            LinkMark::Foreign,
        );
        fake.make(&Netns::Host, &name("up0"), ObservedKind::Other(String::new()), LinkMark::Foreign);
        fake
    }

    /// What is to be seen: bridges with the number of their ports.
    pub fn observe(&self) -> ObservedState {
        let mut state = self.state.clone();
        for namespace in state.namespaces.values_mut() {
            let masters: Vec<Option<Master>> = namespace.links.values().map(|link| link.master.clone()).collect();
            for (name, link) in &mut namespace.links {
                if let ObservedKind::Bridge { ports, .. } = &mut link.kind {
                    *ports = masters.iter().filter(|master| **master == Some(Master::Name(name.clone()))).count();
                }
            }
        }
        state
    }

    /// Does the steps.
    pub fn apply(&mut self, plan: &Plan) {
        for op in &plan.ops {
            self.step(op).unwrap_or_else(|error| panic!("{op}: {error}\nin the plan\n{plan}"));
        }
    }

    /// Makes a link as the kernel does: down, without addresses.
    pub fn make(&mut self, netns: &Netns, link: &IfName, kind: ObservedKind, mark: LinkMark) -> u32 {
        self.last_index += 1;
        let index = self.last_index;
        let made = ObservedLink {
            index,
            kind,
            mark,
            mac: Some(MacAddr([0x52, 0, 0, 0, 0, index as u8])),
            mtu: 1500,
            up: false,
            master: None,
            port: None,
            vlans: None,
            addresses: BTreeSet::new(),
            routes: BTreeSet::new(),
            neighbours: BTreeMap::new(),
            tx_checksum: Some(true),
            shaper: None,
        };
        let namespace = self.state.namespaces.get_mut(netns).unwrap();
        assert!(namespace.links.insert(link.clone(), made).is_none(), "{link} is there");
        for (key, value) in [
            (format!("net/ipv6/conf/{link}/disable_ipv6"), "0"),
            (format!("net/ipv6/conf/{link}/accept_ra"), "1"),
            (format!("net/ipv4/conf/{link}/route_localnet"), "0"),
        ] {
            namespace.sysctls.insert(key, value.to_owned());
        }
        index
    }

    /// Removes a link, and its other end.
    pub fn unmake(&mut self, netns: &Netns, link: &IfName) {
        let namespace = self.state.namespaces.get_mut(netns).unwrap();
        let Some(gone) = namespace.links.remove(link) else { return };
        namespace.sysctls.retain(|key, _| key.split('/').nth(3) != Some(link.as_str()));
        for port in namespace.links.values_mut().filter(|port| port.master == Some(Master::Name(link.clone()))) {
            (port.master, port.port) = (None, None);
        }
        if let (Netns::Host, Some(ovs)) = (netns, &mut self.state.ovs)
            && let Some(port) = ovs.ports.get_mut(link.as_str())
        {
            (port.number, port.flows) = (None, None);
        }
        if let ObservedKind::Veth { peer: Some(peer) } = gone.kind {
            let end = self.state.namespaces.iter().find_map(|(netns, namespace)| {
                let (link, _) = namespace.links.iter().find(|(_, link)| link.index == peer)?;
                Some((netns.clone(), link.clone()))
            });
            if let Some((netns, link)) = end {
                self.unmake(&netns, &link);
            }
        }
    }

    fn link(&mut self, netns: &Netns, link: &IfName) -> Result<&mut ObservedLink, String> {
        let namespace = self.state.namespaces.get_mut(netns).ok_or("no such namespace")?;
        namespace.links.get_mut(link).ok_or_else(|| format!("no link {link}"))
    }

    fn guard(&mut self, netns: &Netns) -> &mut ObservedGuard {
        self.state.namespaces.get_mut(netns).unwrap().guard.get_or_insert_default()
    }

    fn ovs(&mut self) -> Result<&mut ObservedOvs, String> {
        self.state.ovs.as_mut().ok_or_else(|| "no switch".to_owned())
    }

    fn step(&mut self, op: &Op) -> Result<(), String> {
        match op {
            Op::DeleteOvsPort(port) => {
                self.ovs()?.ports.remove(port.name()).ok_or("no such port")?;
            }
            Op::DeleteTable { netns, table } => {
                self.state.namespaces.get_mut(netns).unwrap().tables.remove(table).ok_or("no such table")?;
            }
            Op::DeleteLinks { netns, links } => {
                for link in links {
                    if self.link(netns, link.name())?.index != link.index() {
                        return Err(format!("{} is another link now", link.name()));
                    }
                    self.unmake(netns, link.name());
                }
            }
            Op::CreateBridge { netns, name, mac, mtu } => {
                self.make(netns, name, ObservedKind::Bridge { ports: 0, vlan_filtering: true }, LinkMark::Unnamed);
                self.set_hardware(netns, name, *mac, *mtu)?;
            }
            Op::CreateVeth { netns, name, mac, mtu, master, peer_netns, peer_name, peer_mac } => {
                let index = self.make(netns, name, ObservedKind::Veth { peer: None }, LinkMark::Unnamed);
                let kind = ObservedKind::Veth { peer: Some(index) };
                let peer = self.make(peer_netns, peer_name, kind, LinkMark::Foreign);
                self.link(netns, name)?.kind = ObservedKind::Veth { peer: Some(peer) };
                self.set_hardware(netns, name, *mac, *mtu)?;
                self.set_hardware(peer_netns, peer_name, *peer_mac, *mtu)?;
                if let Some(master) = master {
                    self.set_master(netns, name, master)?;
                }
            }
            Op::CreateMacvlan { netns, name, uplink, mode, tap, mac, mtu } => {
                let uplink = self.link(&Netns::Host, uplink)?.index;
                let kind = ObservedKind::Macvlan { uplink, mode: Some(*mode), tap: *tap };
                self.make(netns, name, kind, LinkMark::Unnamed);
                self.set_hardware(netns, name, *mac, *mtu)?;
            }
            Op::CreateTap { netns, name, tap } => {
                self.make(netns, name, ObservedKind::Tap(*tap), LinkMark::Unnamed);
            }
            Op::SetMark { netns, link, mark } => self.link(netns, link)?.mark = LinkMark::Ours(mark.clone()),
            Op::SetMac { netns, link, mac } => self.link(netns, link)?.mac = Some(*mac),
            Op::SetMtu { netns, link, mtu } => self.link(netns, link)?.mtu = *mtu,
            Op::DisableTxChecksum { netns, link } => self.link(netns, link)?.tx_checksum = Some(false),
            Op::ClearMaster { netns, link } => {
                let port = self.link(netns, link)?;
                (port.master, port.port) = (None, None);
            }
            Op::SetMaster { netns, link, master } => self.set_master(netns, link, master)?,
            Op::SetPortFlags { netns, link, flags } => {
                let port = self.link(netns, link)?.port.as_mut().ok_or("not a port")?;
                port.learning = flags.learning.unwrap_or(port.learning);
                port.isolated = flags.isolated.unwrap_or(port.isolated);
                port.hairpin = flags.hairpin.unwrap_or(port.hairpin);
            }
            Op::SetPortVlans { netns, link, vlans } => {
                let link = self.link(netns, link)?;
                link.port.ok_or("not a port")?;
                link.vlans = Some(vlans.clone());
            }
            Op::SetSysctl { netns, key, value } => {
                let sysctls = &mut self.state.namespaces.get_mut(netns).unwrap().sysctls;
                *sysctls.get_mut(key).ok_or("no such setting")? = value.clone();
            }
            Op::ReplaceTable { netns, name, table } => {
                let tables = &mut self.state.namespaces.get_mut(netns).unwrap().tables;
                tables.insert(name.clone(), table.as_observed());
            }
            Op::SetUp { netns, link, up } => {
                let link = self.link(netns, link)?;
                link.up = *up;
                if !up {
                    link.routes.clear();
                }
            }
            Op::RemoveAddress { netns, link, address } => {
                let removed = self.link(netns, link)?.addresses.remove(address);
                removed.then_some(()).ok_or("no such address")?;
            }
            Op::AddAddress { netns, link, address } => {
                let added = self.link(netns, link)?.addresses.insert(*address);
                added.then_some(()).ok_or("address is there")?;
            }
            Op::RemoveRoute { netns, link, route } => {
                self.link(netns, link)?.routes.remove(route).then_some(()).ok_or("no such route")?;
            }
            Op::AddRoute { netns, link, route } => add_route(self.link(netns, link)?, route)?,
            Op::RemoveNeighbour { netns, link, address } => {
                self.link(netns, link)?.neighbours.remove(address).ok_or("no such neighbour")?;
            }
            Op::SetNeighbour { netns, link, address, mac } => {
                self.link(netns, link)?.neighbours.insert(*address, *mac);
            }
            Op::SetShaper { netns, link, shaper } => self.link(netns, link)?.shaper = Some(*shaper),
            Op::SetOvsPort { name, port, present } => self.set_port(name, port, present.is_some())?,
            Op::AwaitOvsPort { name } => {
                self.link(&Netns::Host, &name.parse().unwrap())?;
                self.last_index += 1;
                let number = self.last_index;
                let port = self.ovs()?.ports.get_mut(name).ok_or("no such port")?;
                (port.number, port.error) = (port.number.or(Some(number)), None);
            }
            Op::SetOvsFlows { name, bridge, number, flows } => {
                let port = self.ovs()?.ports.get_mut(name).ok_or("no such port")?;
                if port.bridge != *bridge || port.number != Some(*number) {
                    return Err("another port".to_owned());
                }
                port.flows = Some(flows.iter().map(|(cookie, _)| *cookie).collect());
            }
            Op::RemoveElements { netns, elements } => {
                let guard = self.guard(netns);
                for element in elements {
                    guard.elements.remove(element).then_some(()).ok_or("no such element")?;
                }
            }
            Op::DeleteGuard { netns } => {
                let guard = std::mem::take(self.guard(netns));
                (!guard.rules.is_empty()).then_some(()).ok_or("no such table")?;
            }
            Op::CreateGuard { netns } => {
                self.guard(netns).rules = rules().iter().map(Rule::comment).collect();
            }
            Op::AddElements { netns, elements } => {
                let guard = self.guard(netns);
                (!guard.rules.is_empty()).then_some(()).ok_or("no such table")?;
                guard.elements.extend(elements.iter().cloned());
            }
        }
        Ok(())
    }

    fn set_hardware(
        &mut self,
        netns: &Netns,
        link: &IfName,
        mac: Option<MacAddr>,
        mtu: Option<u32>,
    ) -> Result<(), String> {
        let link = self.link(netns, link)?;
        link.mac = mac.or(link.mac);
        link.mtu = mtu.unwrap_or(link.mtu);
        Ok(())
    }

    fn set_master(&mut self, netns: &Netns, link: &IfName, master: &IfName) -> Result<(), String> {
        if !matches!(self.link(netns, master)?.kind, ObservedKind::Bridge { .. }) {
            return Err(format!("{master} is no bridge"));
        }
        let port = self.link(netns, link)?;
        port.master = Some(Master::Name(master.clone()));
        port.port = Some(ObservedPortFlags { learning: true, isolated: false, hairpin: false });
        port.vlans = Some(PortVlans::from([(1, VlanFlags { pvid: true, untagged: true })]));
        Ok(())
    }

    fn set_port(&mut self, name: &str, port: &holdfast_net::desired::OvsPort, present: bool) -> Result<(), String> {
        self.last_index += 1;
        let uuid = format!("uuid{}", self.last_index);
        self.link(&Netns::Host, &name.parse().unwrap())?;
        let ovs = self.ovs()?;
        if !ovs.bridges.contains_key(&port.bridge) || ovs.ports.contains_key(name) != present {
            return Err("no such bridge, or the port is there".to_owned());
        }
        let (number, flows) = ovs.ports.get(name).map_or((None, None), |port| (port.number, port.flows.clone()));
        let port = ObservedPort {
            uuid,
            bridge: port.bridge.clone(),
            vlan: Some(port.vlan.clone()),
            attachment: Some(port.attachment.clone()),
            owner: port.owner.clone(),
            number,
            secured: port.security.is_some(),
            flows,
            error: None,
        };
        ovs.ports.insert(name.to_owned(), port);
        Ok(())
    }
}

fn add_route(link: &mut ObservedLink, route: &Route) -> Result<(), String> {
    let reachable = route.gateway.is_none_or(|gateway| link.addresses.iter().any(|own| own.contains(gateway)));
    if !link.up || !reachable {
        return Err("network is unreachable".to_owned());
    }
    link.routes.insert(route.clone()).then_some(()).ok_or_else(|| "route is there".to_owned())
}

pub fn name(name: &str) -> IfName {
    name.parse().unwrap()
}
