//! Giving up every privilege, for good.

use std::io;

use nix::libc;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

/// Makes this process an ordinary one of user `uid` and group `gid`: no supplementary group, every capability
/// set empty (bounding set included), and no way to get any back by executing a file (no_new_privs).
pub fn drop_to(uid: u32, gid: u32) -> io::Result<()> {
    clear_bounding_set()?;
    clear_ambient_set()?;
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setgroups(&[])?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    clear_capabilities()?;
    nix::sys::prctl::set_no_new_privs()?;
    Ok(())
}

fn clear_bounding_set() -> io::Result<()> {
    for capability in 0..64 {
        // SAFETY: PR_CAPBSET_DROP takes a number and touches no memory of ours.
        let dropped = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        match io::Error::last_os_error() {
            _ if dropped == 0 => {}
            // The kernel knows no capability with this number, nor any above it.
            error if error.raw_os_error() == Some(libc::EINVAL) => break,
            error => return Err(error),
        }
    }
    Ok(())
}

fn clear_ambient_set() -> io::Result<()> {
    // SAFETY: PR_CAP_AMBIENT_CLEAR_ALL takes no further argument and touches no memory of ours.
    match unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Layout of struct __user_cap_header_struct (linux/capability.h).
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// Layout of struct __user_cap_data_struct; version 3 takes two of them.
#[repr(C)]
#[derive(Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const VERSION_3: u32 = 0x2008_0522;

fn clear_capabilities() -> io::Result<()> {
    let header = Header { version: VERSION_3, pid: 0 };
    let data = [Data::default(), Data::default()];
    // SAFETY: both structures have the kernel's layout and outlive the call, which only reads them.
    match unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
