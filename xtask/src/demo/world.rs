//! The demo's world: a node and a host on the physical network, each a network namespace, and Open vSwitch between.
//!
//! ```text
//! hf-demo-lan [eth0 192.0.2.1] === [uplink0 -- br-lan (OVS, user space) -- VM] hf-demo-node
//! ```
//!
//! Invariant: [`World::down`] needs no record of what [`World::up`] did; it can be called at any time, and again.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::switch;
use crate::guest::Guest;
use crate::process::{self, Program};
use crate::workspace;

/// Namespace of the node.
pub const NODE: &str = "hf-demo-node";
/// Namespace of the host on the physical network.
pub const LAN: &str = "hf-demo-lan";
/// The VM of the example.
pub const VM: &str = "web";
/// Name of its NIC on the underlay.
pub const UNDERLAY: &str = "lan";
/// The address that it asks for there.
pub const GUEST_ADDRESS: &str = "192.0.2.10";
/// The example.
pub const EXAMPLE: &str = "vm-underlay.yaml";

const LAN_ADDRESS: &str = "192.0.2.1/24";
/// The image in the example that the demo's guest stands in for.
const EXAMPLE_IMAGE: &str = "oci:/usr/local/share/holdfast/guest";
/// Files for as long as the demo lasts. Short paths: sockets are in here.
const RUN: &str = "/run/holdfast-demo";
const STATE: &str = "/var/lib/holdfast-demo";
const LOCK: &str = "/run/lock/holdfast-demo";
/// Longest wait for a daemon to start or to end.
pub const DEADLINE: Duration = Duration::from_secs(15);

/// holdfastd's folders and files.
pub fn manifests() -> PathBuf {
    Path::new(RUN).join("manifests")
}

/// Its state folder.
pub fn state() -> PathBuf {
    PathBuf::from(STATE)
}

/// Its run folder.
pub fn run() -> PathBuf {
    Path::new(RUN).join("run")
}

/// Its log.
pub fn log() -> PathBuf {
    Path::new(RUN).join("holdfastd.log")
}

/// The folder of Open vSwitch.
pub fn ovs() -> PathBuf {
    Path::new(RUN).join("ovs")
}

/// The note that the world was handed over to the user.
fn kept() -> PathBuf {
    Path::new(RUN).join("kept")
}

/// How to call virtctl by hand.
pub fn virtctl_line() -> String {
    format!("{} --standalone --run {}", super::PROFILE.folder().join("virtctl").display(), run().display())
}

/// Keeps a second demo out for as long as it lives.
pub fn lock() -> Result<Flock<fs::File>> {
    let file = fs::File::create(LOCK).with_context(|| format!("failed to open {LOCK}"))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|(_, error)| anyhow::anyhow!("failed to lock {LOCK}: another demo runs ({error})"))
}

/// A world that is up.
pub struct World;

impl World {
    /// Whether some of it is there, from a demo that was kept or killed.
    pub fn exists() -> bool {
        [RUN, STATE].iter().any(|path| Path::new(path).exists())
            || [NODE, LAN].iter().any(|name| Path::new("/run/netns").join(name).exists())
    }

    /// Whether it was handed over to the user, who may have made it their own: no later demo may take it down unasked.
    pub fn is_kept() -> bool {
        kept().exists()
    }

    /// Notes that it is handed over. The note goes with the world.
    pub fn note_kept() -> Result<()> {
        fs::write(kept(), "").context("failed to note that the demo is kept")
    }

    /// Makes it.
    pub fn up() -> Result<Self> {
        for folder in [manifests(), state(), run(), ovs()] {
            fs::create_dir_all(&folder).with_context(|| format!("failed to make {}", folder.display()))?;
        }
        for name in [NODE, LAN] {
            ip(&["netns", "add", name])?;
            ip(&["-n", name, "link", "set", "lo", "up"])?;
        }
        ip(&["-n", NODE, "link", "add", "uplink0", "type", "veth", "peer", "name", "eth0", "netns", LAN])?;
        for (namespace, link) in [(NODE, "uplink0"), (LAN, "eth0")] {
            // The user-space datapath passes on checksums that the kernel has left open, and TCP hangs.
            inside(namespace, "ethtool").args(["-K", link, "tx", "off"]).output()?;
            ip(&["-n", namespace, "link", "set", link, "up"])?;
        }
        ip(&["-n", LAN, "address", "add", LAN_ADDRESS, "dev", "eth0"])?;
        switch::start()?;
        Ok(Self)
    }

