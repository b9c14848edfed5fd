//! What the lane measures on: a node and a host on the network, each a network namespace, an OVS bridge and two Linux
//! bridges, pods' namespaces, and holdfastd as it is shipped.
//!
//! Invariant: everything is named after the world, and [`Bed::up`] begins by taking down what an earlier one left, so
//! that one that was killed leaves nothing for longer than to the next.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::fcntl::Flock;
use nix::sched::{CloneFlags, setns};

use crate::demo::world::{World, inside, ip};
use crate::demo::{daemon, switch};
use crate::process::{self, Program};
use crate::workspace::Profile;

const WORLD: World<'static> = World { name: "netbench" };
/// The Linux bridge that our attachments are on, with an uplink to the host on the network.
pub const BRIDGE: &str = "br0";
/// The one of the reference plugins.
pub const REFERENCE_BRIDGE: &str = "br1";
/// The OVS bridge, with an uplink as well.
pub const OVS_BRIDGE: &str = switch::BRIDGE;
/// The host on the network, on [`BRIDGE`].
pub const HOST: &str = "10.77.255.254";
/// Folder of network namespaces by name.
const NAMESPACES: &str = "/run/netns";
/// Longest wait for holdfastd to serve.
const DEADLINE: Duration = Duration::from_secs(30);

/// It. Taken down when it is dropped.
pub struct Bed {
    daemon: Option<Child>,
    pods: Vec<PathBuf>,
    _lock: Flock<File>,
}

impl Bed {
    /// Makes it, and starts holdfastd.
    pub fn up() -> Result<Self> {
        let lock = WORLD.lock()?;
        take_down()?;
        let mut bed = Self { daemon: None, pods: Vec::new(), _lock: lock };
        WORLD.up()?;
        let (node, host) = (WORLD.node(), WORLD.lan());
        for bridge in [BRIDGE, REFERENCE_BRIDGE] {
            ip(&["-n", &node, "link", "add", bridge, "type", "bridge"])?;
            ip(&["-n", &node, "link", "set", bridge, "up"])?;
        }
        ip(&["-n", &node, "link", "add", "uplink1", "type", "veth", "peer", "name", "eth1", "netns", &host])?;
        ip(&["-n", &node, "link", "set", "uplink1", "master", BRIDGE, "up"])?;
        ip(&["-n", &host, "link", "set", "eth1", "up"])?;
        ip(&["-n", &host, "address", "add", &format!("{HOST}/16"), "dev", "eth1"])?;
        bed.start()?;
        Ok(bed)
    }

    fn start(&mut self) -> Result<()> {
        let mut way = Command::new("nsenter");
        way.arg(format!("--net={}", node().display()));
        // No VM is run: of its launcher it only asks that it is there, and of KVM nothing.
        let plugin = self.plugin();
        let besides = ["--launcher".as_ref(), plugin.as_os_str(), "--emulation".as_ref(), "always".as_ref()];
        let daemon = daemon::spawn(&WORLD, way, Profile::Release, &besides)?;
        let daemon = self.daemon.insert(daemon);
        let served = process::wait_for("holdfastd to serve", DEADLINE, || match daemon.try_wait()? {
            Some(status) => bail!("holdfastd ended: {status}"),
            None => Ok(fs::read_to_string(WORLD.log())?.contains(" ready ").then_some(())),
        });
        served.with_context(|| fs::read_to_string(WORLD.log()).unwrap_or_default())
    }

    /// Where the agent listens.
    pub fn socket(&self) -> PathBuf {
        WORLD.run().join("cni.sock")
    }

    /// A folder on disk.
    pub fn state(&self) -> PathBuf {
        WORLD.state()
    }

    /// Our plugin.
    pub fn plugin(&self) -> PathBuf {
        Profile::Release.folder().join("holdfast")
    }

    /// This many namespaces of pods, always the same ones.
    pub fn pods(&mut self, count: usize) -> Result<&[PathBuf]> {
        while self.pods.len() < count {
            let name = format!("{}{}", pod_prefix(), self.pods.len());
            ip(&["netns", "add", &name])?;
            self.pods.push(Path::new(NAMESPACES).join(name));
        }
        Ok(&self.pods[..count])
    }

    /// Resident memory of holdfastd, the agent included, in MiB.
    pub fn memory(&self) -> Result<f64> {
        let pid = self.daemon.as_ref().context("holdfastd does not run")?.id();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).context("failed to look at holdfastd")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB"));
        let kib: f64 = line.and_then(|kib| kib.trim().parse().ok()).context("holdfastd has no memory")?;
        Ok(kib / 1024.0)
    }

    /// Runs ovs-vsctl.
    pub fn vsctl(&self, arguments: &[&str]) -> Result<String> {
        let database = format!("--db=unix:{}", switch::database(&WORLD).display());
        Program::new("ovs-vsctl").args([&database, "--timeout=10"]).args(arguments).output()
    }

    /// Runs a program in the node's namespace.
    pub fn on_node(&self, program: &str) -> Program {
        inside(&WORLD.node(), program)
    }

    /// Runs a program on the host on the network.
    pub fn on_host(&self, program: &str) -> Program {
        inside(&WORLD.lan(), program)
    }

    /// Takes it down.
    pub fn down(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        process::forget_signals();
        let down = take_down();
        // By now it has been asked to end, or killed.
        if let Some(mut daemon) = self.daemon.take() {
            process::end(&mut daemon);
        }
        down
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("bench: failed to take everything down: {error:#}");
        }
    }
}

/// The node's network namespace.
pub fn node() -> PathBuf {
    Path::new(NAMESPACES).join(WORLD.node())
}

fn pod_prefix() -> String {
    format!("hf-{}-pod", WORLD.name)
}

/// Needs no record of what was made.
fn take_down() -> Result<()> {
    WORLD.down()?;
    let Ok(entries) = fs::read_dir(NAMESPACES) else { return Ok(()) };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(&pod_prefix()) {
            ip(&["netns", "del", &name])?;
        }
    }
    Ok(())
}

/// Runs `work` on a thread in a network namespace. What it starts begins there, and no program has to bring it there.
pub fn inside_of<T: Send>(netns: &Path, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let there = || {
        let file = File::open(netns).with_context(|| format!("failed to open {}", netns.display()))?;
        setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("failed to enter {}", netns.display()))?;
        work()
    };
    let ended = std::thread::scope(|scope| scope.spawn(there).join());
    ended.unwrap_or_else(|_| bail!("a thread of the bench panicked"))
}
