//! The guest's root: busybox, the guest agent with its libraries, kernel modules in their order, our scripts.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use flate2::Compression;
use flate2::write::GzEncoder;

use super::cpio::Tree;
use super::packages::Packages;
use crate::process::Program;

/// What the guest can drive, beside what these modules depend on. Of these the kernel may have any built in.
const MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio_console",
    "isofs",
    "button",
    "evdev",
    "virtio-rng",
    "virtio_balloon",
    "virtio_scsi",
    "sd_mod",
    "sr_mod",
    "8021q",
];

/// What the guest agent tells of the system.
const OS_RELEASE: &str = "ID=holdfast-guest\nNAME=\"Holdfast test guest\"\nPRETTY_NAME=\"Holdfast test guest 1\"\n\
                          VERSION=\"1\"\nVERSION_ID=\"1\"\n";

/// Our scripts: path in the guest, text.
pub const SCRIPTS: &[(&str, &str)] = &[
    ("init", include_str!("../../guest/init")),
    ("etc/dhcp", include_str!("../../guest/dhcp")),
    ("sbin/login", include_str!("../../guest/login")),
    ("sbin/shutdown", include_str!("../../guest/shutdown")),
    // Event 00000080 of class PWRF, as busybox's acpid looks it up.
    ("etc/acpi/PWRF/00000080", include_str!("../../guest/powerbutton")),
];

/// The initramfs, compressed. gzip: a kernel under emulation reads the disk slower than it unpacks this.
pub fn build(packages: &Packages) -> Result<Vec<u8>> {
    let mut tree = Tree::default();
    add_base(&mut tree)?;
    for folder in ["tmp", "root"] {
        tree.folder(folder);
    }
    tree.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n".to_vec());
    tree.file("etc/group", 0o644, b"root:x:0:\n".to_vec());
    tree.file("etc/os-release", 0o644, OS_RELEASE.as_bytes().to_vec());
    tree.file("etc/hosts", 0o644, b"127.0.0.1 localhost\n".to_vec());
    for (path, text) in SCRIPTS {
        tree.file(path, 0o755, text.as_bytes().to_vec());
    }
    add_guest_agent(&mut tree, &packages.guest_agent)?;
    add_modules(&mut tree, &packages.kernel, MODULES)?;
    compress(&tree)
}

/// Adds what any init begins with: folders to mount on, a console, busybox.
pub fn add_base(tree: &mut Tree) -> Result<()> {
    for folder in ["dev", "proc", "sys"] {
        tree.folder(folder);
    }
    // What init has for standard input and output until it mounts /dev.
    tree.device("dev/console", 5, 1);
    tree.device("dev/null", 1, 3);
    let busybox = Path::new("/bin/busybox");
    if !libraries(busybox)?.is_empty() {
        bail!("/bin/busybox is not static; the package busybox-static has the one that is");
    }
    tree.file("bin/busybox", 0o755, read(busybox)?);
    Ok(())
}

/// The archive as a kernel takes it.
pub fn compress(tree: &Tree) -> Result<Vec<u8>> {
    let mut archive = Vec::new();
    tree.write(&mut archive)?;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&archive)?;
    Ok(encoder.finish()?)
}

fn add_guest_agent(tree: &mut Tree, folder: &Path) -> Result<()> {
    let agent = folder.join("usr/sbin/qemu-ga");
    tree.file("usr/sbin/qemu-ga", 0o755, read(&agent)?);
    for library in libraries(&agent)? {
        tree.file(&library.to_string_lossy(), 0o755, read(&library)?);
    }
    Ok(())
}

/// The shared libraries that a program of this machine's own Debian needs, as the machine has them.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let listed = match Program::new("ldd").args([program]).output() {
        Ok(listed) => listed,
        // How ldd says that a program is static, with exit code 1.
        Err(error) if error.to_string().contains("not a dynamic executable") => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    if let Some(missing) = listed.lines().find(|line| line.contains("not found")) {
        bail!("{} needs a library that is not there: {}", program.display(), missing.trim());
    }
    // "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x...)", and the loader without an arrow.
    Ok(listed
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect())
}

/// Adds modules below `modules/`, with all that they depend on, and their order, a name on each line of
/// `modules/order`.
pub fn add_modules(tree: &mut Tree, kernel: &Path, names: &[&str]) -> Result<()> {
    let files = files_below(&kernel.join("lib/modules"))?;
    let mut order = Vec::new();
    for name in names {
        add_module(tree, &files, name, &mut order)?;
    }
    if order.is_empty() {
        bail!("found no kernel module below {}", kernel.display());
    }
    tree.file("modules/order", 0o644, format!("{}\n", order.join("\n")).into_bytes());
    Ok(())
}

/// Adds a module after those that it depends on. A module without a file is built into the kernel.
fn add_module(tree: &mut Tree, files: &[PathBuf], name: &str, order: &mut Vec<String>) -> Result<()> {
    let same = |path: &Path| {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        file.split_once(".ko").is_some_and(|(stem, _)| stem.replace('-', "_") == name.replace('-', "_"))
    };
    let Some(path) = files.iter().find(|path| same(path)) else { return Ok(()) };
    let file = format!("{}.ko", name.replace('-', "_"));
    if order.contains(&file) {
        return Ok(());
    }
    let path_text = path.to_string_lossy();
    let depends = Program::new("/sbin/modinfo").args(["-F", "depends", &path_text]).output()?;
    for dependency in depends.trim().split(',').filter(|name| !name.is_empty()) {
        add_module(tree, files, dependency, order)?;
    }
    // Plain modules: the guest's busybox does not unpack them.
    let plain = tempfile::NamedTempFile::new()?;
    if path_text.ends_with(".xz") {
        fs::write(plain.path(), read(path)?)?;
        let xz = plain.path().with_extension("xz");
        fs::rename(plain.path(), &xz)?;
        Program::new("xz").args(["-d".as_ref(), xz.as_os_str()]).output()?;
        fs::rename(xz.with_extension(""), plain.path())?;
    } else {
        fs::write(plain.path(), read(path)?)?;
    }
    tree.file(&format!("modules/{file}"), 0o644, read(plain.path())?);
    order.push(file);
    Ok(())
}

fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("failed to list {}", folder.display()))? {
            let entry = entry?;
            if entry.file_type()?.is_dir() { folders.push(entry.path()) } else { files.push(entry.path()) }
        }
    }
    Ok(files)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("failed to read {}", path.display()))
}