    /// Copies the example, with the guest's image.
    pub fn write_manifests(&self, guest: &Guest) -> Result<()> {
        let source = workspace::root().join("deploy/examples").join(EXAMPLE);
        let text = fs::read_to_string(&source).with_context(|| format!("failed to read {}", source.display()))?;
        let text = text.replace(EXAMPLE_IMAGE, &format!("oci:{}", guest.layout.display()));
        fs::write(manifests().join(EXAMPLE), text).context("failed to write the manifest")
    }

    /// Takes it down, and returns how many processes had to be ended by force.
    pub fn down() -> Result<usize> {
        stop_holdfastd()?;
        let forced = end_sandboxes()?;
        switch::stop()?;
        for name in [NODE, LAN] {
            if Path::new("/run/netns").join(name).exists() {
                ip(&["netns", "del", name])?;
            }
        }
        remove_cgroups();
        for folder in [RUN, STATE] {
            match fs::remove_dir_all(folder) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("failed to remove {folder}"));
                }
                _ => {}
            }
        }
        Ok(forced)
    }
}

/// Runs `ip`.
pub fn ip(arguments: &[&str]) -> Result<()> {
    Program::new("ip").args(arguments).output().map(drop)
}

/// A program inside a namespace.
pub fn inside(namespace: &str, program: &str) -> Program {
    Program::new("ip").args(["netns", "exec", namespace, program])
}

fn stop_holdfastd() -> Result<()> {
    process::end_by_pidfile(&holdfastd_pidfile(), "holdfastd", DEADLINE)
}

/// Where [`super::daemon`] notes the process.
pub fn holdfastd_pidfile() -> PathBuf {
    Path::new(RUN).join("holdfastd.pid")
}

/// Ends what still lives in the sandboxes of the demo: processes with a mount of the demo's in their namespace,
/// which is none of the machine's own.
fn end_sandboxes() -> Result<usize> {
    let own = fs::read_link("/proc/self/ns/mnt")?;
    let left = || -> Vec<Pid> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let inside = |folder: &Path| {
            fs::read_link(folder.join("ns/mnt")).is_ok_and(|namespace| namespace != own)
                && fs::read_to_string(folder.join("mountinfo")).is_ok_and(|text| text.contains("/holdfast-demo"))
        };
        entries
            .filter(|entry| inside(&entry.path()))
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid::from_raw))
            .collect()
    };
    let forced = left();
    for pid in &forced {
        // It may have ended since it was listed.
        let _ = kill(*pid, Signal::SIGKILL);
    }
    process::wait_for("the processes of the sandboxes to end", DEADLINE, || Ok(left().is_empty().then_some(())))?;
    Ok(forced.len())
}

/// Removes the control groups of the demo's VMs. Those that are gone, or in use by another holdfastd, stay as they are.
fn remove_cgroups() {
    for vm in fs::read_dir(state().join("vms")).into_iter().flatten().flatten() {
        for hierarchy in ["", "memory", "pids"] {
            let group = Path::new("/sys/fs/cgroup").join(hierarchy).join("holdfast").join(vm.file_name());
            let _ = fs::remove_dir(group);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes the world down also where the test fails.
    struct Down;

    impl Drop for Down {
        fn drop(&mut self) {
            let _ = World::down();
        }
    }

    #[test]
    fn goes_up_carries_frames_and_leaves_nothing() {
        let _only = lock().unwrap();
        assert!(!World::exists(), "a demo was kept: `cargo xtask demo --down`");
        let down = Down;
        World::up().unwrap();
        assert!(World::exists() && !World::is_kept(), "what a killed demo left is not kept");
        World::note_kept().unwrap();
        assert!(World::is_kept());
        // The bridge's own port on the node's side, through OVS and the uplink, from the host on the network.
        ip(&["-n", NODE, "address", "add", "192.0.2.9/24", "dev", switch::BRIDGE]).unwrap();
        process::wait_for("an answer through OVS", DEADLINE, || {
            Ok(inside(LAN, "busybox").args(["ping", "-c", "1", "-W", "1", "192.0.2.9"]).succeeds().then_some(()))
        })
        .unwrap();
        assert_eq!(World::down().unwrap(), 0);
        assert!(!World::exists() && !World::is_kept());
        assert_eq!(World::down().unwrap(), 0, "again is no error");
        drop(down);
    }
}
