//! What rtnetlink is asked to do: one function per kind of request.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use ipnetwork::IpNetwork;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoMacVlan, InfoMacVtap, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage, MacVlanMode, MacVtapMode,
};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::netlink::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Netlink};
use crate::desired::{PortFlags, Route};
use crate::mark::{DOOMED_LINK_GROUP, LINK_GROUP, Mark, OwnedLink, ROUTE_PROTOCOL};
use crate::model::{IfName, MacAddr, MacvlanMode};

/// What a new veth is to be; see [`crate::op::Op::CreateVeth`].
pub(super) struct Veth<'a> {
    pub(super) name: &'a IfName,
    pub(super) mac: Option<MacAddr>,
    pub(super) mtu: Option<u32>,
    pub(super) master: Option<&'a IfName>,
    pub(super) peer_netns: BorrowedFd<'a>,
    pub(super) peer_name: &'a IfName,
    pub(super) peer_mac: Option<MacAddr>,
}

/// What a new macvlan or macvtap is to be; see [`crate::op::Op::CreateMacvlan`].
pub(super) struct Macvlan<'a> {
    pub(super) netns: BorrowedFd<'a>,
    pub(super) name: &'a IfName,
    pub(super) uplink: &'a IfName,
    pub(super) mode: MacvlanMode,
    pub(super) tap: bool,
    pub(super) mac: Option<MacAddr>,
    pub(super) mtu: Option<u32>,
}

/// The index of a link of the namespace of this thread. Asked for in the way that tells nothing else: each step does.
pub(super) fn index(name: &IfName) -> io::Result<u32> {
    Ok(nix::net::if_::if_nametoindex(name.as_str())?)
}

/// A link by its name; none where there is none.
pub(super) fn get(route: &mut Netlink, name: &IfName) -> io::Result<Option<LinkMessage>> {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_string()));
    match route.route(&RouteNetlinkMessage::GetLink(message), 0) {
        Ok(answers) => Ok(answers.into_iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(link) => Some(link),
            _ => None,
        })),
        Err(error) if error.raw_os_error() == Some(nix::libc::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

fn named(name: &IfName) -> Vec<LinkAttribute> {
    vec![LinkAttribute::IfName(name.to_string())]
}

fn hardware(mac: Option<MacAddr>, mtu: Option<u32>) -> impl Iterator<Item = LinkAttribute> {
    let mac = mac.map(|mac| LinkAttribute::Address(mac.octets().to_vec()));
    mac.into_iter().chain(mtu.map(LinkAttribute::Mtu))
}

fn create(route: &mut Netlink, attributes: Vec<LinkAttribute>) -> io::Result<()> {
    let mut message = LinkMessage::default();
    message.attributes = attributes;
    create_by(route, message)
}

fn create_by(route: &mut Netlink, message: LinkMessage) -> io::Result<()> {
    route.route(&RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL).map(|_| ())
}

/// Makes a bridge of ours.
pub(super) fn create_bridge(
    route: &mut Netlink,
    name: &IfName,
    mac: Option<MacAddr>,
    mtu: Option<u32>,
) -> io::Result<()> {
    let mut attributes = named(name);
    attributes.push(LinkAttribute::Group(LINK_GROUP));
    attributes.extend(hardware(mac, mtu));
    attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]));
    create(route, attributes)
}

/// Makes a veth pair, the first end ours by its group; the other end goes with it.
pub(super) fn create_veth(route: &mut Netlink, veth: &Veth<'_>) -> io::Result<()> {
    let mut peer = LinkMessage::default();
    peer.attributes = named(veth.peer_name);
    peer.attributes.extend(hardware(veth.peer_mac, veth.mtu));
    peer.attributes.push(LinkAttribute::NetNsFd(veth.peer_netns.as_raw_fd()));
    let mut attributes = named(veth.name);
    attributes.push(LinkAttribute::Group(LINK_GROUP));
    attributes.extend(hardware(veth.mac, veth.mtu));
    if let Some(master) = veth.master {
        attributes.push(LinkAttribute::Controller(index(master)?));
    }
    let peer = InfoData::Veth(InfoVeth::Peer(peer));
    attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(peer)]));
    create(route, attributes)
}

