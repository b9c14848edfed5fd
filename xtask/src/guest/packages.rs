//! The Debian packages that the guest is made of: fetched once, unpacked into a folder, never installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process::Program;

/// The kernel for virtual machines; a package without content that depends on the present version.
const KERNEL: &str = "linux-image-cloud-amd64";
const GUEST_AGENT: &str = "qemu-guest-agent";

/// Folders with the content of the packages.
pub struct Packages {
    /// The kernel: boot/vmlinuz-*, lib/modules/*.
    pub kernel: PathBuf,
    /// The guest agent: usr/sbin/qemu-ga.
    pub guest_agent: PathBuf,
}

/// Fetches the packages into `cache` where they are not there yet, and unpacks them below `scratch`.
pub fn unpack(cache: &Path, scratch: &Path) -> Result<Packages> {
    let packages = Packages { kernel: scratch.join("kernel"), guest_agent: scratch.join("guest-agent") };
    unpack_kernel(cache, &packages.kernel)?;
    unpack_one(cache, GUEST_AGENT, &|| Ok(GUEST_AGENT.to_owned()), &packages.guest_agent)?;
    Ok(packages)
}

/// Fetches the kernel's package into `cache` where it is not there yet, and unpacks it into `folder`.
pub fn unpack_kernel(cache: &Path, folder: &Path) -> Result<()> {
    unpack_one(cache, "linux-image-", &kernel_package, folder)
}

/// The kernel's image in its unpacked package.
pub fn kernel_image(kernel: &Path) -> Result<PathBuf> {
    fs::read_dir(kernel.join("boot"))
        .context("failed to list the kernel package")?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-")))
        .context("the kernel package holds no boot/vmlinuz-*")
}

fn unpack_one(cache: &Path, prefix: &str, package: &dyn Fn() -> Result<String>, folder: &Path) -> Result<()> {
    fs::create_dir_all(cache).with_context(|| format!("failed to make {}", cache.display()))?;
    let archive = match find(cache, prefix)? {
        Some(archive) => archive,
        None => {
            download(cache, &package()?)?;
            find(cache, prefix)?.with_context(|| format!("apt-get fetched no package `{prefix}*`"))?
        }
    };
    Program::new("dpkg-deb")
        .args(["-x".as_ref(), archive.as_os_str(), folder.as_os_str()])
        .deadline(Duration::from_secs(120))
        .output()
        .with_context(|| format!("failed to unpack {}", archive.display()))?;
    Ok(())
}

fn find(cache: &Path, prefix: &str) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(cache).with_context(|| format!("failed to list {}", cache.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with(prefix) && name.ends_with(".deb") {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

fn download(cache: &Path, package: &str) -> Result<()> {
    // As root, apt would drop to the user `_apt`, who may not write to the cache.
    Program::new("apt-get")
        .args(["-q", "-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=3", "download", package])
        .folder(cache)
        .deadline(Duration::from_secs(300))
        .output()
        .with_context(|| format!("failed to fetch package `{package}`"))?;
    Ok(())
}

/// The package with the kernel itself.
fn kernel_package() -> Result<String> {
    let show = || {
        Program::new("apt-cache").args(["show", "--no-all-versions", KERNEL]).deadline(Duration::from_secs(60)).output()
    };
    // A fresh machine has no lists of packages.
    let text = match show() {
        Ok(text) if !text.trim().is_empty() => text,
        _ => {
            Program::new("apt-get")
                .args(["-q", "update"])
                .deadline(Duration::from_secs(300))
                .output()
                .context("failed to update the lists of packages")?;
            show().with_context(|| format!("failed to find package `{KERNEL}`"))?
        }
    };
    match dependency(&text) {
        Some(name) => Ok(name.to_owned()),
        None => bail!("package `{KERNEL}` depends on no linux-image-*:\n{text}"),
    }
}

/// The first linux-image-* in the `Depends` of apt-cache's output.
fn dependency(text: &str) -> Option<&str> {
    text.lines()
        .find_map(|line| line.strip_prefix("Depends:"))?
        .split([' ', ','])
        .find(|word| word.starts_with("linux-image-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_kernel_package() {
        let text = "Package: linux-image-cloud-amd64\nDepends: linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)\n";
        assert_eq!(dependency(text), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(dependency("Package: x\n"), None);
    }
}
