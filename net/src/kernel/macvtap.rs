//! Opening a macvtap's character device.
//!
//! Its number is read from sysfs, which shows the links of the namespace that it was mounted in, and its node in /dev is
//! named after an index that is unique in one namespace alone. So both are looked for, and made, in mounts that nobody
//! else sees, and that end with the thread.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use super::links;
use crate::model::IfName;

/// Opens the device of a macvtap in the namespace of this thread. The thread has mounts of its own from then on.
pub(super) fn open(name: &IfName) -> io::Result<OwnedFd> {
    let index = links::index(name)?;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    let (sys, none) = (Path::new("/sys"), MsFlags::empty());
    mount(Some("sysfs"), sys, Some("sysfs"), MsFlags::MS_RDONLY, None::<&str>)?;
    let number = match fs::read_to_string(format!("/sys/class/net/{name}/tap{index}/dev")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(io::Error::other("it is no macvtap: a network of the backend `macvtap` makes one"));
        }
        read => read?,
    };
    let parts =
        number.trim_end().split_once(':').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    let (major, minor) = parts.ok_or_else(|| io::Error::other(format!("`{number}` is no number of a device")))?;
    mount(Some("tmpfs"), sys, Some("tmpfs"), none, Some("mode=0700,size=4k"))?;
    let node = sys.join("tap");
    mknod(&node, SFlag::S_IFCHR, Mode::S_IRUSR | Mode::S_IWUSR, makedev(major, minor))?;
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
    Ok(OpenOptions::new().read(true).write(true).custom_flags(flags).open(&node)?.into())
}
