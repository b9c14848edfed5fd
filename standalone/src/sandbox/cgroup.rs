//! Limits of a sandbox where the host has writable control groups; none where it has not.
//!
//! Both hierarchies are served: the unified one (v2) and the older ones for memory and pids (v1). The group is
//! `holdfast/<id>`; it is its own, so that stopping holdfastd's service leaves the VMs alone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Most processes and threads of one sandbox: far above what a VM with hundreds of vCPUs needs.
const MAX_TASKS: u32 = 4096;
/// Our folder in each hierarchy.
const PARENT: &str = "holdfast";

/// The control groups of this host that can be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cgroups {
    /// Mount point of a hierarchy, and the files that hold its limits of memory and of tasks, if it has them.
    hierarchies: Vec<(PathBuf, Option<&'static str>, Option<&'static str>)>,
}

impl Cgroups {
    /// Looks for hierarchies in which groups can be made.
    pub fn detect() -> Self {
        Self::below(Path::new("/sys/fs/cgroup"))
    }

    fn below(mount: &Path) -> Self {
        let candidates = [
            (mount.to_owned(), Some("memory.max"), Some("pids.max")),
            (mount.join("memory"), Some("memory.limit_in_bytes"), None),
            (mount.join("pids"), None, Some("pids.max")),
        ];
        let usable = |(path, memory, tasks): (PathBuf, Option<&'static str>, Option<&'static str>)| {
            let unified = path.join("cgroup.controllers");
            if let Ok(controllers) = fs::read_to_string(&unified) {
                let has = |name: &str| controllers.split_whitespace().any(|c| c == name);
                let memory = memory.filter(|_| has("memory"));
                let tasks = tasks.filter(|_| has("pids"));
                return (memory.is_some() || tasks.is_some()).then_some((path, memory, tasks));
            }
            path.join("cgroup.procs").exists().then_some((path, memory, tasks)).filter(|(path, ..)| path != mount)
        };
        let can_make = |path: &Path| fs::create_dir_all(path.join(PARENT)).is_ok();
        let hierarchies = candidates.into_iter().filter_map(usable).filter(|(path, ..)| can_make(path)).collect();
        Self { hierarchies }
    }

    /// Makes the groups of a sandbox with their limits; returns the `cgroup.procs` files to enter.
    /// `memory` is in bytes; none leaves it unlimited.
    pub fn make(&self, id: &str, memory: Option<u64>) -> io::Result<Vec<PathBuf>> {
        let mut entries = Vec::new();
        for (mount, memory_file, tasks_file) in &self.hierarchies {
            let parent = mount.join(PARENT);
            if mount.join("cgroup.controllers").exists() {
                let wanted = [memory_file.map(|_| "+memory"), tasks_file.map(|_| "+pids")];
                let wanted: Vec<&str> = wanted.into_iter().flatten().collect();
                for folder in [mount, &parent] {
                    fs::write(folder.join("cgroup.subtree_control"), wanted.join(" "))?;
                }
            }
            let group = parent.join(id);
            fs::create_dir_all(&group)?;
            if let (Some(file), Some(bytes)) = (memory_file, memory) {
                fs::write(group.join(file), bytes.to_string())?;
            }
            if let Some(file) = tasks_file {
                fs::write(group.join(file), MAX_TASKS.to_string())?;
            }
            entries.push(group.join("cgroup.procs"));
        }
        Ok(entries)
    }

    /// Removes the groups of a sandbox whose processes have ended; what is not there is a success.
    pub fn remove(&self, id: &str) -> io::Result<()> {
        for (mount, ..) in &self.hierarchies {
            match fs::remove_dir(mount.join(PARENT).join(id)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// The ids of the sandboxes that have groups.
    pub fn ids(&self) -> Vec<String> {
        let mut ids = Vec::new();
        for (mount, ..) in &self.hierarchies {
            let entries = fs::read_dir(mount.join(PARENT)).into_iter().flatten().flatten();
            let folders = entries.filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir()));
            ids.extend(folders.filter_map(|entry| entry.file_name().into_string().ok()));
        }
        ids.sort();
        ids.dedup();
        ids
    }

    /// Removes our own folders where nothing is left in them, so that a host without VMs shows no trace.
    pub fn remove_parents(&self) {
        for (mount, ..) in &self.hierarchies {
            // It fails while another sandbox is there, as it should.
            let _ = fs::remove_dir(mount.join(PARENT));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_control_groups_gives_none() {
        let folder = tempfile::tempdir().unwrap();
        let none = Cgroups::below(folder.path());
        assert_eq!(none, Cgroups::default());
        assert!(none.make("x", Some(1)).unwrap().is_empty());
        none.remove("x").unwrap();
    }

    #[test]
    fn an_older_hierarchy_is_used_where_it_is_there() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["memory", "pids"] {
            fs::create_dir(folder.path().join(name)).unwrap();
            fs::write(folder.path().join(name).join("cgroup.procs"), "").unwrap();
        }
        let cgroups = Cgroups::below(folder.path());
        let entries = cgroups.make("x", Some(1 << 20)).unwrap();
        assert_eq!(entries.len(), 2);
        let limit = folder.path().join("memory/holdfast/x/memory.limit_in_bytes");
        assert_eq!(fs::read_to_string(limit).unwrap(), "1048576");
        assert_eq!(cgroups.ids(), ["x"]);
    }
}
