//! What the kernel tells of links, addresses, routes, queues and nftables, in all namespaces that have a number in ours.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use netlink_packet_core::{NlaBuffer, NlasIterator};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockProtocol, recvmsg, setsockopt, sockopt};
use tokio::io::unix::AsyncFd;
use tokio::sync::broadcast::Sender;

use super::Place;
use crate::kernel::netlink::{Datagram, Message, Netlink};
use crate::kernel::shaper::{DELETE_QUEUE, HANDLE, HANDLE_OFFSET, NEW_QUEUE};
use crate::kernel::{guard, observe};
use crate::mark::ROUTE_PROTOCOL;
use crate::model::IfName;

/// rtnetlink(7): types of messages.
const DELETED_LINK: u16 = 17;
const LINKS: [u16; 2] = [16, DELETED_LINK];
const ADDRESSES: [u16; 2] = [20, 21];
/// RTM_NEWVLAN and RTM_DELVLAN, whose struct br_vlan_msg has the number of the link where the others have it.
const VLANS: [u16; 2] = [112, 113];
const ROUTES: [u16; 2] = [24, 25];
const QUEUES: [u16; 2] = [NEW_QUEUE, DELETE_QUEUE];
/// Where the messages of links, addresses and queues have the number of their link (struct ifinfomsg, struct ifaddrmsg, struct
/// tcmsg), how long the first one's header is, and IFLA_IFNAME.
const INDEX_OFFSET: usize = 4;
const LINK_HEADER: usize = 16;
const NAME: u16 = 3;
/// Where a route's message has its protocol (struct rtmsg).
const PROTOCOL_OFFSET: usize = 5;
/// Groups of rtnetlink, as a mask: RTNLGRP_LINK, _TC, _IPV4_IFADDR, _IPV4_ROUTE, _IPV6_IFADDR,
/// _IPV6_ROUTE.
const LINK_GROUPS: u32 = 1 | 1 << 3 | 1 << 4 | 1 << 6 | 1 << 8 | 1 << 10;
/// RTNLGRP_BRVLAN, which is too high for a mask.
const VLAN_GROUP: u32 = 33;
/// Groups of nfnetlink, as a mask: NFNLGRP_NFTABLES.
const TABLE_GROUPS: u32 = 1 << 6;
/// What the names of all our tables begin with.
const TABLES: &[u8] = b"holdfast";
/// The control message with the number of the namespace, and its level (linux/netlink.h).
const SOL_NETLINK: i32 = 270;
const NETLINK_LISTEN_ALL_NSID: i32 = 8;
/// A datagram of notifications is at most a page, with slack for large links.
const BUFFER: usize = 32 * 1024;

/// How long what is told waits to be read: it comes in groups, most of it while we are at work ourselves.
const GATHER: Duration = Duration::from_millis(10);
/// Room for what is told by then, in bytes; of an ADD it is some 60 KiB.
const ROOM: usize = 8 << 20;

/// What is listened to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Events {
    /// rtnetlink.
    Links,
    /// nftables.
    Tables,
}

/// A socket that hears of events in all namespaces.
pub(super) struct Listener {
    socket: AsyncFd<Socket>,
    what: Events,
    /// The host's links by number: what is told of an address has no name.
    names: HashMap<u32, IfName>,
}

