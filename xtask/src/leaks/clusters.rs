//! What is inside of the machines of a test cluster (`cargo xtask cluster`): pods come and go there, and all of it ends
//! with the machine's first process. So that process and the machine's control group count, and nothing in them does.
//!
//! Whoever wants to know what is left on a node runs the chore there: `cargo xtask cluster shell --on node1 -- ...`.

use std::fs;
use std::path::Path;

/// Whether a process is one of a machine. By its folder in /proc.
pub fn holds(process: &Path) -> bool {
    let groups = fs::read_to_string(process.join("cgroup")).unwrap_or_default();
    groups.lines().filter_map(|line| line.splitn(3, ':').nth(2)).any(|group| depth(group).is_some())
}

/// Whether a process is the first of a machine.
pub fn is_machine(process: &Path) -> bool {
    holds(process) && is_first(&fs::read_to_string(process.join("status")).unwrap_or_default())
}

/// Whether a control group is below that of a machine.
pub fn holds_group(group: &Path) -> bool {
    depth(&group.to_string_lossy()).is_some_and(|depth| depth > 0)
}

/// How far below the group of a machine, holdfast-NAME/cp or holdfast-NAME/nodeN, a group is.
fn depth(group: &str) -> Option<usize> {
    let mut parts = group.split('/').skip_while(|part| !part.starts_with("holdfast-"));
    parts.next()?;
    let machine = parts.next()?;
    let is_machine = machine == "cp" || machine.strip_prefix("node").is_some_and(|n| n.parse::<u8>().is_ok());
    is_machine.then(|| parts.count())
}

/// Whether a process is the first of its pid namespace, by proc_pid_status(5).
fn is_first(status: &str) -> bool {
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    ids.and_then(|ids| ids.split_whitespace().nth(1)) == Some("1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_a_machine_does_not_count_and_the_machine_does() {
        let below = |group: &str| holds_group(Path::new(group));
        assert!(below("/sys/fs/cgroup/cpu/holdfast-cluster/node12/kubepods"));
        assert!(!below("/sys/fs/cgroup/cpu/holdfast-cluster/node12"));
        assert!(!below("/sys/fs/cgroup/cpu/holdfast/web/node1/x"), "groups of VMs count");
        assert!(!below("/sys/fs/cgroup/holdfast-cluster/other/x"));
        assert_eq!((depth("/holdfast-cluster/cp"), depth("/")), (Some(0), None));
    }

    #[test]
    fn the_first_process_is_1_in_the_namespace_below() {
        assert!(is_first("Name:\ttini\nNSpid:\t4711\t1\n"));
        // A pod's first process is first in its own, which is below the machine's.
        assert!(!is_first("NSpid:\t4711\t83\t1\n"));
        assert!(!is_first("NSpid:\t1\n"), "the host's");
    }
}
