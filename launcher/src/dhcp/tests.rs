//! The protocol case by case, and anything at all as a frame.

use std::net::Ipv4Addr;

use dhcproto::v4::{DhcpOption, Message, MessageType, Opcode, OptionCode};
use dhcproto::{Decodable, Decoder, Encodable};
use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};
use holdfast_net::model::{DhcpV4, StaticRoute};
use proptest::prelude::*;

use super::{Lease, answer, reply};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 20);
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 1);

fn lease() -> Lease {
    Lease {
        mac: "02:00:00:00:00:01".parse().unwrap(),
        network: DhcpV4 {
            address: "192.168.7.20/24".parse().unwrap(),
            server: SERVER,
            router: Some(SERVER),
            dns: vec![Ipv4Addr::new(10, 0, 0, 53)],
            search: vec!["a.example".to_owned(), "b.example".to_owned()],
            routes: vec![StaticRoute {
                destination: "10.8.0.0/16".parse().unwrap(),
                gateway: Some("192.168.7.254".parse().unwrap()),
            }],
            hostname: Some("guest".to_owned()),
            lease_seconds: 8000,
        },
        mtu: 1450,
        boot_file: Some("pxelinux.0".to_owned()),
        tftp_server: Some("10.0.0.69".to_owned()),
        ntp_servers: vec![Ipv4Addr::new(10, 0, 0, 123)],
        private: vec![(240, "private".to_owned())],
    }
}

fn message(kind: MessageType) -> Message {
    let none = Ipv4Addr::UNSPECIFIED;
    let mut message = Message::new_with_id(7, none, none, none, none, &MAC);
    message.opts_mut().insert(DhcpOption::MessageType(kind));
    message
}

fn asking_for(address: Ipv4Addr) -> Message {
    let mut message = message(MessageType::Request);
    message.opts_mut().insert(DhcpOption::RequestedIpAddress(address));
    message
}

fn kind(message: &Message) -> MessageType {
    message.opts().msg_type().unwrap()
}

#[test]
fn offers_and_confirms_its_own_address() {
    let offer = answer(&lease(), &message(MessageType::Discover)).unwrap();
    assert_eq!((kind(&offer), offer.yiaddr(), offer.xid()), (MessageType::Offer, ADDRESS, 7));
    assert_eq!(offer.opcode(), Opcode::BootReply);
    let mut request = asking_for(ADDRESS);
    request.opts_mut().insert(DhcpOption::ServerIdentifier(SERVER));
    let ack = answer(&lease(), &request).unwrap();
    assert_eq!((kind(&ack), ack.yiaddr()), (MessageType::Ack, ADDRESS));
    let mut renewal = message(MessageType::Request);
    renewal.set_ciaddr(ADDRESS);
    let ack = answer(&lease(), &renewal).unwrap();
    assert_eq!((kind(&ack), ack.yiaddr(), ack.ciaddr()), (MessageType::Ack, ADDRESS, ADDRESS));
}

#[test]
fn refuses_every_other_address() {
    let nak = answer(&lease(), &asking_for(Ipv4Addr::new(192, 168, 7, 21))).unwrap();
    assert_eq!((kind(&nak), nak.yiaddr()), (MessageType::Nak, Ipv4Addr::UNSPECIFIED));
    assert!(!nak.opts().contains(OptionCode::SubnetMask));
    let mut renewal = message(MessageType::Request);
    renewal.set_ciaddr(Ipv4Addr::new(10, 1, 1, 1));
    assert_eq!(kind(&answer(&lease(), &renewal).unwrap()), MessageType::Nak);
}

#[test]
fn keeps_quiet_where_it_is_not_meant() {
    let mut other = message(MessageType::Discover);
    other.set_chaddr(&[2, 0, 0, 0, 0, 2]);
    assert_eq!(answer(&lease(), &other), None);
    let mut elsewhere = asking_for(ADDRESS);
    elsewhere.opts_mut().insert(DhcpOption::ServerIdentifier(Ipv4Addr::new(192, 168, 7, 9)));
    assert_eq!(answer(&lease(), &elsewhere), None);
    let mut from_a_server = message(MessageType::Discover);
    from_a_server.set_opcode(Opcode::BootReply);
    assert_eq!(answer(&lease(), &from_a_server), None);
    for kind in [MessageType::Release, MessageType::Decline, MessageType::Request] {
        assert_eq!(answer(&lease(), &message(kind)), None, "{kind:?}");
    }
}

