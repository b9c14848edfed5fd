//! holdfastd in the node's namespaces, and the launchers that it starts.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::world::{self, DEMO, World};
use super::{control, switch};
use crate::process;
use crate::workspace::Profile;

/// holdfastd, running. It goes on when this is dropped: `--keep` wants that, and `World::down` ends it.
pub struct Daemon {
    child: std::cell::RefCell<Child>,
}

impl Daemon {
    /// Starts it in the node's network namespace and a mount namespace of its own; returns once it answers.
    pub fn start() -> Result<Self> {
        // `ip netns exec` makes the mount namespace, and becomes the program.
        let mut way = Command::new("ip");
        way.args(["netns", "exec", &DEMO.node()]);
        let child = spawn(&DEMO, way, super::PROFILE, &[])?;
        let daemon = Self { child: child.into() };
        let answers = process::wait_for("holdfastd to answer", Duration::from_secs(20), || {
            daemon.check()?;
            Ok(control::answers().then_some(()))
        });
        if answers.is_err() {
            daemon.explain();
        }
        answers.map(|()| daemon)
    }

    /// An error once it has ended.
    pub fn check(&self) -> Result<()> {
        match self.child.borrow_mut().try_wait()? {
            Some(status) => bail!("holdfastd ended: {status}"),
            None => Ok(()),
        }
    }

    /// Prints what its log and the VM's events say of a failure.
    pub fn explain(&self) {
        eprintln!("\n--- what the API says of the VM");
        for kind in ["vm", "vmi"] {
            if let Ok(text) = control::virtctl(&["describe", kind, world::VM]) {
                eprintln!("{text}");
            }
        }
        eprintln!("--- the end of holdfastd's log");
        let text = fs::read_to_string(DEMO.log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].iter().for_each(|line| eprintln!("{line}"));
    }
}

/// Starts holdfastd on the folders and the switch of a world, behind the program that leads into its node, and notes its
/// process. `besides` are further arguments; Ctrl-C is for the caller, who asks it to end when it is done with it.
pub fn spawn(world: &World<'_>, mut way: Command, profile: Profile, besides: &[&OsStr]) -> Result<Child> {
    let log = File::create(world.log()).context("failed to make the log")?;
    way.arg(profile.folder().join("holdfastd"))
        .arg("--manifests")
        .arg(world.manifests())
        .arg("--state")
        .arg(world.state())
        .arg("--run")
        .arg(world.run())
        .arg("--ovsdb")
        .arg(switch::database(world))
        // An address that is free again is seen to be free before long.
        .args(["--quarantine", "1"])
        .args(besides);
    let child = way
        // The log is a file.
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()
        .context("failed to start holdfastd")?;
    fs::write(world.holdfastd_pidfile(), child.id().to_string()).context("failed to note holdfastd's process")?;
    Ok(child)
}

/// Checks each process in the VM's sandbox: no root, no capability, no way to gain any. Returns a line on them.
pub fn launcher_privileges() -> Result<String> {
    let mut names = Vec::new();
    let mut user = String::new();
    for folder in sandboxed()? {
        let Ok(status) = fs::read_to_string(folder.join("status")) else { continue };
        let field = |name: &str| {
            status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t")).unwrap_or_default().to_owned()
        };
        let name = field("Name");
        let facts = (field("Uid"), field("CapEff"), field("NoNewPrivs"));
        let root = facts.0.split('\t').any(|id| id == "0");
        if root || !facts.1.trim_start_matches('0').is_empty() || facts.2 != "1" {
            bail!("process `{name}` of the sandbox has privileges: uid, CapEff, NoNewPrivs are {facts:?}");
        }
        user = facts.0.split('\t').next().unwrap_or_default().to_owned();
        names.push(name);
    }
    if !names.iter().any(|name| name.starts_with("virt-launcher")) {
        bail!("found no virt-launcher among the processes of the sandbox: {names:?}");
    }
    Ok(format!("uid {user}, CapEff 0, NoNewPrivs 1: {}", names.join(", ")))
}

/// Folders in /proc of the processes in the pid namespaces of the demo's launchers.
fn sandboxed() -> Result<Vec<PathBuf>> {
    let own = fs::read_link("/proc/self/ns/pid").context("failed to read the own pid namespace")?;
    let inside = |folder: &Path| {
        fs::read_link(folder.join("ns/pid")).is_ok_and(|namespace| namespace != own)
            && fs::read_to_string(folder.join("mountinfo"))
                .is_ok_and(|text| text.contains(&format!("/{}", DEMO.mark())))
    };
    let entries = fs::read_dir("/proc").context("failed to list the processes")?.flatten();
    Ok(entries.map(|entry| entry.path()).filter(|folder| inside(folder)).collect())
}
