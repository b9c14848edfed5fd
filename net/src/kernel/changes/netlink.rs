//! What the kernel tells of links, addresses, routes and nftables, in all namespaces that have a number in ours.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::fd::AsRawFd;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockProtocol, recvmsg};
use tokio::io::unix::AsyncFd;
use tokio::sync::broadcast::Sender;

use super::Place;
use crate::kernel::netlink::{Datagram, Netlink};
use crate::mark::ROUTE_PROTOCOL;

/// rtnetlink(7): types of messages.
const LINKS_AND_ADDRESSES: [u16; 4] = [16, 17, 20, 21];
const ROUTES: [u16; 2] = [24, 25];
/// Where a route's message has its protocol (struct rtmsg).
const PROTOCOL_OFFSET: usize = 5;
/// Groups of rtnetlink, as a mask: RTNLGRP_LINK, _IPV4_IFADDR, _IPV4_ROUTE, _IPV6_IFADDR, _IPV6_ROUTE.
const LINK_GROUPS: u32 = 1 | 1 << 4 | 1 << 6 | 1 << 8 | 1 << 10;
/// Groups of nfnetlink, as a mask: NFNLGRP_NFTABLES.
const TABLE_GROUPS: u32 = 1 << 6;
/// What the names of all our tables begin with.
const TABLES: &[u8] = b"holdfast";
/// The control message with the number of the namespace, and its level (linux/netlink.h).
const SOL_NETLINK: i32 = 270;
const NETLINK_LISTEN_ALL_NSID: i32 = 8;
/// A datagram of notifications is at most a page, with slack for large links.
const BUFFER: usize = 32 * 1024;

/// What is listened to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Events {
    /// rtnetlink.
    Links,
    /// nftables.
    Tables,
}

/// Listens in the namespace of the calling thread.
pub(super) fn listen(what: Events) -> io::Result<AsyncFd<Socket>> {
    let (protocol, groups) = match what {
        Events::Links => (SockProtocol::NetlinkRoute, LINK_GROUPS),
        Events::Tables => (SockProtocol::NetlinkNetFilter, TABLE_GROUPS),
    };
    let mut socket = Socket::new(protocol as isize)?;
    socket.set_listen_all_namespaces(true)?;
    socket.set_non_blocking(true)?;
    socket.bind(&SocketAddr::new(0, groups))?;
    // SAFETY: the socket owns its descriptor, and nothing replaces or closes it before it is dropped.
    Ok(unsafe { AsyncFd::register(socket) }?)
}

/// Tells of what is heard, for as long as the socket works.
pub(super) async fn follow(listener: AsyncFd<Socket>, what: Events, heard: Sender<Place>) {
    let mut buffer = vec![0; BUFFER];
    loop {
        let Ok(mut ready) = listener.readable().await else { return };
        match receive(&listener, what, &mut buffer) {
            // Without anybody who listens there is nothing to do.
            Ok(Some(place)) => drop(heard.send(place)),
            Ok(None) => {}
            Err(Errno::EAGAIN) => ready.clear_ready(),
            Err(Errno::EINTR) => {}
            // More was told than fits into the socket.
            Err(Errno::ENOBUFS) => drop(heard.send(Place::Anywhere)),
            Err(error) => {
                tracing::error!(%error, ?what, "changes are found at the next look only");
                return;
            }
        }
    }
}

/// Where the next datagram tells of something that may be ours; none where it is not.
fn receive(listener: &AsyncFd<Socket>, what: Events, buffer: &mut [u8]) -> Result<Option<Place>, Errno> {
    let mut control = nix::cmsg_space!(i32);
    let mut parts = [IoSliceMut::new(buffer)];
    let message = recvmsg::<()>(listener.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty())?;
    let place = message.cmsgs()?.find_map(|control| namespace(&control)).map_or(Place::Host, Place::Namespace);
    let (length, whole) = (message.bytes, !message.flags.contains(MsgFlags::MSG_TRUNC));
    let datagram = buffer.get(..length).unwrap_or_default();
    Ok((!whole || may_be_ours(what, datagram)).then_some(place))
}

/// The namespace that a datagram is of; none for the host's, which has no number here.
fn namespace(control: &ControlMessageOwned) -> Option<i32> {
    let ControlMessageOwned::Unknown(unknown) = control else { return None };
    let header = &unknown.cmsg_header;
    let is_number = (header.cmsg_level, header.cmsg_type) == (SOL_NETLINK, NETLINK_LISTEN_ALL_NSID);
    let number = unknown.data_bytes.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes));
    number.filter(|number| is_number && *number >= 0)
}

/// Whether a datagram may tell of something of ours. Others' links cannot be told from ours by what is told of them,
/// or no more; they change rarely. Others' routes and tables may change all the time.
fn may_be_ours(what: Events, datagram: &[u8]) -> bool {
    Datagram(datagram).any(|message| {
        let Ok(message) = message else { return true };
        match what {
            Events::Links if ROUTES.contains(&message.kind) => {
                message.payload.get(PROTOCOL_OFFSET).is_none_or(|protocol| *protocol == ROUTE_PROTOCOL)
            }
            Events::Links => LINKS_AND_ADDRESSES.contains(&message.kind),
            Events::Tables => message.payload.windows(TABLES.len()).any(|window| window == TABLES),
        }
    })
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

    #[test]
    fn what_others_change_all_the_time_is_passed_over() {
        let route = |protocol: u8| message(24, &[2, 24, 0, 0, 254, protocol, 0, 1, 0, 0, 0, 0]);
        assert!(may_be_ours(Events::Links, &route(ROUTE_PROTOCOL)));
        assert!(!may_be_ours(Events::Links, &route(186)));
        assert!(may_be_ours(Events::Links, &[route(186), message(17, &[0; 16])].concat()));
        assert!(!may_be_ours(Events::Tables, &message(0xa00, b"\0\x0c\0\x01kube-proxy\0\0")));
        assert!(may_be_ours(Events::Tables, &message(0xa00, b"\0\x15\0\x01holdfast-k6t-lan\0")));
        // What cannot be read may be ours.
        assert!(may_be_ours(Events::Tables, &[0; 7]));
    }
}
