//! Reads links, addresses, routes, neighbours, settings and tables of a namespace, within a [`View`].

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::path::Path;

use ipnetwork::IpNetwork;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoMacVlan, InfoMacVtap, InfoPortData, InfoTun, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage, MacVlanMode, MacVtapMode,
};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteType};

use super::netlink::{NLM_F_DUMP, Netlink};
use super::netns::Inside;
use super::view::{Details, GuardView, View};
use super::{ethtool, guard, links, nft, shaper, vlans};
use crate::desired::{Route, Tap};
use crate::mark::{LinkMark, ROUTE_PROTOCOL};
use crate::model::{IfName, MacAddr, MacvlanMode};
use crate::observed::{Master, ObservedKind, ObservedLink, ObservedNamespace, ObservedPortFlags};

/// Attributes of a tun device (IFLA_TUN_* of linux/if_link.h), and the type of a tap.
const TUN_OWNER: u16 = 1;
const TUN_GROUP: u16 = 2;
const TUN_TYPE: u16 = 3;
const TUN_VNET_HEADER: u16 = 5;
const TUN_MULTI_QUEUE: u16 = 7;
const TYPE_TAP: u8 = 2;

/// Why something could not be observed: what, and the cause.
pub(super) type ObserveError = (String, io::Error);

/// Reads what the view asks for.
pub(super) fn observe(inside: &mut Inside, view: &View) -> Result<ObservedNamespace, ObserveError> {
    let failed = |what: &str| {
        let what = what.to_owned();
        move |error| (what, error)
    };
    let messages = read_links(&mut inside.route, view).map_err(failed("links"))?;
    let names: BTreeMap<u32, IfName> =
        messages.iter().filter_map(|message| Some((message.header.index, name_of(message)?))).collect();
    let mut namespace = ObservedNamespace { ipv6: Path::new("/proc/sys/net/ipv6").exists(), ..Default::default() };
    for message in &messages {
        let Some(name) = name_of(message) else { continue };
        let mut link = parse(message, &names);
        let index = link.index;
        let details = view.links.get(&name).copied().unwrap_or_default();
        read_details(inside, index, &name, details, &mut link).map_err(failed(&format!("link `{name}`")))?;
        namespace.links.insert(name, link);
    }
    count_ports(&mut namespace);
    // The kernel tells all of them or none.
    if view.links.values().any(|details| details.shaper) {
        let mut shapers = shaper::observe(&mut inside.route).map_err(failed("queues"))?;
        namespace.links.values_mut().for_each(|link| link.shaper = shapers.remove(&link.index));
    }
    for key in &view.sysctls {
        if let Some(value) = read_sysctl(key).map_err(failed(&format!("setting `{key}`")))? {
            namespace.sysctls.insert(key.clone(), value);
        }
    }
    if view.tables {
        namespace.tables = nft::observe(&mut inside.netfilter).map_err(failed("nftables"))?;
    }
    let only = match &view.guard {
        GuardView::Nothing => return Ok(namespace),
        GuardView::Only(elements) => Some(elements),
        GuardView::All => None,
    };
    namespace.guard = Some(guard::observe(&mut inside.netfilter, only).map_err(failed("port security"))?);
    Ok(namespace)
}

fn read_links(route: &mut Netlink, view: &View) -> io::Result<Vec<LinkMessage>> {
    if view.all_links {
        return dump_links(route);
    }
    let found = view.links.keys().map(|name| links::get(route, name));
    found.filter_map(Result::transpose).collect()
}

/// All links of the namespace.
pub(super) fn dump_links(route: &mut Netlink) -> io::Result<Vec<LinkMessage>> {
    let answers = route.route(&RouteNetlinkMessage::GetLink(LinkMessage::default()), NLM_F_DUMP)?;
    Ok(answers
        .into_iter()
        .filter_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(link) => Some(link),
            _ => None,
        })
        .collect())
}

/// The names of the namespace's bridges.
pub(super) fn bridges(route: &mut Netlink) -> io::Result<Vec<String>> {
    let is_bridge =
        |message: &&LinkMessage| matches!(parse(message, &BTreeMap::new()).kind, ObservedKind::Bridge { .. });
    let links = dump_links(route)?;
    Ok(links.iter().filter(is_bridge).filter_map(|message| Some(name_of(message)?.to_string())).collect())
}

/// A link's name; none where it is not one that the kernel would take today.
pub(super) fn name_of(message: &LinkMessage) -> Option<IfName> {
    message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => name.parse().ok(),
        _ => None,
    })
}

/// Counts each bridge's ports among the links that were read.
fn count_ports(namespace: &mut ObservedNamespace) {
    let masters: Vec<IfName> = namespace
        .links
        .values()
        .filter_map(|link| match &link.master {
            Some(Master::Name(master)) => Some(master.clone()),
            Some(Master::Index(_)) | None => None,
        })
        .collect();
    for (name, link) in &mut namespace.links {
        if let ObservedKind::Bridge { ports, .. } = &mut link.kind {
            *ports = masters.iter().filter(|master| *master == name).count();
        }
    }
}

