//! The file of a hostDisk volume: found or made below one of the folders that holdfastd was given for that.
//!
//! Invariant: whoever writes manifests reaches no file outside those folders. A path is resolved once, below its
//! folder and through no link; what is checked, given away and bound is the file that this found, not its name.

use std::fs::{DirBuilder, File};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use holdfast_api::kubevirt::HostDisk;
use holdfast_api::quantity;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, RenameFlags, ResolveFlag, openat2, renameat2};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, ftruncate, unlinkat};

use crate::sandbox::{FileId, QEMU_ID};
use crate::vm::SetupError;

/// A disk that was found; while this lives, its [`FileId`] names no other file.
#[derive(Debug)]
pub struct Found {
    /// Its path.
    pub path: PathBuf,
    /// What it must still be when it is bound.
    pub id: FileId,
    /// Keeps the inode from being used for another file.
    pub held: OwnedFd,
}

/// Finds the file of a hostDisk, or makes it where it may be, and gives it to the launcher's user.
pub fn find(allowed: &[PathBuf], volume: &str, disk: &HostDisk) -> Result<Found, SetupError> {
    let failed = |what: String| SetupError::new("FailedMount", format!("hostDisk volume `{volume}`: {what}"));
    let io = |verb: &str, errno: Errno| {
        let why = match errno {
            Errno::ELOOP => "a part of the path is a symbolic link".to_owned(),
            other => std::io::Error::from(other).to_string(),
        };
        failed(format!("failed to {verb} `{}`: {why}", disk.path))
    };
    let (folder, rest) = place(allowed, &disk.path).map_err(&failed)?;
    let creating = disk.r#type == "DiskOrCreate";
    let opened = open(&folder, &rest);
    let held = match opened {
        Err(Errno::ENOENT) if creating => {
            let capacity = disk.capacity.as_ref().map(quantity::parse).transpose();
            let bytes = capacity.ok().flatten().map(|c| c.value()).filter(|bytes| *bytes > 0);
            let bytes = bytes.ok_or_else(|| failed("`capacity` must be a size such as 1Gi".to_owned()))?;
            make(&folder, &rest, bytes).and_then(|()| open(&folder, &rest)).map_err(|errno| io("make", errno))?
        }
        opened => opened.map_err(|errno| io("find", errno))?,
    };
    let meta = held.try_clone().and_then(|fd| File::from(fd).metadata());
    let meta = meta.map_err(|error| failed(format!("failed to look at `{}`: {error}", disk.path)))?;
    if !meta.is_file() {
        return Err(failed(format!("`{}` is no regular file", disk.path)));
    }
    let (user, group) = (Some(Uid::from_raw(QEMU_ID)), Some(Gid::from_raw(QEMU_ID)));
    fchownat(&held, "", user, group, AtFlags::AT_EMPTY_PATH).map_err(|errno| io("give away", errno))?;
    Ok(Found { path: folder.join(rest), id: FileId { device: meta.dev(), inode: meta.ino() }, held })
}

/// The folder in which a path lies and the rest below it, or why it may not be used.
fn place(allowed: &[PathBuf], text: &str) -> Result<(PathBuf, PathBuf), String> {
    if !text.starts_with('/') || text.split('/').any(|part| part == "." || part == "..") {
        return Err(format!("`{text}` must be an absolute path without `.` and `..`"));
    }
    let below = |folder: &PathBuf| {
        let rest: PathBuf = Path::new(text).strip_prefix(folder).ok()?.components().collect();
        (rest != Path::new("")).then(|| (folder.clone(), rest))
    };
    // The innermost, should one folder lie in another.
    let found = allowed.iter().filter_map(below).min_by_key(|(_, rest)| rest.components().count());
    found.ok_or_else(|| {
        let folders: Vec<String> = allowed.iter().map(|folder| format!("`{}`", folder.display())).collect();
        format!(
            "`{text}` is not below a folder for host disks ({}); holdfastd's option --host-disk-folder allows others",
            folders.join(", ")
        )
    })
}

/// Opens the folder itself: its own path is the administrator's and may have links.
fn open_folder(folder: &Path) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    nix::fcntl::open(folder, flags, Mode::empty())
}

fn open(folder: &Path, rest: &Path) -> nix::Result<OwnedFd> {
    // O_PATH: a device or a fifo is looked at without being opened.
    below(open_folder(folder)?.as_fd(), rest, OFlag::O_PATH)
}

fn below(folder: BorrowedFd<'_>, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    let mode = if flags.contains(OFlag::O_CREAT) { Mode::from_bits_truncate(0o660) } else { Mode::empty() };
    openat2(folder, path, OpenHow::new().flags(flags | OFlag::O_CLOEXEC).mode(mode).resolve(resolve))
}

