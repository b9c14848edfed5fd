//! The file system of a sandbox: the host's programs read-only, an /etc and a /dev of its own, nothing else of
//! the host but what the plan binds.
//!
//! Runs in the sandbox's own mount namespace, before privileges are given up. The root is assembled below
//! [`Plan::root`] and then becomes `/`; the host's tree is let go of, so no path leads back and no mount of the
//! host is held by a running sandbox.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{chdir, pivot_root};

use super::plan::{Bind, Device, FileId, Plan, QEMU_ID};

/// What of the host's root holds its programs; links stay links.
const SYSTEM: [&str; 8] = ["bin", "lib", "lib32", "lib64", "libx32", "nix", "sbin", "usr"];

/// What of the host's /etc programs need to start; secrets, users and networks of the host are not in it.
const ETC: [&str; 10] = [
    "alternatives",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "libvirt",
    "localtime",
    "nsswitch.conf",
    "pki",
    "qemu",
    "ssl",
];

/// Devices that every sandbox has.
fn devices() -> Vec<Device> {
    [
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
        ("net/tun", 10, 200),
    ]
    .map(|(name, major, minor)| Device::new(name, major, minor))
    .to_vec()
}

/// A step that failed, in words; the sandbox's log has no other reader than people.
pub type StepError = (String, io::Error);

/// Assembles the root. Everything but /proc, which only a process inside the pid namespace can mount.
pub fn assemble(plan: &Plan) -> Result<(), StepError> {
    let root = &plan.root;
    step("make mounts private", mount_flags("/".as_ref(), MsFlags::MS_SLAVE | MsFlags::MS_REC))?;
    tmpfs(root, "mode=0755,size=16m", MsFlags::empty())?;
    for name in SYSTEM {
        carry(&Path::new("/").join(name), &root.join(name))?;
    }
    for folder in
        ["dev", "etc", "home", "proc", "root", "run", "sys", "tmp", "var/cache", "var/lib", "var/log", "var/tmp"]
    {
        step(folder, fs::create_dir_all(root.join(folder)))?;
    }
    step("/var/run", symlink("/run", root.join("var/run")))?;
    etc(&root.join("etc"), &plan.hostname)?;
    let own = format!("mode=0755,uid={QEMU_ID},gid={QEMU_ID},size=64m");
    tmpfs(&root.join("run"), &own, MsFlags::MS_NOEXEC)?;
    tmpfs(&root.join("tmp"), "mode=1777,size=64m", MsFlags::empty())?;
    tmpfs(&root.join("var/tmp"), "mode=1777,size=64m", MsFlags::empty())?;
    dev(&root.join("dev"), &plan.devices)?;
    let ro = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let sys = root.join("sys");
    step("mount /sys", mount(Some("sysfs"), &sys, Some("sysfs"), ro, None::<&str>).map_err(io::Error::from))?;
    plan.binds.iter().try_for_each(|bind| bind_into(root, bind))
}

/// Mounts /proc of this process's pid namespace and makes the assembled root `/`.
pub fn enter(root: &Path) -> Result<(), StepError> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let proc = root.join("proc");
    step("mount /proc", mount(Some("proc"), &proc, Some("proc"), flags, None::<&str>).map_err(io::Error::from))?;
    step("enter the root", chdir(root).map_err(io::Error::from))?;
    // The new root on top of the old one at the same place: no folder for the old one is needed (pivot_root(2)).
    step("switch the root", pivot_root(".", ".").map_err(io::Error::from))?;
    step("let go of the host's tree", umount2(".", MntFlags::MNT_DETACH).map_err(io::Error::from))?;
    step("enter the root", chdir("/").map_err(io::Error::from))?;
    step("make the root read-only", read_only("/".as_ref()))
}

fn step<T>(what: &str, result: io::Result<T>) -> Result<T, StepError> {
    result.map_err(|error| (what.to_owned(), error))
}

fn mount_flags(path: &Path, flags: MsFlags) -> io::Result<()> {
    mount(None::<&str>, path, None::<&str>, flags, None::<&str>).map_err(io::Error::from)
}

fn read_only(path: &Path) -> io::Result<()> {
    let keep = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount_flags(path, keep)
}

fn tmpfs(path: &Path, options: &str, more: MsFlags) -> Result<(), StepError> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | more;
    let mounted = mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some(options)).map_err(io::Error::from);
    step(&format!("mount {}", path.display()), mounted)
}

/// Shows a path of the host read-only at another; a link as the same link, nothing where there is nothing.
fn carry(source: &Path, target: &Path) -> Result<(), StepError> {
    let what = format!("show {}", source.display());
    let Ok(found) = fs::symlink_metadata(source) else { return Ok(()) };
    if found.is_symlink() {
        return step(&what, fs::read_link(source).and_then(|to| symlink(to, target)));
    }
    step(&what, place(target, found.is_dir()))?;
    step(&what, bind(source, target))?;
    step(&what, read_only(target))
}

fn place(target: &Path, folder: bool) -> io::Result<()> {
    if folder {
        return fs::create_dir_all(target);
    }
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    if target.exists() { Ok(()) } else { fs::write(target, "") }
}

fn bind(source: &Path, target: &Path) -> io::Result<()> {
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>).map_err(io::Error::from)
}

