//! Making taps: the kernel takes them over no netlink, only over TUNSETIFF.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::libc;

use crate::desired::Tap;
use crate::model::IfName;

mod ioctls {
    use nix::libc;

    nix::ioctl_write_ptr_bad!(tunsetiff, nix::request_code_write!(b'T', 202, size_of::<libc::c_int>()), libc::ifreq);
    nix::ioctl_write_int_bad!(tunsetpersist, nix::request_code_write!(b'T', 203, size_of::<libc::c_int>()));
    nix::ioctl_write_int_bad!(tunsetowner, nix::request_code_write!(b'T', 204, size_of::<libc::c_int>()));
    nix::ioctl_write_int_bad!(tunsetgroup, nix::request_code_write!(b'T', 206, size_of::<libc::c_int>()));
}

/// Makes a tap in the namespace of this thread. Until `adopt` has returned, the tap goes with this process: a crash
/// leaves none without our mark.
pub(super) fn create(name: &IfName, tap: &Tap, adopt: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let device = OpenOptions::new().read(true).write(true).custom_flags(libc::O_CLOEXEC).open("/dev/net/tun")?;
    let fd = device.as_raw_fd();
    set_interface(fd, name, tap)?;
    // SAFETY: both take their argument as a value; the descriptor is open for as long as `device` lives.
    unsafe {
        ioctls::tunsetowner(fd, id(tap.uid)?)?;
        ioctls::tunsetgroup(fd, id(tap.gid)?)?;
    }
    adopt()?;
    // SAFETY: as above.
    unsafe { ioctls::tunsetpersist(fd, 1)? };
    Ok(())
}

fn id(id: u32) -> io::Result<libc::c_int> {
    libc::c_int::try_from(id).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("no user or group {id}")))
}

fn set_interface(fd: RawFd, name: &IfName, tap: &Tap) -> io::Result<()> {
    let mut flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_TUN_EXCL;
    if tap.multi_queue {
        flags |= libc::IFF_MULTI_QUEUE;
    }
    if tap.vnet_header {
        flags |= libc::IFF_VNET_HDR;
    }
    let mut request = interface_request(name);
    // TUNSETIFF takes 16 bits, of which IFF_TUN_EXCL is the highest.
    request.ifr_ifru.ifru_flags = (flags & 0xffff) as u16 as libc::c_short;
    // SAFETY: the request is a whole struct ifreq, which the kernel reads, and writes the name back to.
    unsafe { ioctls::tunsetiff(fd, &raw const request)? };
    Ok(())
}

/// A struct ifreq that names a link.
pub(super) fn interface_request(name: &IfName) -> libc::ifreq {
    // SAFETY: struct ifreq is plain data, for which all zeroes are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // A name has at most 15 bytes, so the last byte stays zero.
    for (to, from) in request.ifr_name.iter_mut().zip(name.as_str().bytes()) {
        *to = from as libc::c_char;
    }
    request
}