/// Group and alias of a link, as far as they are ours.
pub(super) fn group_and_alias(message: &LinkMessage) -> (u32, Option<&str>) {
    let mut result = (0, None);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Group(group) => result.0 = *group,
            LinkAttribute::IfAlias(alias) => result.1 = Some(alias.as_str()),
            _ => {}
        }
    }
    result
}

fn parse(message: &LinkMessage, names: &BTreeMap<u32, IfName>) -> ObservedLink {
    let (group, alias) = group_and_alias(message);
    let mut link = ObservedLink {
        index: message.header.index,
        kind: ObservedKind::Other(String::new()),
        mark: LinkMark::read(group, alias),
        mac: None,
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        master: None,
        port: None,
        vlans: None,
        addresses: BTreeSet::new(),
        routes: BTreeSet::new(),
        neighbours: BTreeMap::new(),
        tx_checksum: None,
        shaper: None,
    };
    let mut peer = None;
    let mut info: &[LinkInfo] = &[];
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Address(bytes) => link.mac = bytes.as_slice().try_into().ok().map(MacAddr),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Link(index) => peer = Some(*index).filter(|index| *index != 0),
            LinkAttribute::Controller(index) => {
                link.master = Some(names.get(index).cloned().map_or(Master::Index(*index), Master::Name));
            }
            LinkAttribute::LinkInfo(found) => info = found,
            _ => {}
        }
    }
    for part in info {
        match part {
            LinkInfo::Kind(InfoKind::Bridge) => {
                link.kind = ObservedKind::Bridge { ports: 0, vlan_filtering: false };
            }
            LinkInfo::Kind(InfoKind::Veth) => link.kind = ObservedKind::Veth { peer },
            LinkInfo::Kind(kind @ (InfoKind::MacVlan | InfoKind::MacVtap)) => {
                // The kernel leaves an index out that is the link's own.
                let uplink = peer.unwrap_or(link.index);
                link.kind = ObservedKind::Macvlan { uplink, mode: None, tap: *kind == InfoKind::MacVtap };
            }
            LinkInfo::Kind(kind) => link.kind = ObservedKind::Other(kind.to_string()),
            LinkInfo::Data(InfoData::Bridge(data)) => {
                let on = data.contains(&InfoBridge::VlanFiltering(true));
                link.kind = ObservedKind::Bridge { ports: 0, vlan_filtering: on };
            }
            LinkInfo::Data(InfoData::Tun(data)) => {
                if let Some(tap) = parse_tap(data) {
                    link.kind = ObservedKind::Tap(tap);
                }
            }
            LinkInfo::Data(data @ (InfoData::MacVlan(_) | InfoData::MacVtap(_))) => {
                if let ObservedKind::Macvlan { mode, .. } = &mut link.kind {
                    *mode = macvlan_mode(data);
                }
            }
            LinkInfo::PortData(InfoPortData::BridgePort(flags)) => link.port = Some(parse_port(flags)),
            _ => {}
        }
    }
    link
}

/// The mode of a macvlan or macvtap; none where it is one that we never set.
fn macvlan_mode(data: &InfoData) -> Option<MacvlanMode> {
    match data {
        InfoData::MacVlan(data) => data.iter().find_map(|attribute| match attribute {
            InfoMacVlan::Mode(MacVlanMode::Bridge) => Some(MacvlanMode::Bridge),
            InfoMacVlan::Mode(MacVlanMode::Private) => Some(MacvlanMode::Private),
            _ => None,
        }),
        InfoData::MacVtap(data) => data.iter().find_map(|attribute| match attribute {
            InfoMacVtap::Mode(MacVtapMode::Bridge) => Some(MacvlanMode::Bridge),
            InfoMacVtap::Mode(MacVtapMode::Private) => Some(MacvlanMode::Private),
            _ => None,
        }),
        _ => None,
    }
}

/// A tap's attributes; none for a tun. Absent owners are read as the highest id, which nobody has.
fn parse_tap(data: &[InfoTun]) -> Option<Tap> {
    let mut tap = Tap { uid: u32::MAX, gid: u32::MAX, multi_queue: false, vnet_header: false };
    let mut is_tap = false;
    for attribute in data {
        let InfoTun::Other(attribute) = attribute else { continue };
        let mut value = vec![0; netlink_packet_core::Nla::value_len(attribute)];
        netlink_packet_core::Nla::emit_value(attribute, &mut value);
        let number = value
            .first_chunk()
            .map_or(u32::from(value.first().copied().unwrap_or(0)), |chunk| u32::from_ne_bytes(*chunk));
        match netlink_packet_core::Nla::kind(attribute) {
            TUN_OWNER => tap.uid = number,
            TUN_GROUP => tap.gid = number,
            TUN_TYPE => is_tap = number == u32::from(TYPE_TAP),
            TUN_VNET_HEADER => tap.vnet_header = number != 0,
            TUN_MULTI_QUEUE => tap.multi_queue = number != 0,
            _ => {}
        }
    }
    is_tap.then_some(tap)
}

