//! `start`, `stop`, `restart`, `pause`, `unpause`, `soft-reboot` and `reset`, in upstream's words.

use anyhow::{Result, anyhow, bail};
use serde_json::{Map, Value, json};

use crate::args::{DryRun, Force, Pause, exactly};
use crate::client::{CallError, Client};
use crate::out::print;

/// Where verbs are sent to.
pub struct Api<'a> {
    /// The holdfastd.
    pub client: &'a Client,
    /// The namespace.
    pub namespace: &'a str,
}

impl Api<'_> {
    /// Starts a VM.
    pub async fn start(&self, name: &[String], paused: bool, dry_run: &DryRun) -> Result<()> {
        let [name] = exactly(name)?;
        let mut options = options(dry_run)?;
        if paused {
            options.insert("paused".to_owned(), json!(true));
        }
        let done = self.put("virtualmachines", name, "start", options).await;
        done.map_err(|error| anyhow!("Error starting VirtualMachine {}", error.text()))?;
        Ok(print(&format!("VM {name} was scheduled to start\n"))?)
    }

    /// Stops a VM.
    pub async fn stop(&self, arguments: &Force) -> Result<()> {
        let said = ("error stopping VirtualMachine", "error force stopping VirtualMachine:");
        self.end("stop", "gracePeriod", said, arguments).await
    }

    /// Restarts a VM.
    pub async fn restart(&self, arguments: &Force) -> Result<()> {
        let said = ("error restarting VirtualMachine:", "error force restarting VirtualMachine:");
        self.end("restart", "gracePeriodSeconds", said, arguments).await
    }

    async fn end(&self, verb: &str, grace_field: &str, failed: (&str, &str), arguments: &Force) -> Result<()> {
        let [name] = exactly(&arguments.name)?;
        if arguments.force != arguments.grace_period.is_some() {
            bail!("Must both use --force=true and set --grace-period.");
        }
        let mut options = options(&arguments.dry_run)?;
        if let Some(seconds) = arguments.grace_period {
            options.insert(grace_field.to_owned(), json!(seconds));
        }
        let said = if arguments.force { failed.1 } else { failed.0 };
        let done = self.put("virtualmachines", name, verb, options).await;
        done.map_err(|error| anyhow!("{said} {}", error.text()))?;
        Ok(print(&format!("VM {name} was scheduled to {verb}\n"))?)
    }

    /// Pauses a VMI, which may be named by its VM.
    pub async fn pause(&self, arguments: &Pause) -> Result<()> {
        let [kind, name] = exactly(&arguments.target)?;
        let by_vm = is_vm(kind)?;
        let options = options(&arguments.dry_run)?;
        let vm = if by_vm { Some(self.vm(name).await?) } else { None };
        match self.put("virtualmachineinstances", name, "pause", options).await {
            Ok(()) => Ok(print(&format!("VMI {name} was scheduled to pause\n"))?),
            Err(error) if error.is_not_found() && vm.as_ref().is_some_and(is_halted) => {
                bail!("Error pausing VirtualMachineInstance {name}. VirtualMachine {name} is not set to run")
            }
            Err(error) if error.is_not_found() && by_vm => {
                bail!("Error pausing VirtualMachineInstance {name}, it was not found")
            }
            Err(error) => bail!("Error pausing VirtualMachineInstance {name}: {}", error.text()),
        }
    }

    /// Unpauses a VMI, which may be named by its VM.
    pub async fn unpause(&self, arguments: &Pause) -> Result<()> {
        let [kind, name] = exactly(&arguments.target)?;
        let by_vm = is_vm(kind)?;
        let options = options(&arguments.dry_run)?;
        if by_vm {
            self.vm(name).await?;
        }
        let done = self.put("virtualmachineinstances", name, "unpause", options).await;
        done.map_err(|error| anyhow!("Error unpausing VirtualMachineInstance {name}: {}", error.text()))?;
        Ok(print(&format!("VMI {name} was scheduled to unpause\n"))?)
    }

    /// Asks a VMI's guest to reboot.
    pub async fn soft_reboot(&self, name: &[String]) -> Result<()> {
        let [name] = exactly(name)?;
        let done = self.put("virtualmachineinstances", name, "softreboot", Map::new()).await;
        done.map_err(|error| anyhow!("Error soft rebooting VirtualMachineInstance {name}: {}", error.text()))?;
        Ok(print(&format!("VMI {name} was scheduled to soft reboot\n"))?)
    }

    /// Resets a VMI.
    pub async fn reset(&self, name: &[String]) -> Result<()> {
        let [name] = exactly(name)?;
        let done = self.put("virtualmachineinstances", name, "reset", Map::new()).await;
        done.map_err(|error| anyhow!("Error resetting VirtualMachineInstance {name}: {}", error.text()))?;
        Ok(print(&format!("VMI {name} was scheduled to reset\n"))?)
    }

    async fn vm(&self, name: &str) -> Result<Value> {
        let path = format!("/apis/kubevirt.io/v1/namespaces/{}/virtualmachines/{name}", self.namespace);
        let vm = self.client.get(&path).await;
        vm.map_err(|error| anyhow!("Error getting VirtualMachine {name}: {}", error.text()))
    }

    async fn put(&self, plural: &str, name: &str, verb: &str, options: Map<String, Value>) -> Result<(), CallError> {
        self.client.put(&subresource(self.namespace, plural, name, verb), &Value::Object(options)).await
    }
}

/// Path of a subresource.
pub fn subresource(namespace: &str, plural: &str, name: &str, verb: &str) -> String {
    format!("/apis/subresources.kubevirt.io/v1/namespaces/{namespace}/{plural}/{name}/{verb}")
}

/// Options of a request; says so where nothing shall change.
fn options(dry_run: &DryRun) -> Result<Map<String, Value>> {
    let mut options = Map::new();
    if dry_run.dry_run {
        print("Dry Run execution\n")?;
        options.insert("dryRun".to_owned(), json!(["All"]));
    }
    Ok(options)
}

fn is_vm(kind: &str) -> Result<bool> {
    match kind {
        "vm" | "virtualmachine" => Ok(true),
        "vmi" | "virtualmachineinstance" => Ok(false),
        _ => bail!("unsupported resource type \"{kind}\", must be vm or vmi"),
    }
}

fn is_halted(vm: &Value) -> bool {
    vm["spec"]["runStrategy"] == "Halted" || vm["spec"]["running"] == false
}
