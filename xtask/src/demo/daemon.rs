//! holdfastd in the node's namespaces, and the launchers that it starts.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::world::{self, DEMO};
use super::{control, switch};
use crate::process;

/// holdfastd, running. It goes on when this is dropped: `--keep` wants that, and `World::down` ends it.
pub struct Daemon {
    child: std::cell::RefCell<Child>,
}

impl Daemon {
    /// Starts it in the node's network namespace and a mount namespace of its own; returns once it answers.
    pub fn start() -> Result<Self> {
        let log = File::create(DEMO.log()).context("failed to make the log")?;
        // `ip netns exec` makes the mount namespace, and becomes the program.
        let child = Command::new("ip")
            .args(["netns", "exec", &DEMO.node()])
            .arg(super::PROFILE.folder().join("holdfastd"))
            .arg("--manifests")
            .arg(DEMO.manifests())
            .arg("--state")
            .arg(DEMO.state())
            .arg("--run")
            .arg(DEMO.run())
            .arg("--ovsdb")
            .arg(switch::database(&DEMO))
            // An address that is free again is seen to be free within the demo.
            .args(["--quarantine", "1"])
            // The log is a file.
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C is for the demo; it asks holdfastd to end when it is done with it.
            .process_group(0)
            .spawn()
            .context("failed to start holdfastd")?;
        fs::write(DEMO.holdfastd_pidfile(), child.id().to_string()).context("failed to note holdfastd's process")?;
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
