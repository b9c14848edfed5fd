//! Frames as a guest may make them up, and a socket to send and see them.

use std::io::IoSliceMut;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, recv, recvmsg, send, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::world::Netns;

pub type Mac = [u8; 6];
const BROADCAST: Mac = [0xff; 6];
const ALL_NODES: Mac = [0x33, 0x33, 0, 0, 0, 1];

/// An Ethernet frame.
pub fn ethernet(to: Mac, from: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&to, &from, &ethertype.to_be_bytes()[..], payload].concat()
}

/// A frame with a VLAN tag before its type.
pub fn tagged(frame: &[u8], vlan: u16) -> Vec<u8> {
    [&frame[..12], &[0x81, 0x00], &vlan.to_be_bytes(), &frame[12..]].concat()
}

/// An ARP request for 10.7.0.1: from whom, and what it says of its sender.
pub fn arp(from: Mac, sender: (Mac, Ipv4Addr)) -> Vec<u8> {
    let (mac, address) = sender;
    let fixed = [0, 1, 8, 0, 6, 4, 0, 1];
    ethernet(BROADCAST, from, 0x0806, &[&fixed[..], &mac, &address.octets(), &[0; 6], &[10, 7, 0, 1]].concat())
}

/// A UDP datagram to everyone.
pub fn udp4(from: Mac, source: Ipv4Addr, ports: (u16, u16)) -> Vec<u8> {
    let udp = [ports.0.to_be_bytes(), ports.1.to_be_bytes(), 8u16.to_be_bytes(), [0; 2]].concat();
    let mut header = [0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0].to_vec();
    header.extend([source.octets(), [255; 4]].concat());
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    ethernet(BROADCAST, from, 0x0800, &[header, udp].concat())
}

/// A UDP datagram to all nodes.
pub fn udp6(from: Mac, source: Ipv6Addr, ports: (u16, u16)) -> Vec<u8> {
    let udp = [ports.0.to_be_bytes(), ports.1.to_be_bytes(), 8u16.to_be_bytes(), [0; 2]].concat();
    ipv6(from, source, 17, &udp)
}

/// A message of ICMPv6 to all nodes.
pub fn icmp6(from: Mac, source: Ipv6Addr, kind: u8, body: &[u8]) -> Vec<u8> {
    ipv6(from, source, 58, &[&[kind, 0, 0, 0, 0, 0, 0, 0], body].concat())
}

/// Neighbour solicitation (135) or advertisement (136) with the sender's link-layer address as option.
pub fn nd(from: Mac, source: Ipv6Addr, kind: u8, target: Ipv6Addr, mac: Option<Mac>) -> Vec<u8> {
    let option = mac.map_or_else(Vec::new, |mac| [&[kind - 134, 1], &mac[..]].concat());
    icmp6(from, source, kind, &[&target.octets(), option.as_slice()].concat())
}

fn ipv6(from: Mac, source: Ipv6Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let to = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).octets();
    let mut packet = [0x60, 0, 0, 0, 0, payload.len() as u8, protocol, 255].to_vec();
    packet.extend([source.octets(), to].concat());
    packet.extend_from_slice(payload);
    // A switch takes ICMPv6 apart only where its checksum holds.
    if protocol == 58 {
        let pseudo = [&source.octets()[..], &to, &[0, 0, 0, payload.len() as u8, 0, 0, 0, protocol], payload].concat();
        packet[42..44].copy_from_slice(&checksum(&pseudo).to_be_bytes());
    }
    ethernet(ALL_NODES, from, 0x86dd, &packet)
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes.chunks(2).map(|two| u32::from(two[0]) << 8 | u32::from(*two.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// A packet socket on `eth0` of a namespace.
pub struct Wire(OwnedFd);

impl Wire {
    pub fn open(netns: &Netns) -> Self {
        Self(netns.run(|| {
            let index = nix::net::if_::if_nametoindex("eth0").unwrap();
            let fd = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None).unwrap();
            // SAFETY: struct sockaddr_ll is plain data, for which all zeroes are valid.
            let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
            address.sll_family = libc::AF_PACKET as libc::c_ushort;
            address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
            address.sll_ifindex = index as i32;
            let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            // SAFETY: the address is a whole struct sockaddr_ll of the given length.
            let result = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length) };
            assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
            let (on, length) = (1i32, size_of::<i32>() as libc::socklen_t);
            // SAFETY: the option is an int of the given length.
            let result = unsafe {
                libc::setsockopt(fd.as_raw_fd(), libc::SOL_PACKET, libc::PACKET_AUXDATA, (&raw const on).cast(), length)
            };
            assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
            setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::milliseconds(100)).unwrap();
            fd
        }))
    }

    pub fn send(&self, frame: &[u8]) {
        send(self.0.as_raw_fd(), frame, MsgFlags::empty()).unwrap();
    }

    /// Sends `last` again and again until it comes out at another's end; what came out there before, without padding.
    pub fn see_until(&self, other: &Self, last: &[u8], deadline: Duration) -> Vec<Vec<u8>> {
        let end = Instant::now() + deadline;
        let mut seen = Vec::new();
        loop {
            assert!(Instant::now() < end, "even what is allowed does not come through");
            self.send(last);
            let mut buffer = vec![0; 2048];
            while let Ok(length) = recv(other.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                if buffer[..length].starts_with(last) {
                    return seen;
                }
                seen.push(buffer[..length].to_vec());
            }
        }
    }

    /// Whether the first to come out from this end at another's is `expected`, when `frame` is sent again and again.
    pub fn comes_out_at(&self, other: &Self, frame: &[u8], expected: &[u8]) -> bool {
        let end = Instant::now() + Duration::from_secs(10);
        let mut buffer = vec![0; 2048];
        while Instant::now() < end {
            self.send(frame);
            while let Ok(length) = recv(other.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                if buffer[6..12] == frame[6..12] {
                    return buffer[..length].starts_with(expected);
                }
            }
        }
        false
    }

    /// Sends a tagged frame again and again until something comes out at another's end; its tags there, outermost first.
    pub fn tags_until(&self, other: &Self, frame: &[u8], deadline: Duration) -> Vec<(u16, u16)> {
        let end = Instant::now() + deadline;
        loop {
            assert!(Instant::now() < end, "it does not come through");
            self.send(frame);
            let mut buffer = vec![0; 2048];
            let mut control = nix::cmsg_space!([u8; 20]);
            let mut parts = [IoSliceMut::new(&mut buffer)];
            let received = recvmsg::<()>(other.0.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty());
            let Ok(message) = received else { continue };
            // struct tpacket_auxdata: the kernel keeps the outermost tag there.
            let aux = message.cmsgs().unwrap().find_map(|control| match control {
                ControlMessageOwned::Unknown(unknown) => Some(unknown.data_bytes),
                _ => None,
            });
            let number = |at: usize| u16::from_ne_bytes([aux.as_ref().unwrap()[at], aux.as_ref().unwrap()[at + 1]]);
            let (vlan, protocol) = (number(16), number(18));
            let body = &frame[16..];
            // Others may speak, too.
            if vlan == 0 || !buffer.windows(body.len()).any(|window| window == body) {
                continue;
            }
            let mut tags = vec![(protocol, vlan)];
            let mut rest = &buffer[12..];
            while let [0x81 | 0x88, 0x00 | 0xa8, high, low, ..] = *rest {
                tags.push((u16::from_be_bytes([rest[0], rest[1]]), u16::from_be_bytes([high, low])));
                rest = &rest[4..];
            }
            return tags;
        }
    }
}
