//! Device nodes of our own, like the host's but the launchers' own.
//!
//! A container gets a node with the owner and mode of the node that it is made like. The host's belong to root or to a
//! group whose number differs between distributions, so that an ordinary user in a container could not open them, and
//! somebody would have to change them in each container. These are in a folder that only root can enter.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::Path;

use nix::sys::stat::{Mode, SFlag, mknod};

/// User and group of launchers.
const USER: u32 = 107;
const MODE: u32 = 0o600;

/// Whether `device` is there; if it is, `node` is like it and the launchers' own.
///
/// # Errors
/// When the node cannot be made.
pub fn mirror(device: &Path, node: &Path) -> io::Result<bool> {
    let found = match fs::metadata(device) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        found => found?,
    };
    if !found.file_type().is_char_device() {
        return Ok(false);
    }
    let is_like = |own: &fs::Metadata| {
        own.file_type().is_char_device()
            && own.rdev() == found.rdev()
            && (own.uid(), own.gid(), own.mode() & 0o777) == (USER, USER, MODE)
    };
    if fs::symlink_metadata(node).is_ok_and(|own| is_like(&own)) {
        return Ok(true);
    }
    if let Some(folder) = node.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let new = node.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    mknod(&new, SFlag::S_IFCHR, Mode::empty(), found.rdev())?;
    chown(&new, Some(USER), Some(USER))?;
    fs::set_permissions(&new, fs::Permissions::from_mode(MODE))?;
    fs::rename(&new, node)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn makes_a_node_for_launchers_alone() {
        let folder = tempfile::tempdir().unwrap();
        let node = folder.path().join("devices/null");
        assert!(!mirror(&folder.path().join("missing"), &node).unwrap());
        assert!(!node.exists());
        for _ in 0..2 {
            assert!(mirror(Path::new("/dev/null"), &node).unwrap());
        }
        let (own, host) = (fs::metadata(&node).unwrap(), fs::metadata("/dev/null").unwrap());
        assert_eq!((own.rdev(), own.uid(), own.gid(), own.mode() & 0o777), (host.rdev(), 107, 107, 0o600));
        assert_eq!(fs::metadata(node.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
        // Another device under the same name.
        assert!(mirror(Path::new("/dev/zero"), &node).unwrap());
        assert_eq!(fs::metadata(&node).unwrap().rdev(), fs::metadata("/dev/zero").unwrap().rdev());
    }
}
