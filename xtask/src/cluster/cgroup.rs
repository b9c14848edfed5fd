//! Control groups: one for each machine of a cluster, in every hierarchy that the system has (v1), or in the one (v2).

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::layout::Machine;
use crate::process;

/// Where the processes of a machine are, below its group, on v2.
const DAEMONS: &str = "daemons";

/// Longest wait for processes that were ended to leave their groups.
const DEADLINE: Duration = Duration::from_secs(10);

/// A hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    root: PathBuf,
    /// The options that mount it again; none on v2.
    options: Option<String>,
}

impl Hierarchy {
    /// The word by which node.sh mounts it.
    pub fn word(&self) -> String {
        match &self.options {
            None => "v2".to_owned(),
            Some(options) => {
                format!("{}:{options}", self.root.file_name().unwrap_or_default().to_string_lossy())
            }
        }
    }
}

/// The hierarchies of this system.
pub fn hierarchies() -> Result<Vec<Hierarchy>> {
    let text = fs::read_to_string("/proc/self/mountinfo").context("failed to list the mounts")?;
    let found = parse(&text);
    anyhow::ensure!(!found.is_empty(), "failed to find control groups below /sys/fs/cgroup");
    Ok(found)
}

/// The hierarchies in a mountinfo (proc_pid_mountinfo(5)). Where there are some of v1, one of v2 beside them has no
/// controllers, and does not count.
fn parse(mountinfo: &str) -> Vec<Hierarchy> {
    let mounts = mountinfo.lines().filter_map(|line| {
        let (place, rest) = line.split_once(" - ")?;
        let target = Path::new(place.split(' ').nth(4)?);
        let mut rest = rest.split(' ');
        Some((target, rest.next()?, rest.nth(1)?))
    });
    let (mut v1, mut v2) = (Vec::new(), Vec::new());
    for (target, kind, options) in mounts.filter(|(target, ..)| target.starts_with("/sys/fs/cgroup")) {
        let root = target.to_path_buf();
        if kind == "cgroup2" && target == Path::new("/sys/fs/cgroup") {
            v2.push(Hierarchy { root, options: None });
        } else if kind == "cgroup" {
            let named = options.split(',').filter(|option| !matches!(*option, "rw" | "ro"));
            let mut options = named.collect::<Vec<_>>().join(",");
            if options.starts_with("name=") {
                options.insert_str(0, "none,");
            }
            v1.push(Hierarchy { root, options: Some(options) });
        }
    }
    if v1.is_empty() { v2 } else { v1 }
}

/// Who is to be taken into the groups of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Its init: into the group itself, for that is the one that the machine shall see as the root.
    Init,
    /// A component: on v2 into a group below, for one with processes of its own can have no limits below it.
    Component,
}

/// Makes the groups of a machine, and returns the files that take its processes in.
pub fn make(machine: &Machine<'_>, who: Who) -> Result<Vec<File>> {
    hierarchies()?
        .iter()
        .map(|hierarchy| {
            let mut group = hierarchy.root.clone();
            for part in &machine.cgroup() {
                delegate(hierarchy, &group);
                group.push(part);
                fs::create_dir_all(&group).with_context(|| format!("failed to make {}", group.display()))?;
                inherit_cpuset(&group)?;
            }
            if hierarchy.options.is_none() && who == Who::Component {
                group.push(DAEMONS);
                fs::create_dir_all(&group).with_context(|| format!("failed to make {}", group.display()))?;
            }
            let file = group.join("cgroup.procs");
            OpenOptions::new().write(true).open(&file).with_context(|| format!("failed to open {}", file.display()))
        })
        .collect()
}

/// Lets groups below one of v2 have limits, of every kind that this one can pass on.
fn delegate(hierarchy: &Hierarchy, group: &Path) {
    if hierarchy.options.is_some() {
        return;
    }
    let controllers = fs::read_to_string(group.join("cgroup.controllers")).unwrap_or_default();
    for controller in controllers.split_whitespace() {
        // One that cannot be passed on is one that pods do without; the kubelet says so where it needs it.
        let _ = fs::write(group.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

/// A new group of v1's cpuset has no CPUs and takes no process in until it gets some.
fn inherit_cpuset(group: &Path) -> Result<()> {
    let Some(parent) = group.parent() else { return Ok(()) };
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let file = group.join(name);
        // An empty file on v2 means: as the parent.
        if file.exists() && !group.join("cgroup.controllers").exists() {
            let value = fs::read_to_string(parent.join(name))?;
            fs::write(&file, value.trim()).with_context(|| format!("failed to write {}", file.display()))?;
        }
    }
    Ok(())
}

/// Removes a group and all below it, in all hierarchies. Fails where a process stays in one of them.
pub fn remove(group: &Path) -> Result<()> {
    let hierarchies = hierarchies()?;
    let mut last = Ok(());
    // The kernel takes processes that have ended out of their groups at its leisure.
    let removed = process::wait_for("control groups to be empty", DEADLINE, || {
        last = hierarchies.iter().try_for_each(|hierarchy| remove_below(&hierarchy.root.join(group)));
        Ok(last.is_ok().then_some(()))
    });
    last.and(removed)
}

fn remove_below(group: &Path) -> Result<()> {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_below(&entry.path())?;
        }
    }
    match fs::remove_dir(group) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("failed to remove {}", group.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v1_is_mounted_again_with_what_it_has() {
        let text = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
                    32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
                    40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd\n\
                    41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        let words: Vec<_> = parse(text).iter().map(Hierarchy::word).collect();
        assert_eq!(words, ["cpu,cpuacct:cpu,cpuacct", "systemd:none,name=systemd"]);
    }

    #[test]
    fn v2_stands_alone() {
        let text = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(parse(text).iter().map(Hierarchy::word).collect::<Vec<_>>(), ["v2"]);
    }
}
