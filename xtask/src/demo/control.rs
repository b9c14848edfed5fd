//! virtctl, as a user calls it: every look at the VM goes through it.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::daemon::Daemon;
use super::guest_view::Seen;
use super::report::Nic;
use super::steps::Step;
use super::world::DEMO;
use super::{VM_DEADLINE, world};
use crate::process::{self, Program};

/// A VMI that runs.
#[derive(Clone, Debug)]
pub struct Vmi {
    /// Its uid: another one after each restart.
    pub uid: String,
    interfaces: Value,
}

impl Vmi {
    /// By what the API says of it.
    pub fn of(vmi: &Value) -> Self {
        let uid = vmi["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        Self { uid, interfaces: vmi["status"]["interfaces"].clone() }
    }
}

/// Runs `virtctl --standalone` with these arguments, and returns what it prints.
pub fn virtctl(arguments: &[&str]) -> Result<String> {
    Program::new(super::PROFILE.folder().join("virtctl"))
        .arg("--standalone")
        .arg("--run")
        .arg(DEMO.run())
        .args(arguments)
        .deadline(Duration::from_secs(60))
        .output()
}

/// Whether holdfastd answers.
pub fn answers() -> bool {
    DEMO.run().join("api.sock").exists() && virtctl(&["get", "vm"]).is_ok()
}

fn get(kind: &str, name: &str) -> Result<Option<Value>> {
    let text = match virtctl(&["get", kind, name, "-o", "json"]) {
        Ok(text) => text,
        Err(error) if error.to_string().contains("not found") => return Ok(None),
        Err(error) => return Err(error),
    };
    serde_json::from_str(&text).context("failed to parse what virtctl prints").map(Some)
}

/// Waits until the VM's VMI runs; where `not` is given, one with another uid.
pub fn wait_running(daemon: &Daemon, not: Option<&str>, step: &mut Step) -> Result<Vmi> {
    process::wait_for("the VM to run", VM_DEADLINE, || {
        daemon.check()?;
        let vm = get("vm", world::VM)?;
        let text =
            |value: &Value, path: &str| value.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        let status = vm.as_ref().map(|vm| text(vm, "/status/printableStatus")).unwrap_or_default();
        let Some(vmi) = get("vmi", world::VM)? else {
            step.tell(&format!("VM is {status}"));
            return Ok(None);
        };
        let (uid, phase) = (text(&vmi, "/metadata/uid"), text(&vmi, "/status/phase"));
        step.tell(&format!("VM is {status}, VMI is {phase}"));
        match phase.as_str() {
            _ if not == Some(&uid) => Ok(None),
            "Running" => Ok(Some(Vmi::of(&vmi))),
            "Failed" => bail!("the VMI failed"),
            _ => Ok(None),
        }
    })
}

/// The NICs as the VMI's status has them; that on the underlay must be what was seen there.
pub fn nics(vmi: &Vmi, seen: &Seen) -> Result<Vec<Nic>> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let nics: Vec<Nic> = vmi
        .interfaces
        .as_array()
        .into_iter()
        .flatten()
        .map(|interface| Nic {
            name: text(&interface["name"]),
            mac: text(&interface["mac"]),
            addresses: interface["ipAddresses"].as_array().into_iter().flatten().map(text).collect(),
            same_after_restart: None,
        })
        .collect();
    match nics.iter().find(|nic| nic.name == world::UNDERLAY) {
        Some(nic) if nic.mac == seen.mac && nic.addresses.contains(&seen.address) => Ok(nics),
        _ => bail!("seen on the underlay was {seen:?}, and the VMI's status says {nics:?}"),
    }
}

/// Deletes the VM, and waits until nothing of it is left.
pub fn delete_all(step: &mut Step) -> Result<()> {
    if get("vm", world::VM)?.is_some() {
        virtctl(&["delete", "vm", world::VM])?;
    }
    process::wait_for("the VM to be gone", VM_DEADLINE, || {
        let left = [get("vm", world::VM)?, get("vmi", world::VM)?];
        step.tell(&format!("{} objects left", left.iter().flatten().count()));
        Ok(left.iter().all(Option::is_none).then_some(()))
    })
}