fn bind_into(root: &Path, wanted: &Bind) -> Result<(), StepError> {
    let what = format!("show {} as {}", wanted.source.display(), wanted.target.display());
    // /var/run is a link to /run, which would lead out of the assembled root.
    let inside = match wanted.target.strip_prefix("/var/run") {
        Ok(rest) => Path::new("run").join(rest),
        Err(_) => wanted.target.strip_prefix("/").unwrap_or(&wanted.target).to_owned(),
    };
    let target = root.join(inside);
    let held = step(&what, hold(wanted))?;
    let folder = step(&what, held.metadata())?.is_dir();
    step(&what, place(&target, folder))?;
    // What is bound is what was looked at, whatever has come to its path since.
    step(&what, bind(Path::new(&format!("/proc/self/fd/{}", held.as_raw_fd())), &target))?;
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let remounted = if wanted.writable { mount_flags(&target, flags) } else { read_only(&target) };
    step(&what, remounted)
}

/// Opens the source of a bind, without reading it; it must be the file that the plan means.
fn hold(wanted: &Bind) -> io::Result<File> {
    let no_follow = if wanted.file.is_some() { OFlag::O_NOFOLLOW } else { OFlag::empty() };
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC | no_follow;
    let held = File::from(open(&wanted.source, flags, Mode::empty())?);
    let meta = held.metadata()?;
    let found = FileId { device: meta.dev(), inode: meta.ino() };
    if wanted.file.is_some_and(|file| file != found) {
        return Err(io::Error::other("another file has come to its place"));
    }
    Ok(held)
}

fn etc(etc: &Path, hostname: &str) -> Result<(), StepError> {
    for name in ETC {
        carry(&Path::new("/etc").join(name), &etc.join(name))?;
    }
    let users = format!("root:x:0:0::/root:/usr/sbin/nologin\nqemu:x:{QEMU_ID}:{QEMU_ID}::/run:/usr/sbin/nologin\n");
    let groups = format!("root:x:0:\nqemu:x:{QEMU_ID}:\n");
    let hosts = format!("127.0.0.1 localhost\n::1 localhost\n127.0.1.1 {hostname}\n");
    // A copy: the resolver's file is replaced, not rewritten, and a bind would keep the old one.
    let resolv = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let files = [
        ("passwd", users),
        ("group", groups),
        ("hosts", hosts),
        ("hostname", format!("{hostname}\n")),
        ("resolv.conf", resolv),
    ];
    files.iter().try_for_each(|(name, content)| step(name, fs::write(etc.join(name), content)))
}

fn dev(dev: &Path, more: &[Device]) -> Result<(), StepError> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let mounted = mount(Some("tmpfs"), dev, Some("tmpfs"), flags, Some("mode=0755,size=64k")).map_err(io::Error::from);
    step("mount /dev", mounted)?;
    for device in devices().iter().chain(more) {
        let path = dev.join(&device.name);
        let what = format!("make /dev/{}", device.name);
        if let Some(folder) = path.parent() {
            step(&what, fs::create_dir_all(folder))?;
        }
        let number = makedev(device.major, device.minor);
        step(&what, mknod(&path, SFlag::S_IFCHR, Mode::empty(), number).map_err(io::Error::from))?;
        // The umask does not apply to this one.
        step(&what, fs::set_permissions(&path, fs::Permissions::from_mode(0o666)))?;
    }
    let links = [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ];
    for (name, to) in links {
        step(name, symlink(to, dev.join(name)))?;
    }
    let pts = dev.join("pts");
    let shm = dev.join("shm");
    step("/dev/pts", fs::create_dir(&pts).and_then(|()| fs::create_dir(&shm)))?;
    let options = format!("newinstance,ptmxmode=0666,mode=0620,gid={QEMU_ID}");
    let mounted = mount(Some("devpts"), &pts, Some("devpts"), flags, Some(options.as_str()));
    step("mount /dev/pts", mounted.map_err(io::Error::from))?;
    tmpfs(&shm, "mode=1777,size=64m", MsFlags::MS_NOEXEC)
}

/// Gives a folder of the host to the sandbox's user, so that it can be bound writable.
pub fn own(path: &Path) -> io::Result<()> {
    chown(path, Some(QEMU_ID), Some(QEMU_ID))
}

/// A folder that exists, belongs to the sandbox's user and is closed to others.
pub fn own_folder(path: PathBuf) -> io::Result<PathBuf> {
    fs::create_dir_all(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
    own(&path)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_replaced_is_not_bound() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("disk");
        fs::write(&source, "").unwrap();
        let held = File::open(&source).unwrap();
        let meta = held.metadata().unwrap();
        let file = Some(FileId { device: meta.dev(), inode: meta.ino() });
        let bind = Bind { source: source.clone(), target: "/disk".into(), writable: true, file };
        hold(&bind).unwrap();
        fs::rename(&source, folder.path().join("other")).unwrap();
        symlink("other", &source).unwrap();
        assert!(hold(&bind).unwrap_err().to_string().contains("another file"), "not through a link");
        fs::remove_file(&source).unwrap();
        fs::write(&source, "").unwrap();
        assert!(hold(&bind).unwrap_err().to_string().contains("another file"));
    }
}