impl Listener {
    /// Listens in the namespace of the calling thread.
    pub(super) fn open(what: Events) -> io::Result<Self> {
        let (protocol, groups) = match what {
            Events::Links => (SockProtocol::NetlinkRoute, LINK_GROUPS),
            Events::Tables => (SockProtocol::NetlinkNetFilter, TABLE_GROUPS),
        };
        let mut socket = Socket::new(protocol as isize)?;
        socket.set_listen_all_namespaces(true)?;
        socket.set_non_blocking(true)?;
        // SAFETY: the socket is open for as long as this is used.
        let fd = unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) };
        // Without the right to it there is less room; what does not fit is told as `Anywhere`.
        let _ = setsockopt(&fd, sockopt::RcvBufForce, &ROOM);
        socket.bind(&SocketAddr::new(0, groups))?;
        if what == Events::Links {
            // Kernels before 5.6 do not have it, and tell of VLANs of ports as of their links.
            let _ = socket.add_membership(VLAN_GROUP);
        }
        let links =
            if what == Events::Links { observe::dump_links(&mut Netlink::open(protocol)?)? } else { Vec::new() };
        let names = links.iter().filter_map(|link| Some((link.header.index, observe::name_of(link)?))).collect();
        // SAFETY: the socket owns its descriptor, and nothing replaces or closes it before it is dropped.
        Ok(Self { socket: unsafe { AsyncFd::register(socket) }?, what, names })
    }

    /// Tells of what is heard, for as long as the socket works.
    pub(super) async fn follow(mut self, heard: Sender<Place>) {
        let mut buffer = vec![0; BUFFER];
        while let Ok(mut ready) = self.socket.readable().await {
            ready.clear_ready();
            drop(ready);
            tokio::time::sleep(GATHER).await;
            let mut places = BTreeSet::new();
            loop {
                match receive(&self.socket, &mut buffer) {
                    Ok(datagram) => places.extend(self.places(datagram)),
                    Err(Errno::EAGAIN) => break,
                    Err(Errno::EINTR) => {}
                    // More was told than fits into the socket.
                    Err(Errno::ENOBUFS) => _ = places.insert(Place::Anywhere),
                    Err(error) => {
                        tracing::error!(%error, what = ?self.what, "changes are found at the next look only");
                        return;
                    }
                }
            }
            // Without anybody who listens there is nothing to do.
            places.into_iter().for_each(|place| drop(heard.send(place)));
        }
    }

    /// Where a datagram tells of something that may be ours. Others' links cannot be told from ours by what is told of
    /// them, or no more; they change rarely. Others' routes and tables may change all the time.
    fn places(&mut self, datagram: Told<'_>) -> BTreeSet<Place> {
        let whole = match datagram.namespace {
            Some(number) => Place::Namespace(number),
            None => Place::Host,
        };
        let mut places = BTreeSet::new();
        for message in Datagram(datagram.bytes) {
            match message {
                Ok(message) if !may_be_ours(self.what, &message) => {}
                Ok(message) if datagram.namespace.is_none() => match self.links(&message) {
                    Some(links) => places.extend(links.into_iter().map(Place::Link)),
                    None => _ = places.insert(whole.clone()),
                },
                Ok(_) | Err(_) => _ = places.insert(whole.clone()),
            }
        }
        if !datagram.is_whole {
            places.insert(whole);
        }
        places
    }

    /// The host's links that a message is about; none where it does not say.
    fn links(&mut self, message: &Message<'_>) -> Option<Vec<IfName>> {
        if self.what == Events::Tables {
            return guard::ports_of(message.kind, message.payload);
        }
        let index = message.payload.get(INDEX_OFFSET..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))?;
        let known = self.names.get(&index).cloned();
        if !LINKS.contains(&message.kind) {
            let told = [ADDRESSES, VLANS, QUEUES].iter().flatten().any(|kind| *kind == message.kind);
            return told.then(|| known.into_iter().collect());
        }
        let attributes = NlasIterator::new(message.payload.get(LINK_HEADER..)?);
        let name = attributes.map_while(Result::ok).find(|attribute: &NlaBuffer<&[u8]>| attribute.kind() == NAME)?;
        let name: IfName = std::str::from_utf8(name.value()).ok()?.trim_end_matches('\0').parse().ok()?;
        if message.kind == DELETED_LINK {
            self.names.remove(&index);
        } else {
            self.names.insert(index, name.clone());
        }
        // One that was called otherwise is missed there.
        Some(known.into_iter().filter(|known| *known != name).chain([name.clone()]).collect())
    }
}

/// A datagram, and the namespace that it is of; none for the host's, which has no number here.
#[derive(Debug, PartialEq, Eq)]
struct Told<'a> {
    namespace: Option<i32>,
    bytes: &'a [u8],
    is_whole: bool,
}

fn receive<'a>(socket: &AsyncFd<Socket>, buffer: &'a mut [u8]) -> Result<Told<'a>, Errno> {
    let mut control = nix::cmsg_space!(i32);
    let mut parts = [IoSliceMut::new(buffer)];
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty())?;
    let namespace = message.cmsgs()?.find_map(|control| namespace(&control));
    let (length, is_whole) = (message.bytes, !message.flags.contains(MsgFlags::MSG_TRUNC));
    Ok(Told { namespace, bytes: buffer.get(..length).unwrap_or_default(), is_whole })
}

/// The namespace that a datagram is of; none for the host's, which has no number here.
fn namespace(control: &ControlMessageOwned) -> Option<i32> {
    let ControlMessageOwned::Unknown(unknown) = control else { return None };
    let header = &unknown.cmsg_header;
    let is_number = (header.cmsg_level, header.cmsg_type) == (SOL_NETLINK, NETLINK_LISTEN_ALL_NSID);
    let number = unknown.data_bytes.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes));
    number.filter(|number| is_number && *number >= 0)
}