/// A sparse file of that size: beside its place and renamed, so that no part of one is ever taken for a disk.
fn make(folder: &Path, rest: &Path, bytes: i64) -> nix::Result<()> {
    let io = |error: std::io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(nix::libc::EIO));
    if !folder.is_dir() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(io)?;
    }
    let mut parent = open_folder(folder)?;
    let parts: Vec<Component<'_>> = rest.components().collect();
    let (name, folders) = parts.split_last().ok_or(Errno::EINVAL)?;
    for part in folders {
        match mkdirat(&parent, part.as_os_str(), Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno),
        }
        parent = below(parent.as_fd(), part.as_ref(), OFlag::O_PATH | OFlag::O_DIRECTORY)?;
    }
    let mut temporary = name.as_os_str().to_owned();
    temporary.push(".holdfast-tmp");
    match unlinkat(&parent, temporary.as_os_str(), UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(errno) => return Err(errno),
    }
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
    let file = below(parent.as_fd(), temporary.as_ref(), flags)?;
    ftruncate(&file, bytes)?;
    nix::unistd::fsync(&file)?;
    match renameat2(&parent, temporary.as_os_str(), &parent, name.as_os_str(), RenameFlags::RENAME_NOREPLACE) {
        // Somebody else's disk was there first: it is the one.
        Err(Errno::EEXIST) => unlinkat(&parent, temporary.as_os_str(), UnlinkatFlags::NoRemoveDir),
        renamed => renamed,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

    use super::*;

    struct Case {
        folder: tempfile::TempDir,
        allowed: Vec<PathBuf>,
    }

    impl Case {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let allowed = vec![folder.path().join("disks")];
            fs::create_dir(&allowed[0]).unwrap();
            fs::create_dir(folder.path().join("outside")).unwrap();
            fs::write(folder.path().join("outside/secret"), "secret").unwrap();
            Self { folder, allowed }
        }

        fn path(&self, below: &str) -> PathBuf {
            self.folder.path().join(below)
        }

        fn find(&self, path: &str, capacity: Option<&str>) -> Result<Found, SetupError> {
            let disk = HostDisk {
                path: path.to_owned(),
                r#type: if capacity.is_some() { "DiskOrCreate" } else { "Disk" }.to_owned(),
                capacity: capacity.map(|text| Quantity(text.to_owned())),
                ..Default::default()
            };
            find(&self.allowed, "v", &disk)
        }

        /// Why a path of this case is refused, whether it may be made or not; nothing outside has changed then.
        fn refusal(&self, below: &str) -> String {
            let path = if below.starts_with("./") { below.to_owned() } else { self.path(below).display().to_string() };
            let owner = fs::metadata(self.path("outside/secret")).unwrap().uid();
            let message = self.find(&path, None).unwrap_err().message;
            assert_eq!(
                self.find(&path, Some("1Mi")).unwrap_err().message.contains("failed"),
                message.contains("failed")
            );
            assert_eq!(fs::metadata(self.path("outside/secret")).unwrap().uid(), owner);
            assert_eq!(fs::read_dir(self.path("outside")).unwrap().count(), 1, "nothing was made outside");
            assert!(message.contains(&path), "{message}");
            message
        }
    }

    #[test]
    fn a_host_disk_is_found_or_made() {
        let case = Case::new();
        let path = case.path("disks/sub/disk.img");
        let text = path.display().to_string();
        assert!(case.find(&text, None).unwrap_err().message.contains("failed to find"));
        assert!(case.find(&text, Some("-1")).unwrap_err().message.contains("capacity"));
        case.find(&text, Some("1Mi")).unwrap();
        let meta = fs::metadata(&path).unwrap();
        assert_eq!((meta.len(), meta.uid(), meta.gid()), (1 << 20, QEMU_ID, QEMU_ID));
        fs::write(&path, "data").unwrap();
        let found = case.find(&text, Some("1Mi")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"data", "what is there stays");
        assert_eq!((found.path, found.id.inode), (path, meta.ino()));
        assert!(case.find(&text, None).is_ok());
        assert_eq!(fs::read_dir(case.path("disks/sub")).unwrap().count(), 1);
    }

    #[test]
    fn the_folder_of_disks_is_made_when_the_first_disk_is() {
        let mut case = Case::new();
        case.allowed = vec![case.path("new/disks")];
        case.find(&case.path("new/disks/a").display().to_string(), Some("1Mi")).unwrap();
    }

    #[test]
    fn paths_outside_the_folders_are_refused() {
        let case = Case::new();
        let message = case.refusal("outside/secret");
        assert!(message.contains("--host-disk-folder"), "{message}");
        assert!(message.contains(&case.allowed[0].display().to_string()), "{message}");
        assert!(case.refusal("disks").contains("--host-disk-folder"), "the folder is no disk");
        assert!(case.refusal("disks-too/x").contains("--host-disk-folder"));
        assert!(case.refusal("disks/../outside/secret").contains("without `.`"));
        assert!(case.refusal("disks/./x").contains("without `.`"));
        assert!(case.refusal("./relative.img").contains("absolute"));
    }

    #[test]
    fn links_devices_and_fifos_are_refused() {
        let case = Case::new();
        symlink(case.path("outside"), case.path("disks/folder")).unwrap();
        symlink(case.path("outside/secret"), case.path("disks/file")).unwrap();
        symlink("missing", case.path("disks/dangling")).unwrap();
        for path in ["disks/folder/secret", "disks/folder/new", "disks/folder/a/new", "disks/file", "disks/dangling"] {
            assert!(case.refusal(path).contains("symbolic link"), "{path}");
        }
        nix::unistd::mkfifo(&case.path("disks/fifo"), Mode::S_IRWXU).unwrap();
        let number = nix::sys::stat::makedev(1, 3);
        let kind = nix::sys::stat::SFlag::S_IFCHR;
        nix::sys::stat::mknod(&case.path("disks/device"), kind, Mode::S_IRWXU, number).unwrap();
        fs::create_dir(case.path("disks/sub")).unwrap();
        for path in ["disks/fifo", "disks/device", "disks/sub"] {
            assert!(case.refusal(path).contains("no regular file"), "{path}");
        }
    }
}
