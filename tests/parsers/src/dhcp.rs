//! What a guest sends to the DHCP server on its tap.

use std::net::Ipv4Addr;

use dhcproto::v4::{MessageType, Opcode, OptionCode, borrowed};
use etherparse::{LinkSlice, NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use holdfast_launcher::dhcp::{Lease, reply};
use holdfast_net::model::{DhcpV4, MacAddr};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 20);
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const MTU: u16 = 1500;
const ETHERNET_HEADER: usize = 14;
/// What tells DHCP from BOOTP (RFC 2131, section 3), and where.
const MAGIC_COOKIE: ([u8; 4], usize) = ([99, 130, 83, 99], 236);

/// A guest's frame: the bytes as they are, and as what a frame of the guest's NIC to the server carries.
pub fn dhcp(bytes: &[u8]) {
    let lease = lease();
    if let Some(answer) = reply(&lease, bytes) {
        let request = SlicedPacket::from_ethernet(bytes).unwrap();
        let Some(TransportSlice::Udp(udp)) = request.transport else { panic!("an answer to no UDP") };
        answered(udp.payload(), &answer);
    }
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2(MAC, [0xff; 6]).ipv4([0; 4], [255; 4], 64).udp(68, 67);
    if builder.write(&mut frame, bytes).is_ok()
        && let Some(answer) = reply(&lease, &frame)
    {
        answered(bytes, &answer);
    }
}

fn lease() -> Lease {
    Lease {
        mac: MacAddr(MAC),
        network: DhcpV4 {
            address: "192.0.2.20/24".parse().unwrap(),
            server: SERVER,
            router: Some(SERVER),
            dns: vec![Ipv4Addr::new(192, 0, 2, 53)],
            search: vec!["lab.example".to_owned()],
            routes: Vec::new(),
            hostname: Some("guest".to_owned()),
            lease_seconds: 3600,
        },
        mtu: MTU,
        boot_file: None,
        tftp_server: None,
        ntp_servers: Vec::new(),
        private: Vec::new(),
    }
}

/// Each answer is one to a request of the guest's own, goes to the guest alone, and gives it its address or none.
fn answered(request: &[u8], frame: &[u8]) {
    let (magic, at) = MAGIC_COOKIE;
    assert_eq!(request.get(at..at + magic.len()), Some(magic.as_slice()), "an answer to what is no DHCP");
    assert!(frame.len() <= ETHERNET_HEADER + usize::from(MTU), "an answer of {} bytes", frame.len());

    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let Some(LinkSlice::Ethernet2(ethernet)) = packet.link else { panic!("no Ethernet") };
    assert!(ethernet.destination() == MAC || ethernet.destination() == [0xff; 6]);
    let Some(NetSlice::Ipv4(ip)) = packet.net else { panic!("no IPv4") };
    assert_eq!(ip.header().source_addr(), SERVER);
    let Some(TransportSlice::Udp(udp)) = packet.transport else { panic!("no UDP") };
    assert_eq!((udp.source_port(), udp.destination_port()), (67, 68));

    let answer = borrowed::Message::new(udp.payload()).unwrap();
    let asked = borrowed::Message::new(request).unwrap();
    assert_eq!((answer.opcode(), answer.xid(), answer.chaddr()), (Opcode::BootReply, asked.xid(), MAC.as_slice()));
    assert_eq!(asked.opcode(), Opcode::BootRequest);
    let kind = |message: &borrowed::Message<'_>| {
        // The last one counts where there are several.
        let option = message.opts().filter(|option| option.code() == OptionCode::MessageType).last();
        option.and_then(|option| option.data().first().copied()).map(MessageType::from)
    };
    let given = match (kind(&asked), kind(&answer)) {
        (Some(MessageType::Discover), Some(MessageType::Offer)) => ADDRESS,
        (Some(MessageType::Request), Some(MessageType::Ack)) => ADDRESS,
        (Some(MessageType::Request), Some(MessageType::Nak)) => Ipv4Addr::UNSPECIFIED,
        (Some(MessageType::Inform), Some(MessageType::Ack)) => Ipv4Addr::UNSPECIFIED,
        other => panic!("asked and answered {other:?}"),
    };
    assert_eq!(answer.yiaddr(), given);
}
