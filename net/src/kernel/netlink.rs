//! A blocking netlink socket: one request, all of its answers.
//!
//! The kernel answers while the request is being sent, so blocking here is a matter of microseconds; the receive
//! timeout is for a kernel that hangs. Messages are those of netlink-packet-route; nfnetlink's are bytes.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use netlink_packet_core::{NetlinkDeserializable, NetlinkHeader, NetlinkSerializable};
use netlink_packet_route::RouteNetlinkMessage;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

/// Length of struct nlmsghdr.
const HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
/// The table changed while it was dumped.
const NLM_F_DUMP_INTR: u16 = 0x10;
/// Ask for all objects (NLM_F_ROOT | NLM_F_MATCH).
pub(super) const NLM_F_DUMP: u16 = 0x300;
/// Replace what is there.
pub(super) const NLM_F_REPLACE: u16 = 0x100;
/// Fail if it is there.
pub(super) const NLM_F_EXCL: u16 = 0x200;
/// Make it if it is not there.
pub(super) const NLM_F_CREATE: u16 = 0x400;
/// Put it behind those that are there.
pub(super) const NLM_F_APPEND: u16 = 0x800;
/// What frames the requests of nfnetlink that belong together.
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;

/// The kernel sends no larger datagram in a dump (NLMSG_GOODSIZE is at most 32 KiB, with slack for large links).
const BUFFER: usize = 64 * 1024;

/// How long the kernel may take for one request; a group of links that waits for grace periods takes about 0.1 s.
const DEADLINE_SECONDS: i64 = 5;

/// How often a dump that was interrupted is taken again.
const DUMP_ATTEMPTS: usize = 5;

/// A socket of one netlink protocol in the namespace of the thread that opened it.
pub(super) struct Netlink {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

/// Type and payload of each message of an answer.
type Messages = Vec<(u16, Vec<u8>)>;

/// What has come of the answer to a request.
#[derive(Debug, Default)]
pub struct Answer {
    messages: Messages,
    interrupted: bool,
}

impl Netlink {
    /// Opens a socket.
    pub(super) fn open(protocol: SockProtocol) -> io::Result<Self> {
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::seconds(DEADLINE_SECONDS))?;
        Ok(Self { fd, sequence: 0, buffer: vec![0; BUFFER] })
    }

    /// Sends a request of rtnetlink and gives back its answers.
    pub(super) fn route(&mut self, request: &RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut payload = vec![0; request.buffer_len()];
        request.serialize(&mut payload);
        let answers = self.exchange(request.message_type(), flags, &payload)?;
        answers
            .into_iter()
            .map(|(kind, payload)| {
                let mut header = NetlinkHeader::default();
                header.message_type = kind;
                RouteNetlinkMessage::deserialize(&header, &payload)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
            })
            .collect()
    }

    /// Sends a request and gives back the type and payload of each answer.
    pub(super) fn exchange(&mut self, kind: u16, flags: u16, payload: &[u8]) -> io::Result<Messages> {
        for _ in 0..DUMP_ATTEMPTS {
            self.send(kind, flags, payload)?;
            if let Some(messages) = self.receive()?.messages() {
                return Ok(messages);
            }
        }
        Err(io::Error::new(io::ErrorKind::Interrupted, "the kernel's table kept changing while it was read"))
    }

    /// Sends requests of a subsystem of nfnetlink that are carried out together, or none of them: type, flags and
    /// payload of each.
    pub(super) fn batch(&mut self, subsystem: u16, requests: &[(u16, u16, Vec<u8>)]) -> io::Result<()> {
        // struct nfgenmsg: any family, version 0, the subsystem.
        let frame = [[0, 0], subsystem.to_be_bytes()].concat();
        let mut datagram = Vec::new();
        // All have one sequence number: whichever is refused, and where none is, the last.
        self.sequence = self.sequence.wrapping_add(1);
        self.put(&mut datagram, NFNL_MSG_BATCH_BEGIN, 0, &frame)?;
        for (position, (kind, flags, payload)) in requests.iter().enumerate() {
            let flags = flags | if position + 1 == requests.len() { NLM_F_ACK } else { 0 };
            self.put(&mut datagram, *kind, flags, payload)?;
        }
        self.put(&mut datagram, NFNL_MSG_BATCH_END, 0, &frame)?;
        sendto(self.fd.as_raw_fd(), &datagram, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        self.receive().map(drop)
    }

    fn send(&mut self, kind: u16, flags: u16, payload: &[u8]) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        // A dump ends with NLMSG_DONE, anything else with the acknowledgement that is asked for here.
        let flags = flags | if flags & NLM_F_DUMP == NLM_F_DUMP { 0 } else { NLM_F_ACK };
        let mut message = Vec::with_capacity(HEADER + payload.len());
        self.put(&mut message, kind, flags, payload)?;
        sendto(self.fd.as_raw_fd(), &message, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        Ok(())
    }

    /// Adds a message to a datagram.
    fn put(&self, datagram: &mut Vec<u8>, kind: u16, flags: u16, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(HEADER + payload.len()).map_err(io::Error::other)?;
        datagram.extend_from_slice(&length.to_ne_bytes());
        datagram.extend_from_slice(&kind.to_ne_bytes());
        datagram.extend_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
        datagram.extend_from_slice(&self.sequence.to_ne_bytes());
        datagram.extend_from_slice(&0u32.to_ne_bytes());
        datagram.extend_from_slice(payload);
        datagram.resize(datagram.len().next_multiple_of(4), 0);
        Ok(())
    }

    /// The whole answer to the last request.
    fn receive(&mut self) -> io::Result<Answer> {
        let mut answer = Answer::default();
        loop {
            let length = recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_TRUNC)?;
            let datagram = self
                .buffer
                .get(..length)
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "netlink datagram larger than 64 KiB"))?;
            if answer.take(datagram, self.sequence)? {
                return Ok(answer);
            }
        }
    }
}

