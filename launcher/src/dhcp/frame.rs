//! From the guest's Ethernet frame to the frame that answers it.

use std::net::Ipv4Addr;

use dhcproto::Encodable;
use dhcproto::v4::{HType, Message, MessageType, OptionCode, borrowed};
use etherparse::{LinkSlice, NetSlice, PacketBuilder, SlicedPacket, TransportSlice};

use super::{Lease, answer};

const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;
/// The Ethernet address that answers come from; guests may not have it.
const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0];
const TTL: u8 = 64;

/// Answers one received frame, if it is for us. Never panics, whatever the bytes are.
#[must_use]
pub fn reply(lease: &Lease, frame: &[u8]) -> Option<Vec<u8>> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let Some(LinkSlice::Ethernet2(ethernet)) = packet.link else { return None };
    let Some(NetSlice::Ipv4(_)) = packet.net else { return None };
    let Some(TransportSlice::Udp(udp)) = packet.transport else { return None };
    // Frames of another sender on the same tap are not the VM's NIC.
    if udp.destination_port() != SERVER_PORT || ethernet.source() != lease.mac.octets() {
        return None;
    }
    let message = read(udp.payload())?;
    let answer = answer(lease, &message)?;
    wrap(lease, &answer)
}

/// Reads as much of a request as decides on its answer. The crate's decoder of whole messages panics on some options
/// that a guest may get wrong, so only these few, which it reads safely, are given to it.
fn read(payload: &[u8]) -> Option<Message> {
    let raw = borrowed::Message::new(payload).ok()?;
    if raw.htype() != HType::Eth || raw.hlen() != 6 {
        return None;
    }
    let (own, next) = (raw.ciaddr(), raw.giaddr());
    let mut message =
        Message::new_with_id(raw.xid(), own, Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED, next, raw.chaddr());
    message.set_opcode(raw.opcode()).set_htype(raw.htype()).set_flags(raw.flags());
    for option in raw.opts() {
        let decides = matches!(
            option.code(),
            OptionCode::MessageType
                | OptionCode::RequestedIpAddress
                | OptionCode::ServerIdentifier
                | OptionCode::ClientIdentifier
        );
        if decides {
            message.opts_mut().insert(option.into_option().ok()?);
        }
    }
    Some(message)
}

/// To whom an answer goes (RFC 2131, 4.1): a client without an address that cannot take unicast asks for broadcast.
fn wrap(lease: &Lease, answer: &Message) -> Option<Vec<u8>> {
    let client = lease.mac.octets();
    let broadcast = (holdfast_net::model::MacAddr::BROADCAST.octets(), Ipv4Addr::BROADCAST);
    let (mac, address) = if answer.opts().has_msg_type(MessageType::Nak) {
        broadcast
    } else if !answer.ciaddr().is_unspecified() {
        (client, answer.ciaddr())
    } else if answer.flags().broadcast() || answer.yiaddr().is_unspecified() {
        broadcast
    } else {
        (client, answer.yiaddr())
    };
    let payload = answer.to_vec().ok()?;
    let builder = PacketBuilder::ethernet2(SERVER_MAC, mac)
        .ipv4(lease.network.server.octets(), address.octets(), TTL)
        .udp(SERVER_PORT, CLIENT_PORT);
    let mut frame = Vec::with_capacity(builder.size(payload.len()));
    builder.write(&mut frame, &payload).ok()?;
    Some(frame)
}
