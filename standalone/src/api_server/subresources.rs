//! Verbs on VMs and VMIs.

use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::StatusCode;
use holdfast_agent::vmi::CommandError;
use holdfast_agent::vmi::status::COMMAND_EVENTS;
use holdfast_api::error_status::ErrorStatus;
use holdfast_api::kubevirt::{VirtualMachine, VirtualMachineInstance};
use holdfast_api::run_strategy::{self, Operation};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::answer::{Answer, empty, internal, no_such_path, refused};
use crate::host::{Host, chain};
use crate::store::{EventKind, Involved};

/// Largest body of a request, in bytes.
const MAX_BODY: usize = 1 << 20;

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Options {
    paused: bool,
    grace_period: Option<i64>,
    grace_period_seconds: Option<i64>,
    dry_run: Vec<String>,
}

/// A verb on a VM: 202, for it is done later.
pub async fn vm(host: &Host, namespace: &str, name: &str, verb: &str, request: Request) -> Answer {
    let options: Options = body(request).await?;
    let vm: Option<VirtualMachine> = host.store.read(namespace, name);
    let vm = vm.ok_or_else(|| refused(&ErrorStatus::not_found("virtualmachine", name)))?;
    let vmi: Option<VirtualMachineInstance> = host.store.read(namespace, name);
    let operation = match verb {
        "start" => run_strategy::start(&vm, vmi.as_ref(), options.paused),
        "stop" => run_strategy::stop(&vm, vmi.as_ref(), options.grace_period),
        "restart" => run_strategy::restart(&vm, vmi.as_ref(), options.grace_period_seconds),
        _ => return Err(no_such_path(verb)),
    };
    let operation = operation.map_err(|error| refused(&error))?;
    if options.dry_run.is_empty() {
        tokio::task::block_in_place(|| carry_out(host, namespace, name, &operation))
            .map_err(|error| internal(&chain(&error)))?;
    }
    Ok(empty(StatusCode::ACCEPTED))
}

fn carry_out(host: &Host, namespace: &str, name: &str, operation: &Operation) -> Result<(), crate::store::StoreError> {
    // The grace period first: the change of the VM may delete the VMI at once.
    if let Some(seconds) = operation.grace_period_seconds {
        host.store.modify::<VirtualMachineInstance>(namespace, name, |vmi| {
            vmi.spec.termination_grace_period_seconds = Some(seconds);
        })?;
    }
    host.store.modify::<VirtualMachine>(namespace, name, |vm| operation.change.apply(vm)).map(drop)
}

/// A verb on a VMI: 200, for it is done.
pub async fn vmi(host: &Host, namespace: &str, name: &str, verb: &str, request: Request) -> Answer {
    let options: Options = body(request).await?;
    let vmi: Option<VirtualMachineInstance> = host.store.read(namespace, name);
    let vmi = vmi.ok_or_else(|| refused(&ErrorStatus::not_found("virtualmachineinstance", name)))?;
    let allowed = match verb {
        "pause" => run_strategy::pause(&vmi),
        "unpause" => run_strategy::unpause(&vmi),
        "softreboot" => run_strategy::soft_reboot(&vmi),
        "reset" => run_strategy::reset(&vmi),
        _ => return Err(no_such_path(verb)),
    };
    allowed.map_err(|error| refused(&error))?;
    if !options.dry_run.is_empty() {
        return Ok(empty(StatusCode::OK));
    }
    let task = vmi.metadata.uid.as_deref().and_then(|uid| host.tasks.get(uid));
    let task = task.ok_or_else(|| conflict(name, "VMI is not running"))?;
    let done = match verb {
        "pause" => task.pause().await,
        "unpause" => task.unpause().await,
        "softreboot" => task.soft_reboot().await,
        _ => task.reset().await,
    };
    done.map_err(|error| failed(name, &error))?;
    if let Some((_, reason, message)) = COMMAND_EVENTS.iter().find(|(command, ..)| *command == verb) {
        let about = Involved::object::<VirtualMachineInstance>(&vmi.metadata);
        host.events.record(&about, EventKind::Normal, "virt-handler", reason, message);
    }
    Ok(empty(StatusCode::OK))
}

fn conflict(name: &str, why: &str) -> Box<Status> {
    refused(&ErrorStatus::conflict("virtualmachineinstance", name, why))
}

fn failed(name: &str, error: &CommandError) -> Box<Status> {
    if error.is_conflict() { conflict(name, &chain(error)) } else { internal(&chain(error)) }
}

/// A request's options; an empty body is none.
async fn body<T: DeserializeOwned + Default>(request: Request) -> Result<T, Box<Status>> {
    let wrong = |error: &dyn std::fmt::Display| {
        let message = format!("Can not unmarshal Request body to struct, error: {error}");
        refused(&ErrorStatus::bad_request(&message))
    };
    let bytes = to_bytes(request.into_body(), MAX_BODY).await.map_err(|error| wrong(&error))?;
    if bytes.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(&bytes).map_err(|error| wrong(&error))
}