impl Answer {
    /// Takes a datagram, as the answer to the request of this number; whether it was the last.
    ///
    /// # Errors
    /// The kernel's refusal, or what is cut off.
    pub fn take(&mut self, datagram: &[u8], sequence: u32) -> io::Result<bool> {
        for message in Datagram(datagram) {
            let Message { kind, flags, sequence: answered, payload } = message?;
            if answered != sequence {
                // Left over from a request that was given up.
                continue;
            }
            if matches!(kind, NLMSG_ERROR | NLMSG_DONE) {
                let code = payload.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                // The smallest number has no counterpart.
                return if code < 0 { Err(io::Error::from_raw_os_error(code.saturating_neg())) } else { Ok(true) };
            }
            self.messages.push((kind, payload.to_vec()));
            self.interrupted |= flags & NLM_F_DUMP_INTR != 0;
        }
        Ok(false)
    }

    /// Type and payload of each message; none where the table changed while it was dumped.
    #[must_use]
    pub fn messages(self) -> Option<Vec<(u16, Vec<u8>)>> {
        (!self.interrupted).then_some(self.messages)
    }
}

/// One message of a datagram: type, flags, sequence number, payload.
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    flags: u16,
    sequence: u32,
    pub(super) payload: &'a [u8],
}

/// The messages of a datagram.
pub(super) struct Datagram<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Datagram<'a> {
    type Item = io::Result<Message<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let short = || io::Error::new(io::ErrorKind::InvalidData, "netlink message cut off");
        let rest = self.0;
        self.0 = &[];
        let Some(([l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, ..], _)) = rest.split_first_chunk::<HEADER>() else {
            return Some(Err(short()));
        };
        let length = u32::from_ne_bytes([*l0, *l1, *l2, *l3]) as usize;
        let Some(payload) = rest.get(HEADER..length) else { return Some(Err(short())) };
        self.0 = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Ok(Message {
            kind: u16::from_ne_bytes([*k0, *k1]),
            flags: u16::from_ne_bytes([*f0, *f1]),
            sequence: u32::from_ne_bytes([*s0, *s1, *s2, *s3]),
            payload,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER + payload.len()).unwrap();
        let fields = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &flags.to_ne_bytes(), &sequence.to_ne_bytes()];
        [&fields.concat()[..], &[0; 4], payload].concat()
    }

    #[test]
    fn an_answer_is_what_came_for_its_request() {
        let datagram = [message(30, 2, 6, b"late"), message(30, 2, 7, b"ours")].concat();
        let mut answer = Answer::default();
        assert!(!answer.take(&datagram, 7).unwrap());
        assert!(answer.take(&message(NLMSG_DONE, 2, 7, &[0; 4]), 7).unwrap());
        assert_eq!(answer.messages(), Some(vec![(30, b"ours".to_vec())]));
    }

    #[test]
    fn one_that_was_interrupted_is_none() {
        let mut answer = Answer::default();
        assert!(!answer.take(&message(30, NLM_F_DUMP_INTR, 7, b"ours"), 7).unwrap());
        assert_eq!(answer.messages(), None);
    }

    #[test]
    fn a_refusal_is_an_error_whatever_its_number() {
        for (code, expected) in [(-2, 2), (i32::MIN, i32::MAX)] {
            let refusal = message(NLMSG_ERROR, 0, 7, &code.to_ne_bytes());
            let error = Answer::default().take(&refusal, 7).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(expected));
        }
    }

    #[test]
    fn what_is_cut_off_is_an_error() {
        let whole = message(30, 2, 7, b"ours");
        for length in [1, HEADER - 1, HEADER, whole.len() - 1] {
            assert!(Answer::default().take(&whole[..length], 7).is_err(), "{length}");
        }
    }
}
