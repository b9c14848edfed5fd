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

/// Type and payload of each answer.
type Answers = Vec<(u16, Vec<u8>)>;

/// Whether an answer is complete.
enum End {
    More,
    Done,
    Interrupted,
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
    pub(super) fn exchange(&mut self, kind: u16, flags: u16, payload: &[u8]) -> io::Result<Answers> {
        for _ in 0..DUMP_ATTEMPTS {
            self.send(kind, flags, payload)?;
            if let Some(answers) = self.receive()? {
                return Ok(answers);
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

    /// All answers to the last request; none where a dump was interrupted.
    fn receive(&mut self) -> io::Result<Option<Answers>> {
        let mut answers = Vec::new();
        let mut interrupted = false;
        loop {
            let length = recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_TRUNC)?;
            let datagram = self
                .buffer
                .get(..length)
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "netlink datagram larger than 64 KiB"))?;
            for message in Messages(datagram) {
                match take(message?, self.sequence, &mut answers)? {
                    End::More => {}
                    End::Interrupted => interrupted = true,
                    End::Done if interrupted => return Ok(None),
                    End::Done => return Ok(Some(answers)),
                }
            }
        }
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
pub(super) struct Messages<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Messages<'a> {
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

fn take(message: Message<'_>, sequence: u32, answers: &mut Answers) -> io::Result<End> {
    let Message { kind, flags, sequence: answered, payload } = message;
    if answered != sequence {
        // Left over from a request that was given up.
        return Ok(End::More);
    }
    match kind {
        NLMSG_ERROR | NLMSG_DONE => {
            let code = payload.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
            if code < 0 { Err(io::Error::from_raw_os_error(-code)) } else { Ok(End::Done) }
        }
        _ => {
            answers.push((kind, payload.to_vec()));
            Ok(if flags & NLM_F_DUMP_INTR != 0 { End::Interrupted } else { End::More })
        }
    }
}
