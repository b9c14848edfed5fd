//! Commands to VMs and VMIs, with KubeVirt's messages.

use anyhow::{anyhow, bail};
use serde_json::{Value, json};

use crate::args::{Names, Pause, Restart, Server, Start, Stop, exactly};
use crate::client::Client;
use crate::kinds::Kind;

fn subresource(server: &Server, plural: &str, name: &str, verb: &str) -> String {
    format!("/apis/subresources.kubevirt.io/v1/namespaces/{}/{plural}/{name}/{verb}", server.namespace)
}

fn vm(server: &Server, name: &str, verb: &str) -> String {
    subresource(server, "virtualmachines", name, verb)
}

fn vmi(server: &Server, name: &str, verb: &str) -> String {
    subresource(server, "virtualmachineinstances", name, verb)
}

/// Adds `dryRun` where it is asked for, and says so.
fn with_dry_run(mut body: Value, dry_run: bool) -> Value {
    if dry_run {
        println!("Dry Run execution");
        body["dryRun"] = json!(["All"]);
    }
    body
}

/// `--force` and `--grace-period` go together.
fn check_force(force: bool, grace_period: i64) -> anyhow::Result<()> {
    if force == (grace_period != -1) {
        return Ok(());
    }
    bail!("Must both use --force=true and set --grace-period.")
}

/// `virtctl start`.
pub async fn start(client: &Client, server: &Server, start: &Start) -> anyhow::Result<()> {
    let [name] = exactly(&start.names)?;
    let body = with_dry_run(json!({"paused": start.paused}), start.dry_run);
    let done = client.put(&vm(server, name, "start"), &body).await;
    done.map_err(|error| anyhow!("Error starting VirtualMachine {error}"))?;
    println!("VM {name} was scheduled to start");
    Ok(())
}

/// `virtctl stop`.
pub async fn stop(client: &Client, server: &Server, stop: &Stop) -> anyhow::Result<()> {
    let [name] = exactly(&stop.names)?;
    check_force(stop.force, stop.grace_period)?;
    let body = if stop.force { json!({"gracePeriod": stop.grace_period}) } else { json!({}) };
    let done = client.put(&vm(server, name, "stop"), &with_dry_run(body, stop.dry_run)).await;
    done.map_err(|error| anyhow!("Error stopping VirtualMachine {error}"))?;
    println!("VM {name} was scheduled to stop");
    Ok(())
}

/// `virtctl restart`.
pub async fn restart(client: &Client, server: &Server, restart: &Restart) -> anyhow::Result<()> {
    let [name] = exactly(&restart.names)?;
    check_force(restart.force, restart.grace_period)?;
    let body = if restart.force { json!({"gracePeriodSeconds": restart.grace_period}) } else { json!({}) };
    let done = client.put(&vm(server, name, "restart"), &with_dry_run(body, restart.dry_run)).await;
    done.map_err(|error| anyhow!("error restarting VirtualMachine: {error}"))?;
    println!("VM {name} was scheduled to restart");
    Ok(())
}

/// Reads `vm|vmi NAME`; returns the name and whether it is that of a VM.
fn target(pause: &Pause) -> anyhow::Result<(&str, bool)> {
    let [kind, name] = exactly(&pause.names)?;
    match Kind::find(kind)?.name {
        "VirtualMachine" => Ok((name, true)),
        "VirtualMachineInstance" => Ok((name, false)),
        _ => bail!("unsupported resource type \"{kind}\": give vm or vmi"),
    }
}

/// `virtctl pause`.
pub async fn pause(client: &Client, server: &Server, pause: &Pause) -> anyhow::Result<()> {
    let (name, is_vm) = target(pause)?;
    if is_vm {
        let path = Kind::find("vm")?.path(Some(&server.namespace), Some(name));
        let found = client.get(&path).await;
        let found = found.map_err(|error| anyhow!("Error getting VirtualMachine {name}: {error}"))?;
        if found["spec"]["runStrategy"] == "Halted" || found["spec"]["running"] == json!(false) {
            bail!("Error pausing VirtualMachineInstance {name}. VirtualMachine {name} is not set to run");
        }
    }
    let body = with_dry_run(json!({}), pause.dry_run);
    let done = client.put(&vmi(server, name, "pause"), &body).await;
    done.map_err(|error| anyhow!("Error pausing VirtualMachineInstance {name}: {error}"))?;
    println!("VMI {name} was scheduled to pause");
    Ok(())
}

/// `virtctl unpause`.
pub async fn unpause(client: &Client, server: &Server, unpause: &Pause) -> anyhow::Result<()> {
    let (name, _) = target(unpause)?;
    let body = with_dry_run(json!({}), unpause.dry_run);
    let done = client.put(&vmi(server, name, "unpause"), &body).await;
    done.map_err(|error| anyhow!("Error unpausing VirtualMachineInstance {name}: {error}"))?;
    println!("VMI {name} was scheduled to unpause");
    Ok(())
}

/// `virtctl soft-reboot`.
pub async fn soft_reboot(client: &Client, server: &Server, names: &Names) -> anyhow::Result<()> {
    let [name] = exactly(&names.names)?;
    let done = client.put(&vmi(server, name, "softreboot"), &json!({})).await;
    done.map_err(|error| anyhow!("Error soft rebooting VirtualMachineInstance {name}: {error}"))?;
    println!("VMI {name} was scheduled to soft-reboot");
    Ok(())
}

/// `virtctl reset`.
pub async fn reset(client: &Client, server: &Server, names: &Names) -> anyhow::Result<()> {
    let [name] = exactly(&names.names)?;
    let done = client.put(&vmi(server, name, "reset"), &json!({})).await;
    done.map_err(|error| anyhow!("Error resetting VirtualMachineInstance {name}: {error}"))?;
    println!("VMI {name} was scheduled to reset");
    Ok(())
}
