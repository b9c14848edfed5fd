//! The steps on a VMI's pod once it is there.

use holdfast_api::kubevirt::VirtualMachineInstance;
use holdfast_kubernetes::events::EventType;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use serde_json::json;

use super::VmiError;
use super::prepare::keep;
use crate::api;
use crate::context::Context;
use crate::engine::Key;
use crate::pod::UNPAUSED;
use holdfast_api::status::time_value;

/// Whether the API server has no pod of that name either; one that it has is known from here on.
pub(super) async fn confirm_gone(
    context: &Context,
    vmi: &VirtualMachineInstance,
    name: &Key,
) -> Result<bool, VmiError> {
    match api::get::<Pod>(&context.client, name).await? {
        None => Ok(true),
        // A stranger under the name is not ours to wait for.
        Some(pod) => Ok(Some(&keep(context, pod).owner) != vmi.metadata.uid.as_ref()),
    }
}

/// Sets the readiness gate, so that a paused guest gets no traffic from Services.
pub(super) async fn gate(context: &Context, name: &Key, unpaused: bool) -> Result<(), VmiError> {
    let (status, reason, message) = if unpaused {
        ("True", "NotPaused", "the virtual machine is not paused")
    } else {
        ("False", "Paused", "the virtual machine is paused")
    };
    let now = time_value(Timestamp::now());
    let condition = json!({"type": UNPAUSED, "status": status, "reason": reason, "message": message,
        "lastProbeTime": now, "lastTransitionTime": now});
    let pod: Pod = api::merge_status(&context.client, name, &json!({"status": {"conditions": [condition]}})).await?;
    keep(context, pod);
    Ok(())
}

/// Deletes the pod. Its guest shuts down; the pod goes when it has, or when its time is over.
pub(super) async fn delete_pod(
    context: &Context,
    vmi: &VirtualMachineInstance,
    name: &Key,
    uid: &str,
    grace: u32,
) -> Result<(), VmiError> {
    match api::delete::<Pod>(&context.client, name, uid, Some(grace)).await? {
        Some(pod) => {
            keep(context, pod);
        }
        None => context.pods.forget(name),
    }
    let message = format!("Deleted virtual machine pod {}", name.name);
    context.event(vmi, EventType::Normal, "SuccessfulDelete", &message).await;
    Ok(())
}
