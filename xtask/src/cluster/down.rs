//! `down`: needs no record of what `up` did; it can be called at any time, and again.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::layout::{Cluster, Machine};
use super::{cgroup, network};

/// Takes it down. Programs and logs stay.
pub fn down(cluster: Cluster<'_>) -> Result<()> {
    // All at once, for init may reap orphans at its leisure.
    std::thread::scope(|scope| {
        let end = |machine: Machine<'_>| machine.end().with_context(|| format!("failed to end `{}`", machine.name));
        let threads: Vec<_> = machines(cluster).into_iter().map(|machine| scope.spawn(move || end(machine))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| bail!("a thread ended")))
    })?;
    for name in ["underlay", "lan"] {
        network::remove_namespace(&cluster.netns(name))?;
    }
    cgroup::remove(Path::new(&cluster.mark()))?;
    let folder = cluster.folder();
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("failed to list the mounts")?;
    if mounts.contains(&format!(" {}/", folder.display())) {
        bail!("something is mounted below {}; unmount it first", folder.display());
    }
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("failed to remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// The machines of which there is a namespace or a folder.
fn machines(cluster: Cluster<'_>) -> Vec<Machine<'_>> {
    let numbers = 1..=super::layout::MOST_NODES;
    let all = numbers.map(|number| cluster.node(number).machine).chain([cluster.control_plane()]);
    all.filter(|machine| machine.folder().exists() || Path::new("/run/netns").join(machine.netns()).exists()).collect()
}
