//! The packet socket on which a launcher answers its guest's DHCPv4 requests.
//!
//! A packet socket on the tap sees what the guest sends before any bridge, table or switch does, and what is sent on it
//! goes to the guest alone. It is opened here because that takes CAP_NET_RAW, and handed to the launcher, which has no
//! capability.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// Classic BPF: an IPv4 UDP packet, not a later fragment, to port 67; all of it, else nothing.
const FILTER: [libc::sock_filter; 11] = [
    op(0x28, 0, 0, 12),     // ldh [12]: EtherType
    op(0x15, 0, 8, 0x0800), // jeq IPv4, else drop
    op(0x30, 0, 0, 23),     // ldb [23]: protocol
    op(0x15, 0, 6, 17),     // jeq UDP, else drop
    op(0x28, 0, 0, 20),     // ldh [20]: flags and fragment offset
    op(0x45, 4, 0, 0x1fff), // jset offset: drop
    op(0xb1, 0, 0, 14),     // ldxb 4*([14]&0xf): length of the IPv4 header
    op(0x48, 0, 0, 16),     // ldh [x + 16]: destination port
    op(0x15, 0, 1, 67),     // jeq 67, else drop
    op(0x06, 0, 0, 0x4_0000),
    op(0x06, 0, 0, 0),
];

const fn op(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

/// Opens the socket on the link of this index, in the namespace of this thread. It does not block.
pub(super) fn open(index: u32) -> io::Result<OwnedFd> {
    // Protocol 0: nothing is received before the filter is in place and the socket is bound.
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
    attach_filter(&fd)?;
    bind(&fd, index)?;
    Ok(fd)
}

fn attach_filter(fd: &OwnedFd) -> io::Result<()> {
    let mut filter = FILTER;
    let program = libc::sock_fprog { len: filter.len() as libc::c_ushort, filter: filter.as_mut_ptr() };
    // SAFETY: the program points to `filter` with its length, both live until the call returns, and the kernel copies.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn bind(fd: &OwnedFd, index: u32) -> io::Result<()> {
    // SAFETY: struct sockaddr_ll is plain data, for which all zeroes are valid.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as libc::c_ushort;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = i32::try_from(index).map_err(io::Error::other)?;
    // SAFETY: the address is a whole struct sockaddr_ll of the given length.
    let result = unsafe {
        libc::bind(fd.as_raw_fd(), (&raw const address).cast(), size_of::<libc::sockaddr_ll>() as libc::socklen_t)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