/// Makes a macvlan or macvtap of ours in another namespace, on a link of this one.
pub(super) fn create_macvlan(route: &mut Netlink, macvlan: &Macvlan<'_>) -> io::Result<()> {
    let (kind, data) = match (macvlan.tap, macvlan.mode) {
        (true, MacvlanMode::Bridge) => {
            (InfoKind::MacVtap, InfoData::MacVtap(vec![InfoMacVtap::Mode(MacVtapMode::Bridge)]))
        }
        (true, MacvlanMode::Private) => {
            (InfoKind::MacVtap, InfoData::MacVtap(vec![InfoMacVtap::Mode(MacVtapMode::Private)]))
        }
        (false, MacvlanMode::Bridge) => {
            (InfoKind::MacVlan, InfoData::MacVlan(vec![InfoMacVlan::Mode(MacVlanMode::Bridge)]))
        }
        (false, MacvlanMode::Private) => {
            (InfoKind::MacVlan, InfoData::MacVlan(vec![InfoMacVlan::Mode(MacVlanMode::Private)]))
        }
    };
    let mut attributes = named(macvlan.name);
    attributes.push(LinkAttribute::Group(LINK_GROUP));
    attributes.extend(hardware(macvlan.mac, macvlan.mtu));
    attributes.push(LinkAttribute::Link(index(macvlan.uplink)?));
    attributes.push(LinkAttribute::NetNsFd(macvlan.netns.as_raw_fd()));
    attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind), LinkInfo::Data(data)]));
    let mut message = LinkMessage::default();
    if macvlan.tap {
        // Which groups the guest has joined nobody tells the macvtap, and without its neighbours' solicitations a guest
        // has no IPv6: all of them are for it.
        message.header.flags = LinkFlags::Allmulti;
        message.header.change_mask = LinkFlags::Allmulti;
    }
    message.attributes = attributes;
    create_by(route, message)
}

/// Changes a link that is there.
fn set(route: &mut Netlink, link: &IfName, attribute: LinkAttribute) -> io::Result<()> {
    let index = index(link)?;
    set_index(route, index, vec![attribute])
}

fn set_index(route: &mut Netlink, index: u32, attributes: Vec<LinkAttribute>) -> io::Result<()> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes = attributes;
    route.route(&RouteNetlinkMessage::SetLink(message), 0).map(|_| ())
}

/// Marks a link as ours, and as part of something.
pub(super) fn set_mark(route: &mut Netlink, link: &IfName, mark: &Mark) -> io::Result<()> {
    let index = index(link)?;
    set_index(route, index, vec![LinkAttribute::Group(LINK_GROUP), LinkAttribute::IfAlias(mark.to_string())])
}

/// Marks a link as ours by its group alone.
pub(super) fn set_group(route: &mut Netlink, link: &IfName) -> io::Result<()> {
    set(route, link, LinkAttribute::Group(LINK_GROUP))
}

pub(super) fn set_mac(route: &mut Netlink, link: &IfName, mac: MacAddr) -> io::Result<()> {
    set(route, link, LinkAttribute::Address(mac.octets().to_vec()))
}

pub(super) fn set_mtu(route: &mut Netlink, link: &IfName, mtu: u32) -> io::Result<()> {
    set(route, link, LinkAttribute::Mtu(mtu))
}

pub(super) fn clear_master(route: &mut Netlink, link: &IfName) -> io::Result<()> {
    set(route, link, LinkAttribute::Controller(0))
}

pub(super) fn set_master(route: &mut Netlink, link: &IfName, master: &IfName) -> io::Result<()> {
    let master = index(master)?;
    set(route, link, LinkAttribute::Controller(master))
}

pub(super) fn set_up(route: &mut Netlink, link: &IfName, up: bool) -> io::Result<()> {
    let mut message = LinkMessage::default();
    message.header.index = index(link)?;
    message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
    message.header.change_mask = LinkFlags::Up;
    route.route(&RouteNetlinkMessage::SetLink(message), 0).map(|_| ())
}

pub(super) fn set_port_flags(route: &mut Netlink, link: &IfName, flags: PortFlags) -> io::Result<()> {
    let PortFlags { learning, isolated, hairpin } = flags;
    let data = [
        learning.map(InfoBridgePort::Learning),
        isolated.map(InfoBridgePort::Isolated),
        hairpin.map(InfoBridgePort::HairpinMode),
    ];
    let data = InfoPortData::BridgePort(data.into_iter().flatten().collect());
    let mut message = LinkMessage::default();
    message.header.index = index(link)?;
    message.attributes =
        vec![LinkAttribute::LinkInfo(vec![LinkInfo::PortKind(InfoPortKind::Bridge), LinkInfo::PortData(data)])];
    // Port data is taken in RTM_NEWLINK only; without NLM_F_CREATE that changes what is there.
    route.route(&RouteNetlinkMessage::NewLink(message), 0).map(|_| ())
}

