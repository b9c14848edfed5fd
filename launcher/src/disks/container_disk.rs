//! containerDisk: a read-only image that came with a container image, under an overlay that lives with the VM.
//!
//! The image is a file that was laid out for the volume, or a folder: the whole container image, mounted. In a folder
//! the disk is where the spec says, else the one file in `disk/`. Links are followed as inside that container image:
//! none leads out of it.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;

use holdfast_api::kubevirt::ContainerDiskSource;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;

use super::{Cause, DEADLINE, file_error, image, once, qcow2};
use crate::domain::{Backing, DiskImage, Format};
use crate::paths::Paths;
use crate::tool;

/// Where a container image has its disk.
const FOLDER: &str = "disk";

/// Probes the image and makes the overlay, whose format and backing format are always named, never probed again.
pub(super) fn prepare(volume: &str, source: &ContainerDiskSource, paths: &Paths) -> Result<DiskImage, Cause> {
    let folder = paths.container_image(volume);
    let base = if folder.is_dir() {
        find(&folder, source.path.as_deref().filter(|path| !path.is_empty()))?
    } else {
        paths.container_disk(volume)
    };
    let format = qcow2::probe(&base)?;
    let overlay = paths.ephemeral.join("disk-data").join(volume).join("disk.qcow2");
    once(&overlay, |path| {
        let mut command = Command::new("qemu-img");
        command.args(["create", "-q", "-f", "qcow2", "-F", format.name(), "-b"]).arg(&base).arg(path);
        Ok(tool::run(&mut command, DEADLINE)?)
    })?;
    Ok(DiskImage { backing: Some(Backing { path: base, format }), ..image(volume, overlay, Format::Qcow2) })
}

/// The disk in a container image that is mounted at `folder`.
fn find(folder: &Path, named: Option<&str>) -> Result<PathBuf, Cause> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = open(folder, flags, Mode::empty()).map_err(|errno| file_error("open", folder)(errno.into()))?;
    let inside = match named {
        Some(path) => PathBuf::from(path),
        None => single(&root)?,
    };
    let found = resolve(&root, &inside)?;
    if !found.starts_with(real_path(&root)?) {
        // Not by a path of this image: something was mounted into it.
        return Err(Cause::Image(format!("has `{}` elsewhere: `{}`", inside.display(), found.display())));
    }
    if !found.metadata().map_err(file_error("look at", &found))?.is_file() {
        return Err(Cause::Image(format!("has no regular file at `{}`", inside.display())));
    }
    Ok(found)
}

/// The one file in `disk/`.
fn single(root: &OwnedFd) -> Result<PathBuf, Cause> {
    let folder = resolve(root, Path::new(FOLDER))?;
    let entries = std::fs::read_dir(&folder).map_err(file_error("list", &folder))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(file_error("list", &folder))?;
        if !entry.file_type().map_err(file_error("look at", &entry.path()))?.is_dir() {
            names.push(entry.file_name());
        }
    }
    match names.as_slice() {
        [name] => Ok(Path::new(FOLDER).join(name)),
        [] => Err(Cause::Image(format!("has no file in its folder `/{FOLDER}`, and containerDisk.path names none"))),
        more => Err(Cause::Image(format!(
            "has {} files in its folder `/{FOLDER}`: set containerDisk.path to one of them",
            more.len()
        ))),
    }
}

/// The real path of something inside.
fn resolve(root: &OwnedFd, inside: &Path) -> Result<PathBuf, Cause> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let opened = openat2(root.as_fd(), inside, how).map_err(|errno| match errno {
        nix::errno::Errno::ENOENT | nix::errno::Errno::ENOTDIR | nix::errno::Errno::ELOOP => {
            Cause::Image(format!("has no `{}`", inside.display()))
        }
        other => file_error("open", inside)(other.into()),
    })?;
    real_path(&opened)
}

/// The path of an open file without links: the hypervisor opens it by that.
fn real_path(file: &OwnedFd) -> Result<PathBuf, Cause> {
    let link = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    std::fs::read_link(&link).map_err(file_error("read", &link))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn words(result: Result<PathBuf, Cause>) -> String {
        result.map(|path| path.display().to_string()).unwrap_or_else(|cause| cause.to_string())
    }

    #[test]
    fn finds_the_disk_of_a_mounted_image() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        assert!(words(find(&root, None)).contains("has no `disk`"));
        std::fs::create_dir_all(root.join("disk/lost+found")).unwrap();
        std::fs::create_dir(root.join("images")).unwrap();
        assert!(words(find(&root, None)).contains("no file in its folder"));
        std::fs::write(root.join("disk/a.qcow2"), "a").unwrap();
        assert_eq!(find(&root, None).unwrap(), root.join("disk/a.qcow2"));
        std::fs::write(root.join("images/b.img"), "b").unwrap();
        symlink("/images/b.img", root.join("disk/b")).unwrap();
        assert!(words(find(&root, None)).contains("2 files"));
        // An absolute link is one inside of the image, and so is one that climbs.
        assert_eq!(find(&root, Some("/disk/b")).unwrap(), root.join("images/b.img"));
        symlink("../../../images/b.img", root.join("disk/c")).unwrap();
        assert_eq!(find(&root, Some("disk/c")).unwrap(), root.join("images/b.img"));
        assert!(words(find(&root, Some("/disk"))).contains("no regular file"));
        assert!(words(find(&root, Some("/disk/missing"))).contains("has no `/disk/missing`"));
    }

    #[test]
    fn follows_no_link_out_of_the_image() {
        let folder = tempfile::tempdir().unwrap();
        let outside = tempfile::NamedTempFile::new().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("disk")).unwrap();
        symlink(outside.path(), root.join("disk/out")).unwrap();
        assert!(words(find(&root, None)).contains("has no `disk/out`"));
        symlink("/proc/self/exe", root.join("disk/exe")).unwrap();
        assert!(words(find(&root, Some("disk/exe"))).contains("has no `disk/exe`"));
    }
}