fn parse_port(flags: &[InfoBridgePort]) -> ObservedPortFlags {
    let mut port = ObservedPortFlags { learning: true, isolated: false, hairpin: false };
    for flag in flags {
        match flag {
            InfoBridgePort::Learning(value) => port.learning = *value,
            InfoBridgePort::Isolated(value) => port.isolated = *value,
            InfoBridgePort::HairpinMode(value) => port.hairpin = *value,
            _ => {}
        }
    }
    port
}

fn read_details(
    inside: &mut Inside,
    index: u32,
    name: &IfName,
    details: Details,
    link: &mut ObservedLink,
) -> io::Result<()> {
    if details.addresses {
        link.addresses = read_addresses(&mut inside.route, index)?;
    }
    if details.routes {
        let routes = read_routes(&mut inside.route, index)?;
        let ours = RouteProtocol::from(ROUTE_PROTOCOL);
        link.routes = routes.into_iter().filter(|(protocol, _)| *protocol == ours).map(|(_, route)| route).collect();
    }
    if details.neighbours {
        link.neighbours = read_neighbours(&mut inside.route, index)?;
    }
    // One that is a port of nothing is a member of nothing.
    if details.vlans && link.port.is_some() {
        link.vlans = Some(vlans::read(&mut inside.route, index)?);
    }
    if details.tx_checksum {
        link.tx_checksum = Some(ethtool::tx_checksum(&inside.control, name)?);
    }
    Ok(())
}

/// Addresses of a link, IPv6 link-local ones left out.
pub(super) fn read_addresses(route: &mut Netlink, index: u32) -> io::Result<BTreeSet<IpNetwork>> {
    let mut request = AddressMessage::default();
    request.header.index = index;
    let answers = route.route(&RouteNetlinkMessage::GetAddress(request), NLM_F_DUMP)?;
    let parsed = answers.into_iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewAddress(message) if message.header.index == index => parse_address(&message),
        _ => None,
    });
    Ok(parsed.collect())
}

fn parse_address(message: &AddressMessage) -> Option<IpNetwork> {
    // IFA_ADDRESS is the other end on a point-to-point link; IFA_LOCAL, where there is one, is always our own.
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let any = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    });
    let address = local.or(any)?;
    let link_local = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
    (!link_local).then(|| IpNetwork::new(address, message.header.prefix_len).ok()).flatten()
}

/// Unicast routes of the main table through a link, with their protocols.
pub(super) fn read_routes(route: &mut Netlink, index: u32) -> io::Result<Vec<(RouteProtocol, Route)>> {
    let mut request = RouteMessage::default();
    request.attributes.push(RouteAttribute::Oif(index));
    let answers = route.route(&RouteNetlinkMessage::GetRoute(request), NLM_F_DUMP)?;
    let parsed = answers.into_iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewRoute(message) => parse_route(&message, index),
        _ => None,
    });
    Ok(parsed.collect())
}

fn parse_route(message: &RouteMessage, index: u32) -> Option<(RouteProtocol, Route)> {
    let header = &message.header;
    if header.table != RouteHeader::RT_TABLE_MAIN || header.kind != RouteType::Unicast {
        return None;
    }
    let (mut through, mut destination, mut gateway) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => through = Some(*index),
            RouteAttribute::Destination(address) => destination = ip(address),
            RouteAttribute::Gateway(address) => gateway = ip(address),
            _ => {}
        }
    }
    let any: IpAddr = match header.address_family {
        netlink_packet_route::AddressFamily::Inet => std::net::Ipv4Addr::UNSPECIFIED.into(),
        netlink_packet_route::AddressFamily::Inet6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let destination = IpNetwork::new(destination.unwrap_or(any), header.destination_prefix_length).ok()?;
    (through == Some(index)).then_some((header.protocol, Route { destination, gateway }))
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

fn read_neighbours(route: &mut Netlink, index: u32) -> io::Result<BTreeMap<IpAddr, MacAddr>> {
    let request = NeighbourMessage::default();
    let answers = route.route(&RouteNetlinkMessage::GetNeighbour(request), NLM_F_DUMP)?;
    let parsed = answers.into_iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewNeighbour(message) if message.header.ifindex == index => parse_neighbour(&message),
        _ => None,
    });
    Ok(parsed.collect())
}

/// A neighbour of ours.
fn parse_neighbour(message: &NeighbourMessage) -> Option<(IpAddr, MacAddr)> {
    let (mut address, mut mac, mut ours) = (None, None, false);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(found)) => address = Some(IpAddr::V4(*found)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(found)) => address = Some(IpAddr::V6(*found)),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok().map(MacAddr),
            NeighbourAttribute::Protocol(protocol) => ours = *protocol == RouteProtocol::from(ROUTE_PROTOCOL),
            _ => {}
        }
    }
    if ours { address.zip(mac) } else { None }
}

/// A setting of the namespace of this thread; none where there is none of this name.
fn read_sysctl(key: &str) -> io::Result<Option<String>> {
    match std::fs::read_to_string(Path::new("/proc/sys").join(key)) {
        Ok(value) => Ok(Some(value.trim_end().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