/// Deletes links all at once: they are moved to the group of the doomed, and that is deleted in one message, for which
/// the kernel waits once and not for each. Those that are gone, or whose name now is another link's, are left out.
/// Tells whether there was any.
pub(super) fn delete(route: &mut Netlink, links: &[OwnedLink]) -> io::Result<bool> {
    let mut doomed = Vec::new();
    for link in links {
        if let Some(present) = get(route, link.name())?
            && present.header.index == link.index()
        {
            doomed.push(link.index());
        }
    }
    let mut message = LinkMessage::default();
    match doomed.as_slice() {
        [] => return Ok(false),
        [index] => message.header.index = *index,
        several => {
            for index in several {
                gone_is_fine(set_index(route, *index, vec![LinkAttribute::Group(DOOMED_LINK_GROUP)]))?;
            }
            message.attributes.push(LinkAttribute::Group(DOOMED_LINK_GROUP));
        }
    }
    gone_is_fine(route.route(&RouteNetlinkMessage::DelLink(message), 0).map(|_| ()))
}

/// False where the kernel says that there is no such object.
pub(super) fn gone_is_fine(result: io::Result<()>) -> io::Result<bool> {
    use nix::libc::{EADDRNOTAVAIL, ENODEV, ENOENT, ESRCH};
    match result {
        Ok(()) => Ok(true),
        Err(error) => match error.raw_os_error() {
            Some(ENODEV | ENOENT | ESRCH | EADDRNOTAVAIL) => Ok(false),
            _ => Err(error),
        },
    }
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn address(link: &IfName, address: IpNetwork) -> io::Result<AddressMessage> {
    let mut message = AddressMessage::default();
    message.header.family = family(address.ip());
    message.header.prefix_len = address.prefix();
    message.header.index = index(link)?;
    message.attributes = vec![AddressAttribute::Local(address.ip()), AddressAttribute::Address(address.ip())];
    if let IpNetwork::V4(address) = address
        && address.prefix() < 31
    {
        message.attributes.push(AddressAttribute::Broadcast(address.broadcast()));
    }
    Ok(message)
}

pub(super) fn add_address(route: &mut Netlink, link: &IfName, network: IpNetwork) -> io::Result<()> {
    let message = address(link, network)?;
    route.route(&RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL).map(|_| ())
}

pub(super) fn remove_address(route: &mut Netlink, link: &IfName, network: IpNetwork) -> io::Result<()> {
    let mut message = address(link, network)?;
    message.attributes.retain(|attribute| !matches!(attribute, AddressAttribute::Broadcast(_)));
    route.route(&RouteNetlinkMessage::DelAddress(message), 0).map(|_| ())
}

fn route_message(link: &IfName, route: &Route) -> io::Result<RouteMessage> {
    let destination = route.destination;
    let mut message = RouteMessage::default();
    message.header.address_family = family(destination.ip());
    message.header.destination_prefix_length = destination.prefix();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::from(ROUTE_PROTOCOL);
    message.header.kind = RouteType::Unicast;
    message.header.scope = if route.gateway.is_some() { RouteScope::Universe } else { RouteScope::Link };
    message.attributes.push(RouteAttribute::Oif(index(link)?));
    if destination.prefix() > 0 {
        message.attributes.push(RouteAttribute::Destination(RouteAddress::from(destination.ip())));
    }
    if let Some(gateway) = route.gateway {
        message.attributes.push(RouteAttribute::Gateway(RouteAddress::from(gateway)));
    }
    Ok(message)
}

pub(super) fn add_route(netlink: &mut Netlink, link: &IfName, route: &Route) -> io::Result<()> {
    let message = route_message(link, route)?;
    netlink.route(&RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL).map(|_| ())
}

pub(super) fn remove_route(netlink: &mut Netlink, link: &IfName, route: &Route) -> io::Result<()> {
    let message = route_message(link, route)?;
    netlink.route(&RouteNetlinkMessage::DelRoute(message), 0).map(|_| ())
}

fn neighbour(link: &IfName, address: IpAddr) -> io::Result<NeighbourMessage> {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address);
    message.header.ifindex = index(link)?;
    message.header.state = NeighbourState::Permanent;
    message.header.kind = RouteType::Unicast;
    message.attributes.push(NeighbourAttribute::Destination(address.into()));
    message.attributes.push(NeighbourAttribute::Protocol(RouteProtocol::from(ROUTE_PROTOCOL)));
    Ok(message)
}

pub(super) fn set_neighbour(route: &mut Netlink, link: &IfName, address: IpAddr, mac: MacAddr) -> io::Result<()> {
    let mut message = neighbour(link, address)?;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.octets().to_vec()));
    route.route(&RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE).map(|_| ())
}

pub(super) fn remove_neighbour(route: &mut Netlink, link: &IfName, address: IpAddr) -> io::Result<()> {
    let message = neighbour(link, address)?;
    route.route(&RouteNetlinkMessage::DelNeighbour(message), 0).map(|_| ())
}
