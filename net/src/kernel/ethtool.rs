//! Checksum offload of links (SIOCETHTOOL).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc;

use super::tap::interface_request;
use crate::model::IfName;

/// ETHTOOL_GTXCSUM and ETHTOOL_STXCSUM of linux/ethtool.h.
const GET_TX_CHECKSUM: u32 = 0x16;
const SET_TX_CHECKSUM: u32 = 0x17;

/// struct ethtool_value.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

mod ioctls {
    use nix::libc;

    nix::ioctl_readwrite_bad!(siocethtool, 0x8946, libc::ifreq);
}

/// Whether checksums may be left to this link.
pub(super) fn tx_checksum(control: &OwnedFd, link: &IfName) -> io::Result<bool> {
    Ok(exchange(control, link, Value { command: GET_TX_CHECKSUM, data: 0 })? != 0)
}

/// Leaves checksums to the kernel.
pub(super) fn disable_tx_checksum(control: &OwnedFd, link: &IfName) -> io::Result<()> {
    exchange(control, link, Value { command: SET_TX_CHECKSUM, data: 0 }).map(|_| ())
}

fn exchange(control: &OwnedFd, link: &IfName, mut value: Value) -> io::Result<u32> {
    let mut request = interface_request(link);
    request.ifr_ifru.ifru_data = (&raw mut value).cast::<libc::c_char>();
    // SAFETY: the request points to a struct ethtool_value, which is all that these two commands read and write, and
    // both live until the call returns.
    unsafe { ioctls::siocethtool(control.as_raw_fd(), &raw mut request)? };
    Ok(value.data)
}