/// Whether a message may tell of something of ours.
fn may_be_ours(what: Events, message: &Message<'_>) -> bool {
    match what {
        Events::Links if ROUTES.contains(&message.kind) => {
            message.payload.get(PROTOCOL_OFFSET).is_none_or(|protocol| *protocol == ROUTE_PROTOCOL)
        }
        Events::Links if QUEUES.contains(&message.kind) => {
            let handle = message.payload.get(HANDLE_OFFSET..).and_then(|rest| rest.first_chunk());
            handle.is_none_or(|handle| u32::from_ne_bytes(*handle) == HANDLE)
        }
        Events::Links => [LINKS, ADDRESSES, VLANS].iter().flatten().any(|kind| *kind == message.kind),
        Events::Tables => message.payload.windows(TABLES.len()).any(|window| window == TABLES),
    }
}

/// The number of a namespace in that of the calling thread; it is given one where it has none.
pub(in crate::kernel) fn number_of(route: &mut Netlink, namespace: &File) -> io::Result<i32> {
    let fd = u32::try_from(namespace.as_raw_fd()).map_err(io::Error::other)?;
    if let Some(number) = ask(route, fd)? {
        return Ok(number);
    }
    // -1: whichever is free.
    let name = request(&[NsidAttribute::Fd(fd), NsidAttribute::Id(-1)]);
    match route.route(&RouteNetlinkMessage::NewNsId(name), 0) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    ask(route, fd)?.ok_or_else(|| io::Error::other("a network namespace does not keep its number"))
}

fn ask(route: &mut Netlink, fd: u32) -> io::Result<Option<i32>> {
    let answers = route.route(&RouteNetlinkMessage::GetNsId(request(&[NsidAttribute::Fd(fd)])), 0)?;
    let number = answers.iter().find_map(|answer| match answer {
        RouteNetlinkMessage::NewNsId(message) => message.attributes.iter().find_map(|attribute| match attribute {
            NsidAttribute::Id(number) => Some(*number),
            _ => None,
        }),
        _ => None,
    });
    Ok(number.filter(|number| *number >= 0))
}

fn request(attributes: &[NsidAttribute]) -> NsidMessage {
    let mut message = NsidMessage::default();
    message.attributes = attributes.to_vec();
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message of this type.
    fn message(kind: u16, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(16 + payload.len()).unwrap_or_default();
        [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10], payload].concat()
    }

    fn places(what: Events, bytes: &[u8]) -> Vec<Place> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _inside = runtime.enter();
        let mut listener = Listener::open(what).unwrap();
        listener.names = HashMap::from([(7, "hf7".parse().unwrap())]);
        listener.places(Told { namespace: None, bytes, is_whole: true }).into_iter().collect()
    }

    #[test]
    fn what_others_change_all_the_time_is_passed_over() {
        let route = |protocol: u8| message(24, &[2, 24, 0, 0, 254, protocol, 0, 1, 0, 0, 0, 0]);
        assert_eq!(places(Events::Links, &route(ROUTE_PROTOCOL)), [Place::Host]);
        assert_eq!(places(Events::Links, &route(186)), []);
        assert_eq!(places(Events::Links, &[route(186), message(17, &[0; 16])].concat()), [Place::Host]);
        assert_eq!(places(Events::Tables, &message(0xa00, b"\0\x0c\0\x01kube-proxy\0\0")), []);
        assert_eq!(places(Events::Tables, &message(0xa00, b"\0\x15\0\x01holdfast-k6t-lan\0")), [Place::Host]);
        // What cannot be read may be ours.
        assert_eq!(places(Events::Tables, &[0; 7]), [Place::Host]);
    }

    #[test]
    fn a_link_is_called_by_its_name_and_by_the_one_before() {
        let named =
            |kind, name: &[u8; 4]| message(kind, &[&[0; 4], &[7, 0, 0, 0][..], &[0; 8], &[8, 0, 3, 0], name].concat());
        let link = |name: &str| Place::Link(name.parse().unwrap());
        assert_eq!(places(Events::Links, &named(16, b"hf7\0")), [link("hf7")]);
        assert_eq!(places(Events::Links, &named(17, b"hf8\0")), [link("hf7"), link("hf8")]);
        assert_eq!(places(Events::Links, &message(20, &[2, 24, 0, 0, 7, 0, 0, 0])), [link("hf7")]);
        assert_eq!(places(Events::Links, &message(20, &[2, 24, 0, 0, 8, 0, 0, 0])), []);
    }
}
