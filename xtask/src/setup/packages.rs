//! The Debian packages that are needed, and why.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::Program;

/// A package and the reason that it is here.
pub struct Package {
    /// Its name.
    pub name: &'static str,
    /// What needs it, and for what.
    pub reason: &'static str,
}

const fn package(name: &'static str, reason: &'static str) -> Package {
    Package { name, reason }
}

/// All that is needed. libvirt-daemon-system is left out on purpose: it would pull in systemd and start a daemon
/// for the whole machine, while each launcher runs one of its own.
pub const PACKAGES: &[Package] = &[
    package("build-essential", "the linker, and the compilers of crates that build C, and of libFuzzer"),
    package("pkg-config", "finds libvirt when the launcher is built"),
    package("libvirt-dev", "headers of libvirt, which the launcher links to"),
    package("libvirt-daemon", "libvirtd: the launcher runs its own"),
    package("libvirt-daemon-driver-qemu", "libvirtd's driver for QEMU"),
    package("libvirt-clients", "virsh, to look into a launcher by hand"),
    package("qemu-system-x86", "runs the guests"),
    package("qemu-utils", "qemu-img: overlays, empty disks, the test guest's disk"),
    package("genisoimage", "ISO images for cloud-init"),
    package("openvswitch-switch", "OVS bridges, one of the two backends of an underlay network"),
    package("nftables", "NAT and filters of the guests' traffic"),
    package("iproute2", "namespaces and links of tests and demo"),
    package("ethtool", "turns off checksum offload on the demo's veths: the user-space OVS needs that"),
    package("iperf3", "throughput, in the bench"),
    package("openssl", "certificates of the test cluster"),
    package("runc", "runs the containers of the test cluster"),
    package("conntrack", "kube-proxy of the test cluster clears connections with it"),
    package("tini", "first process of each node of the test cluster"),
    package("busybox-static", "user space of the test guest; ping and wget in tests and demo"),
    package("syslinux", "boot loader of the test guest's disk"),
    package("syslinux-common", "its master boot record"),
    package("mtools", "puts files on the test guest's disk without mounting it"),
    package("buildah", "container images, without a daemon"),
    package("xz-utils", "unpacks kernel modules where Debian compresses them"),
    package("kmod", "modinfo: in which order the test guest loads its modules"),
    package("iputils-ping", "pings the guest by hand in a demo that is kept up"),
    package("curl", "fetches the guest's page by hand in a demo that is kept up"),
    package("python3", "a client of another user, in tests"),
];

/// The packages of the table that are not installed.
pub fn missing() -> Result<Vec<&'static Package>> {
    let listed = Program::new("dpkg-query")
        .args(["-W", "-f", "${Status} ${Package} ${Provides}\n"])
        .output()
        .context("failed to list the installed packages")?;
    let installed = installed(&listed);
    Ok(PACKAGES.iter().filter(|package| !installed.contains(package.name)).collect())
}

/// Installed packages, and what they provide (pkgconf provides pkg-config), from dpkg-query's
/// `${Status} ${Package} ${Provides}`.
fn installed(listed: &str) -> BTreeSet<&str> {
    listed
        .lines()
        .filter_map(|line| line.strip_prefix("install ok installed "))
        .flat_map(|names| names.split([' ', ',']))
        .collect()
}

/// The names to give apt-get on a Debian with this code name.
pub fn to_install(missing: &[&Package], codename: &str) -> Vec<String> {
    missing
        .iter()
        .map(|package| match (package.name, codename) {
            // A newer qemu-utils from bookworm-backports breaks bookworm's own QEMU: keep them in step.
            ("qemu-utils", "bookworm") => "qemu-utils/bookworm".to_owned(),
            (name, _) => name.to_owned(),
        })
        .collect()
}

/// Installs packages by name, with no more than they depend on, and starts no service.
pub fn install(names: &[String]) -> Result<()> {
    let services = NoServices::begin()?;
    let apt = |arguments: &[&str]| {
        Program::new("apt-get")
            .args(["-q", "-o", "DPkg::Lock::Timeout=120", "-o", "Acquire::Retries=3"])
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .deadline(Duration::from_secs(900))
    };
    apt(&["update"]).output().context("failed to update the lists of packages")?;
    apt(&["install", "-y", "--no-install-recommends", "--allow-downgrades"])
        .args(names)
        .output()
        .with_context(|| format!("failed to install {}", names.join(" ")))?;
    drop(services);
    Ok(())
}

/// While it lives, packages that are installed start no service (Debian's policy-rc.d): tests and demo run daemons
/// of their own, and the machine's owner decides on the rest.
struct NoServices {
    ours: bool,
}

const POLICY: &str = "/usr/sbin/policy-rc.d";

impl NoServices {
    fn begin() -> Result<Self> {
        use std::os::unix::fs::PermissionsExt as _;
        if std::path::Path::new(POLICY).exists() {
            return Ok(Self { ours: false });
        }
        let policy = Self { ours: true };
        std::fs::write(POLICY, "#!/bin/sh\nexit 101\n").with_context(|| format!("failed to write {POLICY}"))?;
        std::fs::set_permissions(POLICY, std::fs::Permissions::from_mode(0o755))
            .with_context(|| format!("failed to make {POLICY} executable"))?;
        Ok(policy)
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours {
            // It was there a moment ago; where it is gone, nothing is left to do.
            let _ = std::fs::remove_file(POLICY);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_is_installed_and_provided() {
        let listed = "install ok installed pkgconf pkg-config\ndeinstall ok config-files nftables \n\
                      install ok installed tcpdump \ninstall ok half-configured arping \n";
        let installed = installed(listed);
        assert!(installed.contains("pkg-config") && installed.contains("tcpdump"));
        assert!(!installed.contains("nftables") && !installed.contains("arping"));
    }

    #[test]
    fn qemu_stays_in_step_on_bookworm_only() {
        let utils: Vec<&Package> = PACKAGES.iter().filter(|p| p.name == "qemu-utils").collect();
        assert_eq!(to_install(&utils, "bookworm"), ["qemu-utils/bookworm"]);
        assert_eq!(to_install(&utils, "trixie"), ["qemu-utils"]);
    }

    #[test]
    fn no_package_twice() {
        let names: BTreeSet<_> = PACKAGES.iter().map(|package| package.name).collect();
        assert_eq!(names.len(), PACKAGES.len());
    }
}