#[test]
fn tells_all_that_the_network_and_the_spec_say() {
    let ack = answer(&lease(), &asking_for(ADDRESS)).unwrap();
    // Through the wire, so that it is the encoded form that is right.
    let ack = Message::decode(&mut Decoder::new(&ack.to_vec().unwrap())).unwrap();
    let text = |code: u8| match ack.opts().get(OptionCode::from(code)) {
        Some(option) => format!("{option:?}"),
        None => panic!("no option {code}"),
    };
    for (code, part) in [
        (1, "255.255.255.0"),
        (3, "192.168.7.1"),
        (6, "10.0.0.53"),
        (12, "guest"),
        (15, "a.example"),
        (26, "1450"),
        (42, "10.0.0.123"),
        (51, "8000"),
        (54, "192.168.7.1"),
        (58, "4000"),
        (59, "7000"),
        (119, "b.example"),
    ] {
        assert!(text(code).contains(part), "{code}: {}", text(code));
    }
    assert_eq!(ack.opts().get(OptionCode::BootfileName), Some(&DhcpOption::BootfileName(b"pxelinux.0".to_vec())));
    assert_eq!(ack.opts().get(OptionCode::TFTPServerName), Some(&DhcpOption::TFTPServerName(b"10.0.0.69".to_vec())));
    assert_eq!(ack.siaddr(), Ipv4Addr::new(10, 0, 0, 69));
    let routes =
        vec![("10.8.0.0/16".parse().unwrap(), Ipv4Addr::new(192, 168, 7, 254)), ("0.0.0.0/0".parse().unwrap(), SERVER)];
    let told = ack.opts().get(OptionCode::ClasslessStaticRoute);
    assert_eq!(told, Some(&DhcpOption::ClasslessStaticRoute(routes)));
    let Some(DhcpOption::Unknown(private)) = ack.opts().get(OptionCode::from(240)) else { panic!() };
    assert_eq!(private.data(), b"private");
    let inform = answer(&lease(), &message(MessageType::Inform)).unwrap();
    assert_eq!(inform.yiaddr(), Ipv4Addr::UNSPECIFIED);
    assert!(inform.opts().contains(OptionCode::DomainNameServer));
    assert!(!inform.opts().contains(OptionCode::AddressLeaseTime));
}

fn frame(source: [u8; 6], port: u16, message: &Message) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(source, [0xff; 6]).ipv4([0; 4], [255; 4], 64).udp(68, port);
    let mut frame = Vec::new();
    builder.write(&mut frame, &message.to_vec().unwrap()).unwrap();
    frame
}

/// Destination MAC and address of a frame.
fn destination(frame: &[u8]) -> ([u8; 6], [u8; 4]) {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let Some(TransportSlice::Udp(udp)) = &packet.transport else { panic!() };
    assert_eq!((udp.source_port(), udp.destination_port()), (67, 68));
    (frame[..6].try_into().unwrap(), frame[30..34].try_into().unwrap())
}

#[test]
fn addresses_its_frames_as_the_client_can_take_them() {
    let lease = lease();
    let unicast = reply(&lease, &frame(MAC, 67, &message(MessageType::Discover))).unwrap();
    assert_eq!(destination(&unicast), (MAC, ADDRESS.octets()));
    let mut deaf = message(MessageType::Discover);
    deaf.set_flags(dhcproto::v4::Flags::default().set_broadcast());
    let broadcast = reply(&lease, &frame(MAC, 67, &deaf)).unwrap();
    assert_eq!(destination(&broadcast), ([0xff; 6], [255; 4]));
    let nak = reply(&lease, &frame(MAC, 67, &asking_for(SERVER))).unwrap();
    assert_eq!(destination(&nak), ([0xff; 6], [255; 4]));
    assert_eq!(reply(&lease, &frame([2, 0, 0, 0, 0, 9], 67, &message(MessageType::Discover))), None);
    assert_eq!(reply(&lease, &frame(MAC, 68, &message(MessageType::Discover))), None);
}

proptest! {
    #[test]
    fn never_panics_on_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = reply(&lease(), &bytes);
    }

    /// Damage that still looks like a DHCP request reaches deeper.
    #[test]
    fn never_panics_on_damage(
        damage in proptest::collection::vec((0usize..300, any::<u8>()), 0..8),
        cut in 200usize..700,
        options in proptest::collection::vec((1u8..255, proptest::collection::vec(any::<u8>(), 0..40)), 0..8),
    ) {
        let mut request = asking_for(ADDRESS);
        request.opts_mut().insert(DhcpOption::ClientIdentifier(vec![1, 2, 3]));
        let mut bytes = request.to_vec().unwrap();
        bytes.pop();
        for (code, value) in options {
            bytes.extend([code, value.len() as u8]);
            bytes.extend(value);
        }
        for (at, value) in damage {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        bytes.truncate(cut);
        let builder = PacketBuilder::ethernet2(MAC, [0xff; 6]).ipv4([0; 4], [255; 4], 64).udp(68, 67);
        let mut frame = Vec::new();
        builder.write(&mut frame, &bytes).unwrap();
        let _ = reply(&lease(), &frame);
    }
}
