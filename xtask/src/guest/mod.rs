//! `cargo xtask guest`: a test guest that boots in seconds under emulation, made of Debian packages.
//!
//! It takes an address by DHCP on each NIC, answers HTTP on port 80 with its host name and MAC addresses, echoes on
//! port 7, runs the guest agent, reads cloud-init data, obeys the power button, and lets root in with the password
//! `guest` on the serial console. Its lines that begin with `T-` say how far it is.
//!
//! Invariant: `target/guest` holds a whole guest or none: it is built beside and renamed.

pub mod cpio;
mod disk;
pub mod initramfs;
mod oci;
pub mod packages;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use sha2::{Digest as _, Sha256};

pub use disk::COMMAND_LINE;

use crate::process::Program;
use crate::workspace;

/// Options of the chore.
#[derive(Args)]
pub struct Arguments {
    /// Build it even where the cached one is made of the same inputs
    #[arg(long)]
    force: bool,
}

/// A test guest on disk.
pub struct Guest {
    /// The bootable disk, qcow2.
    pub disk: PathBuf,
    /// The same disk as a containerDisk: a folder with an OCI image layout.
    pub layout: PathBuf,
}

/// The chore.
pub fn run(arguments: &Arguments) -> Result<()> {
    let start = Instant::now();
    let guest = ensure(arguments.force)?;
    println!("guest: {} ({:.1} s)", guest.disk.display(), start.elapsed().as_secs_f32());
    println!("guest: {} (OCI image layout)", guest.layout.display());
    Ok(())
}

/// Builds the guest unless the one that is there was made of the same inputs.
pub fn ensure(force: bool) -> Result<Guest> {
    let folder = workspace::target().join("guest");
    let guest = Guest { disk: folder.join("disk.qcow2"), layout: folder.join("oci") };
    let key = key();
    let key_file = folder.join("key");
    if !force && fs::read_to_string(&key_file).is_ok_and(|text| text == key) {
        return Ok(guest);
    }
    fs::create_dir_all(&folder).with_context(|| format!("failed to make {}", folder.display()))?;
    let scratch = tempfile::tempdir_in(&folder).context("failed to make a scratch folder")?;
    let built = scratch.path().join("built");
    fs::create_dir(&built)?;
    build(&folder.join("debs"), scratch.path(), &built)?;

    // The key goes first and comes last: a crash in between leaves a guest without a key, which is built again.
    remove(&key_file)?;
    remove(&guest.disk)?;
    remove(&guest.layout)?;
    fs::rename(built.join("disk.qcow2"), &guest.disk).context("failed to put the disk in place")?;
    fs::rename(built.join("oci"), &guest.layout).context("failed to put the image layout in place")?;
    fs::write(&key_file, key).context("failed to write the key")?;
    Ok(guest)
}

fn build(debs: &Path, scratch: &Path, built: &Path) -> Result<()> {
    let packages = packages::unpack(debs, scratch)?;
    let kernel = packages::kernel_image(&packages.kernel)?;
    let initramfs = initramfs::build(&packages)?;
    let raw = scratch.join("disk.raw");
    disk::build(&raw, &kernel, &initramfs, scratch)?;
    let qcow2 = built.join("disk.qcow2");
    Program::new("qemu-img")
        .args(["convert", "-f", "raw", "-O", "qcow2"])
        .args([&raw, &qcow2])
        .deadline(Duration::from_secs(120))
        .output()
        .context("failed to convert the disk")?;
    oci::write(&built.join("oci"), &qcow2)
}

/// A hash of all that the guest is made of but for the versions of Debian's packages: a cached guest stays good
/// when Debian moves on.
fn key() -> String {
    let sources = [
        include_str!("cpio.rs"),
        include_str!("disk.rs"),
        include_str!("initramfs.rs"),
        include_str!("mod.rs"),
        include_str!("oci.rs"),
        include_str!("packages.rs"),
    ];
    hash(sources.into_iter().chain(initramfs::SCRIPTS.iter().map(|(_, text)| *text)))
}

/// A hash of texts, in this order.
pub fn hash<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    texts.into_iter().for_each(|text| hash.update(Sha256::digest(text)));
    hex::encode(hash.finalize())
}

/// Removes a file or a folder; one that is not there is as good.
fn remove(path: &Path) -> Result<()> {
    let outcome = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match outcome {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("failed to remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
