//! The steps of a VM, each a call or two of the API server.

use std::sync::Arc;

use holdfast_api::defaults::{default_vmi, stable_identities};
use holdfast_api::instancetype::Sizes;
use holdfast_api::kubevirt::{VirtualMachine, VirtualMachineInstance};
use holdfast_api::run_strategy::{Action, CONTROLLER_FINALIZER, Nics, build_vmi, revision_name};
use holdfast_kubernetes::chain;
use holdfast_kubernetes::events::EventType;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;

use super::{VmError, controls, sizes};
use crate::api;
use crate::context::Context;
use crate::engine::Key;
use crate::patch::finalizers;

/// What came of a step.
pub(super) enum Done {
    /// Something was changed: decide again.
    Step,
    /// There is nothing to do.
    Nothing,
    /// There is nothing to do before that time.
    Wait(Timestamp),
    /// The API server understood and refused, for this reason.
    Refused(String),
    /// The API server does not know our kinds yet, and refused for this reason.
    Early(String),
}

/// Does one step.
pub(super) async fn act(
    context: &Context,
    vm: &Arc<VirtualMachine>,
    vmi: Option<&VirtualMachineInstance>,
    sizes: &Sizes,
    action: &Action,
) -> Result<Done, VmError> {
    let key = Key::of(&vm.metadata);
    match action {
        Action::Nothing => return Ok(Done::Nothing),
        Action::Wait { until } => return Ok(Done::Wait(*until)),
        Action::AddFinalizer => {
            let mut list = vm.metadata.finalizers.clone().unwrap_or_default();
            list.push(CONTROLLER_FINALIZER.to_owned());
            patch_vm(context, &key, &finalizers(vm.metadata.resource_version.as_deref(), &list)).await?;
        }
        Action::CreateVmi { paused } => return create_vmi(context, vm, sizes, *paused).await,
        Action::CountFailure => super::write_status(context, &key, None).await?,
        Action::DeleteVmi { uid, start_again } => delete_vmi(context, vm, uid, *start_again).await?,
        Action::ReleaseVmi => {
            let Some(vmi) = vmi else { return Ok(Done::Nothing) };
            let change = finalizers(vmi.metadata.resource_version.as_deref(), &without_ours(&vmi.metadata));
            let written: VirtualMachineInstance = api::patch(&context.client, &key, &change).await?;
            context.vmis.wrote(&written.metadata.clone(), written);
            context.queues.vmis.add(key);
        }
        Action::SetNics(nics) => {
            let Some(vmi) = vmi else { return Ok(Done::Nothing) };
            let nics = nics.clone().links_only(&vmi.spec);
            if nics == Nics::of(&vmi.spec) {
                return Ok(Done::Nothing);
            }
            let change = json!({
                "metadata": {"resourceVersion": vmi.metadata.resource_version},
                "spec": {"domain": {"devices": {"interfaces": nics.interfaces}}},
            });
            let written: VirtualMachineInstance = api::patch(&context.client, &key, &change).await?;
            context.vmis.wrote(&written.metadata.clone(), written);
            context.queues.vmis.add(key);
        }
        Action::ReleaseVm => {
            let change = finalizers(vm.metadata.resource_version.as_deref(), &without_ours(&vm.metadata));
            patch_vm(context, &key, &change).await?;
        }
        Action::StartHalted => {
            let spec = match vm.spec.running {
                Some(_) => json!({"running": true}),
                None => json!({"runStrategy": "Always"}),
            };
            let change = json!({"metadata": {"resourceVersion": vm.metadata.resource_version}, "spec": spec});
            patch_vm(context, &key, &change).await?;
        }
    }
    Ok(Done::Step)
}

fn without_ours(meta: &ObjectMeta) -> Vec<String> {
    let all = meta.finalizers.iter().flatten();
    all.filter(|finalizer| *finalizer != CONTROLLER_FINALIZER).cloned().collect()
}

async fn patch_vm(context: &Context, key: &Key, change: &serde_json::Value) -> Result<(), VmError> {
    let written: VirtualMachine = api::patch(&context.client, key, change).await?;
    context.vms.wrote(&written.metadata.clone(), written);
    Ok(())
}

