//! What processes of a cluster cost: CPU time and memory, by kinds.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::cluster::Cluster;

/// Kinds, and how the names of their programs begin. The first that fits counts.
const KINDS: &[(&str, &[&str])] = &[
    ("launcher", &["virt-launcher"]),
    ("QEMU", &["qemu-system"]),
    ("libvirt", &["libvirtd", "virtqemud", "virtlogd"]),
    ("pause", &["pause"]),
    ("shim", &["containerd-shim"]),
    ("containerd", &["containerd", "runc", "ctr"]),
    ("API server", &["kube-apiserver"]),
    ("etcd", &["etcd"]),
    ("kubelet", &["kubelet"]),
    ("virt-handler", &["virt-handler"]),
    ("virt-controller", &["virt-controller"]),
    ("virt-api", &["virt-api"]),
    ("virt-operator", &["virt-operator"]),
    ("other of Kubernetes", &["kube-"]),
    ("Open vSwitch", &["ovs"]),
];
/// What a VM has besides QEMU.
pub const BESIDES_QEMU: &[&str] = &["launcher", "libvirt", "pause", "shim"];
/// What is of this product, and neither QEMU nor libvirt.
pub const OWN: &[&str] = &["launcher", "virt-handler", "virt-controller", "virt-api", "virt-operator"];

/// A process of a cluster.
pub struct Process {
    kind: &'static str,
    /// CPU seconds of it and of its children that ended.
    cpu: f64,
    /// Its share of memory, in KiB.
    pss: u64,
    /// Its resident memory, in KiB.
    rss: u64,
}

/// All processes of a cluster at one moment.
pub struct Snapshot(Vec<Process>);

impl Snapshot {
    /// Looks at them.
    pub fn take(cluster: Cluster<'_>) -> Result<Self> {
        let mark = format!("/{}/", cluster.mark());
        let folders = fs::read_dir("/proc").context("failed to list the processes")?.flatten();
        let folders = folders.map(|entry| entry.path());
        // One that ends meanwhile is left out.
        let ours = folders
            .filter(|folder| fs::read_to_string(folder.join("cgroup")).is_ok_and(|groups| groups.contains(&mark)));
        Ok(Self(ours.filter_map(|folder| Process::read(&folder)).collect()))
    }

    /// CPU seconds by kinds.
    pub fn cpu(&self) -> BTreeMap<&'static str, f64> {
        let mut all = BTreeMap::new();
        self.0.iter().for_each(|process| *all.entry(process.kind).or_default() += process.cpu);
        all
    }

    /// Shares of memory of kinds together, in MiB.
    pub fn pss(&self, kinds: &[&str]) -> f64 {
        let all = self.0.iter().filter(|process| kinds.contains(&process.kind));
        all.map(|process| process.pss).sum::<u64>() as f64 / 1024.0
    }

    /// Resident memory of the largest process of a kind, in MiB; none where there is no such process.
    pub fn largest(&self, kind: &str) -> Option<f64> {
        let all = self.0.iter().filter(|process| process.kind == kind);
        all.map(|process| process.rss).max().map(|kib| kib as f64 / 1024.0)
    }
}

impl Process {
    fn read(folder: &Path) -> Option<Self> {
        let program = fs::read_link(folder.join("exe")).ok()?;
        let name = program.file_name()?.to_string_lossy().into_owned();
        let kind = kind(&name);
        let rollup = fs::read_to_string(folder.join("smaps_rollup")).unwrap_or_default();
        Some(Self {
            kind,
            cpu: cpu_seconds(&fs::read_to_string(folder.join("stat")).ok()?)?,
            pss: kib(&rollup, "Pss:"),
            rss: kib(&rollup, "Rss:"),
        })
    }
}

fn kind(name: &str) -> &'static str {
    let fits = |(_, begins): &&(_, &[&str])| begins.iter().any(|begin| name.starts_with(begin));
    KINDS.iter().find(fits).map_or("other", |(kind, _)| kind)
}

/// Fields 14 to 17 of proc_pid_stat(5), in clock ticks: its own time and that of children that it has waited for.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let ticks: Vec<u64> = fields.split(' ').skip(11).take(4).filter_map(|field| field.parse().ok()).collect();
    // SAFETY: sysconf has no preconditions.
    let per_second = unsafe { nix::libc::sysconf(nix::libc::_SC_CLK_TCK) };
    (ticks.len() == 4 && per_second > 0).then(|| ticks.iter().sum::<u64>() as f64 / per_second as f64)
}

fn kib(rollup: &str, field: &str) -> u64 {
    let value =
        rollup.lines().find_map(|line| line.strip_prefix(field)?.trim().strip_suffix("kB")?.trim().parse().ok());
    value.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_have_kinds() {
        let kinds =
            ["containerd-shim-runc-v2", "containerd", "kube-apiserver", "kube-proxy", "qemu-system-x86_64", "sh"];
        assert_eq!(kinds.map(kind), ["shim", "containerd", "API server", "other of Kubernetes", "QEMU", "other"]);
        assert!(OWN.iter().chain(BESIDES_QEMU).all(|name| KINDS.iter().any(|(kind, _)| kind == name)));
    }

    #[test]
    fn reads_time_and_memory() {
        // SAFETY: sysconf has no preconditions.
        let tick = 1.0 / unsafe { nix::libc::sysconf(nix::libc::_SC_CLK_TCK) } as f64;
        let line = "7 (a) S (b) R 1 7 7 0 -1 4194560 1 0 0 0 10 20 30 40 20 0 1 0 4242 1 2 3";
        let seconds = cpu_seconds(line).unwrap();
        assert!((seconds - 100.0 * tick).abs() < 1e-9, "{seconds}");
        assert_eq!(kib("Rss:  9000 kB\nPss:     4096 kB\nPss_Dirty: 1 kB\n", "Pss:"), 4096);
    }
}
