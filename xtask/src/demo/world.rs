//! A world for the demo: a node and a host on the physical network, each a network namespace, and Open vSwitch between.
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
/// Longest wait for a daemon to start or to end.
pub const DEADLINE: Duration = Duration::from_secs(15);

/// The world of the demo.
pub const DEMO: World<'static> = World { name: "demo" };

/// A world, up or not: every name and path of it follows from its own name, so that worlds do not meet.
#[derive(Clone, Copy)]
pub struct World<'a> {
    /// Part of the names of all that it has.
    pub name: &'a str,
}

impl World<'_> {
    /// Namespace of the node.
    pub fn node(&self) -> String {
        format!("hf-{}-node", self.name)
    }

    /// Namespace of the host on the physical network.
    pub fn lan(&self) -> String {
        format!("hf-{}-lan", self.name)
    }

    /// Files for as long as it lasts. A short path: sockets are in here.
    fn folder(&self) -> PathBuf {
        Path::new("/run").join(self.mark())
    }

    /// The name of its folders: a mount with this in its line belongs to this world.
    pub fn mark(&self) -> String {
        format!("holdfast-{}", self.name)
    }

    /// The folder of manifests.
    pub fn manifests(&self) -> PathBuf {
        self.folder().join("manifests")
    }

    /// holdfastd's state folder.
    pub fn state(&self) -> PathBuf {
        Path::new("/var/lib").join(self.mark())
    }

    /// holdfastd's run folder.
    pub fn run(&self) -> PathBuf {
        self.folder().join("run")
    }

    /// holdfastd's log.
    pub fn log(&self) -> PathBuf {
        self.folder().join("holdfastd.log")
    }

    /// Where [`super::daemon`] notes the process.
    pub fn holdfastd_pidfile(&self) -> PathBuf {
        self.folder().join("holdfastd.pid")
    }

    /// The folder of Open vSwitch.
    pub fn ovs(&self) -> PathBuf {
        self.folder().join("ovs")
    }

    /// The note that it was handed over to the user.
    fn kept(&self) -> PathBuf {
        self.folder().join("kept")
    }

    /// How to call virtctl by hand.
    pub fn virtctl_line(&self) -> String {
        format!("{} --standalone --run {}", super::PROFILE.folder().join("virtctl").display(), self.run().display())
    }

    /// Keeps a second one of this name out for as long as it lives.
    pub fn lock(&self) -> Result<Flock<fs::File>> {
        let path = Path::new("/run/lock").join(self.mark());
        let file = fs::File::create(&path).with_context(|| format!("failed to open {}", path.display()))?;
        Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, error)| anyhow::anyhow!("failed to lock {}: another demo runs ({error})", path.display()))
    }

    /// Whether some of it is there, from a demo that was kept or killed.
    pub fn exists(&self) -> bool {
        [self.folder(), self.state()].iter().any(|path| path.exists())
            || [self.node(), self.lan()].iter().any(|name| Path::new("/run/netns").join(name).exists())
    }

    /// Whether it was handed over to the user, who may have made it their own: no later demo may take it down unasked.
    pub fn is_kept(&self) -> bool {
        self.kept().exists()
    }

    /// Notes that it is handed over. The note goes with the world.
    pub fn note_kept(&self) -> Result<()> {
        fs::write(self.kept(), "").context("failed to note that the demo is kept")
    }

    /// Makes it.
    pub fn up(&self) -> Result<()> {
        let (node, lan) = (self.node(), self.lan());
        for folder in [self.manifests(), self.state(), self.run(), self.ovs()] {
            fs::create_dir_all(&folder).with_context(|| format!("failed to make {}", folder.display()))?;
        }
        for name in [&node, &lan] {
            ip(&["netns", "add", name])?;
            ip(&["-n", name, "link", "set", "lo", "up"])?;
        }
        ip(&["-n", &node, "link", "add", "uplink0", "type", "veth", "peer", "name", "eth0", "netns", &lan])?;
        for (namespace, link) in [(&node, "uplink0"), (&lan, "eth0")] {
            // The user-space datapath passes on checksums that the kernel has left open, and TCP hangs.
            inside(namespace, "ethtool").args(["-K", link, "tx", "off"]).output()?;
            ip(&["-n", namespace, "link", "set", link, "up"])?;
        }
        ip(&["-n", &lan, "address", "add", LAN_ADDRESS, "dev", "eth0"])?;
        switch::start(self)
    }

    /// Copies the example, with the guest's image.
    pub fn write_manifests(&self, guest: &Guest) -> Result<()> {
        let source = workspace::root().join("deploy/examples").join(EXAMPLE);
        let text = fs::read_to_string(&source).with_context(|| format!("failed to read {}", source.display()))?;
        let text = text.replace(EXAMPLE_IMAGE, &format!("oci:{}", guest.layout.display()));
        fs::write(self.manifests().join(EXAMPLE), text).context("failed to write the manifest")
    }

    /// Takes it down, and returns how many processes had to be ended by force.
    pub fn down(&self) -> Result<usize> {
        process::end_by_pidfile(&self.holdfastd_pidfile(), "holdfastd", DEADLINE)?;
        let forced = end_sandboxes(&self.mark())?;
        switch::stop(self)?;
        for name in [self.node(), self.lan()] {
            if Path::new("/run/netns").join(&name).exists() {
                ip(&["netns", "del", &name])?;
            }
        }
        remove_cgroups(&self.state());
        for folder in [self.folder(), self.state()] {
            match fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("failed to remove {}", folder.display()));
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

/// Ends what still lives in the sandboxes of a world: processes with a mount of its mark in their namespace, which is
/// none of the machine's own.
fn end_sandboxes(mark: &str) -> Result<usize> {
    let own = fs::read_link("/proc/self/ns/mnt")?;
    let left = || -> Vec<Pid> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let inside = |folder: &Path| {
            fs::read_link(folder.join("ns/mnt")).is_ok_and(|namespace| namespace != own)
                && fs::read_to_string(folder.join("mountinfo")).is_ok_and(|text| text.contains(&format!("/{mark}")))
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

/// Removes the control groups of the VMs in a state folder. Those that are gone, or in use by another holdfastd, stay as they are.
fn remove_cgroups(state: &Path) {
    for vm in fs::read_dir(state.join("vms")).into_iter().flatten().flatten() {
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
    struct Down<'a>(World<'a>);

    impl Drop for Down<'_> {
        fn drop(&mut self) {
            let _ = self.0.down();
        }
    }

    #[test]
    fn goes_up_carries_frames_and_leaves_nothing() {
        // Digits in number: no name begins another.
        let name = format!("test{:07}", std::process::id());
        let world = World { name: &name };
        assert!(!world.exists());
        let down = Down(world);
        world.up().unwrap();
        assert!(world.exists() && !world.is_kept(), "what a killed demo left is not kept");
        world.note_kept().unwrap();
        assert!(world.is_kept());
        // The bridge's own port on the node's side, through OVS and the uplink, from the host on the network.
        ip(&["-n", &world.node(), "address", "add", "192.0.2.9/24", "dev", switch::BRIDGE]).unwrap();
        process::wait_for("an answer through OVS", DEADLINE, || {
            Ok(inside(&world.lan(), "busybox")
                .args(["ping", "-c", "1", "-W", "1", "192.0.2.9"])
                .succeeds()
                .then_some(()))
        })
        .unwrap();
        assert_eq!(world.down().unwrap(), 0);
        assert!(!world.exists() && !world.is_kept());
        assert_eq!(world.down().unwrap(), 0, "again is no error");
        drop(down);
    }
}