async fn create_vmi(context: &Context, vm: &VirtualMachine, sizes: &Sizes, paused: bool) -> Result<Done, VmError> {
    let key = Key::of(&vm.metadata);
    let vmi = match new_vmi(context, vm, sizes, paused) {
        Ok(vmi) => vmi,
        Err(why) => return Ok(Done::Refused(why)),
    };
    if let Err(error) = context.revisions.keep(&context.client, vm).await {
        return if error.is_refusal() { Ok(denied(&error, chain(&error))) } else { Err(error.into()) };
    }
    let created = match api::create(&context.client, &vmi).await {
        Ok(created) => created,
        Err(error) if error.code() == Some(409) => {
            // The cache did not have it yet.
            return match api::get::<VirtualMachineInstance>(&context.client, &key).await? {
                Some(present) if controls(vm, &present) => {
                    context.vmis.wrote(&present.metadata.clone(), present);
                    Ok(Done::Step)
                }
                Some(stranger) => Ok(Done::Refused(super::taken(&stranger))),
                None => Err(error.into()),
            };
        }
        Err(error) if error.is_refusal() => {
            let why = error.answer().map(|status| status.message.clone()).unwrap_or_default();
            return Ok(denied(&error, format!("Error creating virtual machine instance: {why}")));
        }
        Err(error) => return Err(error.into()),
    };
    context.vmis.wrote(&created.metadata.clone(), created);
    context.queues.vmis.add(key.clone());
    let message = format!("Started the virtual machine by creating the new virtual machine instance {}", key.name);
    context.event(vm, EventType::Normal, "SuccessfulCreate", &message).await;
    Ok(Done::Step)
}

fn denied(error: &api::ApiError, why: String) -> Done {
    if error.is_early() { Done::Early(why) } else { Done::Refused(why) }
}

/// The VMI of a VM, defaulted; whoever admits it finds nothing left to default.
fn new_vmi(
    context: &Context,
    vm: &VirtualMachine,
    sizes: &Sizes,
    paused: bool,
) -> Result<VirtualMachineInstance, String> {
    let mut vmi = build_vmi(vm, paused);
    sizes::apply(vm, sizes, &mut vmi)?;
    let uid = vm.metadata.uid.as_deref().and_then(|uid| uid.parse().ok()).unwrap_or_else(Uuid::nil);
    default_vmi(&mut vmi, &context.settings().cluster, &mut stable_identities(uid), Timestamp::now());
    vmi.status.get_or_insert_default().virtual_machine_revision_name = Some(revision_name(vm));
    Ok(vmi)
}

async fn delete_vmi(context: &Context, vm: &VirtualMachine, uid: &str, start_again: bool) -> Result<(), VmError> {
    let key = Key::of(&vm.metadata);
    if start_again {
        let change = json!({
            "metadata": {"resourceVersion": vm.metadata.resource_version},
            "status": {"stateChangeRequests": [{"action": "Start"}]},
        });
        let written: VirtualMachine = api::patch_status(&context.client, &key, &change).await?;
        context.vms.wrote(&written.metadata.clone(), written);
    }
    let left: Option<VirtualMachineInstance> = api::delete(&context.client, &key, uid, None).await?;
    match left {
        Some(left) => context.vmis.wrote(&left.metadata.clone(), left),
        // It went, or another has its name: the watch will tell.
        None => return Err(gone(&key)),
    }
    context.queues.vmis.add(key);
    let message = format!("Stopped the virtual machine by deleting the virtual machine instance {uid}");
    context.event(vm, EventType::Normal, "SuccessfulDelete", &message).await;
    Ok(())
}

/// What is said of an object that the cache still has.
fn gone(key: &Key) -> VmError {
    let status = kube::core::Status::failure("it is gone", "NotFound").with_code(404);
    api::ApiError::Refused {
        verb: "delete",
        kind: "VirtualMachineInstance".to_owned(),
        key: key.clone(),
        source: Box::new(kube::Error::Api(status.boxed())),
    }
    .into()
}
