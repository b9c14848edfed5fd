//! The node VM's kernel: Debian's for clouds, its modules in a folder where the VM's modprobe finds them, and an
//! initramfs that gets as far as this machine's root.
//!
//! Invariant: `target/node-vm` holds all of it or is made anew: its key comes last.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::guest::{self, cpio::Tree, initramfs, packages};
use crate::process::Program;
use crate::workspace;

/// What the way to the root takes; the rest is loaded from there.
const MODULES: &[&str] = &["virtio_pci", "virtiofs", "overlay", "virtio_console", "virtio-rng"];

/// What a VM is booted with.
pub struct Kernel {
    pub image: PathBuf,
    pub initramfs: PathBuf,
    /// The folder of modules of its version.
    pub modules: PathBuf,
}

/// Makes it where it is not there.
pub fn ensure() -> Result<Kernel> {
    let folder = workspace::target().join("node-vm");
    let key_file = folder.join("key");
    let initramfs = folder.join("initramfs");
    let package = folder.join("kernel");
    let key = key();
    if fs::read_to_string(&key_file).is_ok_and(|text| text == key) {
        return find(package, initramfs);
    }
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("failed to remove {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("failed to make {}", folder.display()))?;
    packages::unpack_kernel(&workspace::target().join("guest/debs"), &package)?;
    let kernel = find(package.clone(), initramfs)?;
    let version = kernel.modules.file_name().unwrap_or_default();
    Program::new("/sbin/depmod")
        .args(["-b".as_ref(), package.as_os_str(), version])
        .deadline(Duration::from_secs(120))
        .output()
        .context("failed to index the kernel's modules")?;
    let mut tree = Tree::default();
    initramfs::add_base(&mut tree)?;
    initramfs::add_modules(&mut tree, &package, MODULES)?;
    tree.file("init", 0o755, include_bytes!("../../node-vm/init").to_vec());
    tree.file("serve", 0o755, include_bytes!("../../node-vm/serve").to_vec());
    fs::write(&kernel.initramfs, initramfs::compress(&tree)?).context("failed to write the node VM's initramfs")?;
    fs::write(&key_file, key).context("failed to write the key")?;
    Ok(kernel)
}

fn find(package: PathBuf, initramfs: PathBuf) -> Result<Kernel> {
    let modules = fs::read_dir(package.join("lib/modules"))
        .context("failed to list the kernel package")?
        .find_map(|entry| Some(entry.ok()?.path()))
        .context("the kernel package holds no modules")?;
    Ok(Kernel { image: packages::kernel_image(&package)?, initramfs, modules })
}

/// A hash of what it is made of but for the versions of Debian's packages, as for the test guest.
fn key() -> String {
    guest::hash([
        include_str!("kernel.rs"),
        include_str!("../guest/cpio.rs"),
        include_str!("../guest/initramfs.rs"),
        include_str!("../../node-vm/init"),
        include_str!("../../node-vm/serve"),
    ])
}
