//! What is said of a VMI on a node that is not heard any more, while it is too early to say that it is lost.
//!
//! From Scheduled on the condition `Ready` is virt-handler's. Here it is written once nobody is there to do that; one
//! that is back sees it, and writes what is so.

use holdfast_api::kubevirt::{VirtualMachineInstance, VirtualMachineInstanceCondition};
use holdfast_api::status::{self, Condition as _, is_final, is_true};
use holdfast_kubernetes::chain;
use holdfast_kubernetes::events::EventType;
use k8s_openapi::jiff::Timestamp;

use super::{VmiError, write};
use crate::context::Context;
use crate::engine::Key;

/// Reason of the condition, and of the event.
const REASON: &str = "NodeNotReady";

/// Says that a VMI is not ready, where that is not said yet. What cannot be written is left to the next look at its
/// node.
pub async fn tell(context: &Context, vmi: &VirtualMachineInstance, node: &str) {
    let message =
        format!("Node {node} is not ready, and its virt-handler is not heard: what its guest does is not known");
    let Some(wanted) = not_ready(vmi, &message, Timestamp::now()) else { return };
    match write(context, vmi, wanted).await {
        Ok(()) => context.event(vmi, EventType::Warning, REASON, &message).await,
        Err(VmiError::Api(error)) if error.is_stale() => {}
        Err(error) => {
            let vmi = Key::of(&vmi.metadata);
            tracing::warn!(%vmi, error = chain(&error), "failed to say that its node is not ready");
        }
    }
}

/// The VMI that says so; none where it is not said to be ready.
fn not_ready(vmi: &VirtualMachineInstance, message: &str, now: Timestamp) -> Option<VirtualMachineInstance> {
    let is_ready = vmi.status.as_ref().is_some_and(|status| is_true(&status.conditions, "Ready"));
    if is_final(vmi) || !is_ready {
        return None;
    }
    let mut vmi = vmi.clone();
    let condition = VirtualMachineInstanceCondition::new("Ready", "False", REASON, message);
    status::set(&mut vmi.status.get_or_insert_default().conditions, condition, now);
    Some(vmi)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use holdfast_api::status::find;
    use serde_json::json;

    use super::*;

    fn said(phase: &str, ready: &str) -> Option<VirtualMachineInstance> {
        let vmi = json!({"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "metadata": {"name": "a"},
            "spec": {"domain": {"devices": {}}}, "status": {"phase": phase, "nodeName": "n1", "conditions": [
                {"type": "Ready", "status": ready}, {"type": "AgentConnected", "status": "True"}]}});
        not_ready(&serde_json::from_value(vmi).unwrap(), "m", Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_vmi_that_was_ready_is_not_and_nothing_else_is_said() {
        let vmi = said("Running", "True").unwrap();
        let status = vmi.status.as_ref().unwrap();
        let ready = find(&status.conditions, "Ready").unwrap();
        assert_eq!((ready.status.as_str(), ready.reason.as_deref()), ("False", Some("NodeNotReady")));
        assert!(is_true(&status.conditions, "AgentConnected"));
        assert_eq!(status.phase.as_deref(), Some("Running"), "it is not lost yet");
        assert_eq!(not_ready(&vmi, "m", Timestamp::UNIX_EPOCH), None, "it is said once");
        assert_eq!(said("Running", "False"), None);
        assert_eq!(said("Failed", "True"), None);
    }
}
