//! Nodes that nobody answers for.
//!
//! virt-handler renews the annotation [`HEARTBEAT`] of its node. Where that is older than [`UNRESPONSIVE`] and no
//! virt-handler is ready there, no VM is scheduled to the node any more and its VMIs are called failed. That starts
//! nothing elsewhere: a VMI object stays until its pod object is gone (see [`crate::vmi`]), and that of a dead node goes
//! only when somebody who knows has said so: the node has the taint `node.kubernetes.io/out-of-service`, its object was
//! deleted, or the pod was deleted by force. Before that, as soon as a heartbeat is missing from a node that is not
//! ready, its VMIs are said not to be ready either.

mod facts;

use std::sync::Arc;
use std::time::Duration;

use holdfast_kubernetes::events::EventType;
use k8s_openapi::api::core::v1::{Node, ObjectReference};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::context::Context;
use crate::engine::{Key, Outcome};
use crate::vmi;

pub use facts::NodeFacts;

/// Annotation of a node: when its virt-handler was last seen.
pub const HEARTBEAT: &str = "kubevirt.io/heartbeat";
/// Label of a node: whether VMs may be scheduled to it.
pub const SCHEDULABLE: &str = "kubevirt.io/schedulable";
/// Age of a heartbeat from which on a node without a ready virt-handler counts as unresponsive.
const UNRESPONSIVE: SignedDuration = SignedDuration::from_mins(5);
/// Age of a heartbeat from which on one is missing: they come every minute.
const SILENT: SignedDuration = SignedDuration::from_secs(90);
/// How often a node that answers is looked at, for nothing happens when a heartbeat stays away.
const RECHECK: Duration = Duration::from_secs(60);
/// How often one is looked at that is not ready.
const SOON: Duration = Duration::from_secs(10);
const DEADLINE: Duration = Duration::from_secs(15);

/// Why a node could not be marked.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The API server refused.
    #[error("failed to mark Node `{0}` as not schedulable")]
    Mark(String, #[source] Box<kube::Error>),
    /// It did not answer.
    #[error("failed to mark Node `{0}` as not schedulable: no answer in time")]
    Deadline(String),
}

/// Whether nobody answers for a node: its virt-handler was there once, and is not any more.
pub fn is_unresponsive(node: &NodeFacts, handler_ready: bool, now: Timestamp) -> bool {
    let old = |seen: Timestamp| now.duration_since(seen) > UNRESPONSIVE;
    !handler_ready && node.heartbeat.is_some_and(old)
}

/// Whether nobody on a node says what becomes of its VMIs: neither its kubelet nor its virt-handler is heard. One that
/// is heard, and is only not seen to be ready, would say otherwise at once.
fn is_silent(node: &NodeFacts, handler_ready: bool, now: Timestamp) -> bool {
    let old = |seen: Timestamp| now.duration_since(seen) > SILENT;
    !node.ready && !handler_ready && node.heartbeat.is_some_and(old)
}

/// What is known of the node that a VMI is on.
pub fn lost(context: &Context, name: &str, now: Timestamp) -> bool {
    let node = context.nodes.get(&Key::new("", name));
    node.is_some_and(|node| is_unresponsive(&node, has_ready_handler(context, name), now))
}

fn has_ready_handler(context: &Context, node: &str) -> bool {
    let here = context.handlers.select(|_, pod| pod.node.as_deref() == Some(node));
    here.iter().any(|pod| pod.is_ready() && !pod.deleting)
}

/// Looks at a node.
pub async fn reconcile(context: Arc<Context>, key: Key) -> Result<Outcome, NodeError> {
    let Some(node) = context.nodes.get(&key) else { return Ok(Outcome::Done) };
    if node.heartbeat.is_none() {
        // No virt-handler was ever here.
        return Ok(Outcome::Done);
    }
    let here = context.vmis.select(|_, vmi| vmi.status.as_ref().and_then(|s| s.node_name.as_ref()) == Some(&key.name));
    let (handler_ready, now) = (has_ready_handler(&context, &key.name), Timestamp::now());
    if !is_unresponsive(&node, handler_ready, now) {
        if is_silent(&node, handler_ready, now) {
            for vmi in here {
                vmi::silent::tell(&context, &vmi, &key.name).await;
            }
        }
        return Ok(Outcome::After(if node.ready { RECHECK } else { SOON }));
    }
    if node.schedulable {
        mark(&context, &key.name).await?;
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(key.name.clone()),
            uid: Some(node.uid.clone()),
            ..ObjectReference::default()
        };
        let message = "virt-handler is not responsive, marking node as unresponsive";
        context.node_events.publish(&about, EventType::Warning, "NodeUnresponsive", message).await;
    }
    for vmi in here {
        context.queues.vmis.add(Key::of(&vmi.metadata));
    }
    Ok(Outcome::After(RECHECK))
}

async fn mark(context: &Context, name: &str) -> Result<(), NodeError> {
    let api: Api<Node> = Api::all(context.client.clone());
    let change = json!({"metadata": {"labels": {SCHEDULABLE: "false"}}});
    let params = PatchParams::default();
    let patch = Patch::Merge(&change);
    match tokio::time::timeout(DEADLINE, api.patch_metadata(name, &params, &patch)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Ok(()),
        Ok(Err(error)) => Err(NodeError::Mark(name.to_owned(), Box::new(error))),
        Err(_) => Err(NodeError::Deadline(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_lost_when_nobody_was_seen_for_long_and_nobody_is_ready() {
        let seen = Timestamp::new(1_000_000, 0).unwrap();
        let node = NodeFacts { heartbeat: Some(seen), schedulable: true, ..NodeFacts::default() };
        let after = |seconds| seen + SignedDuration::from_secs(seconds);
        assert!(!is_unresponsive(&node, false, after(299)));
        assert!(is_unresponsive(&node, false, after(301)));
        assert!(!is_unresponsive(&node, true, after(3000)));
        assert!(!is_unresponsive(&NodeFacts::default(), false, after(3000)), "no virt-handler was ever there");
        assert!(!is_unresponsive(&node, false, after(-3000)), "a clock that is ahead");
    }

    #[test]
    fn a_node_is_silent_when_neither_kubelet_nor_virt_handler_is_heard() {
        let seen = Timestamp::new(1_000_000, 0).unwrap();
        let node = NodeFacts { heartbeat: Some(seen), ..NodeFacts::default() };
        let after = |seconds| seen + SignedDuration::from_secs(seconds);
        assert!(is_silent(&node, false, after(91)));
        assert!(!is_silent(&node, false, after(89)), "its virt-handler was heard");
        assert!(!is_silent(&node, true, after(91)));
        assert!(!is_silent(&NodeFacts { ready: true, ..node.clone() }, false, after(91)), "its kubelet is heard");
        assert!(!is_silent(&NodeFacts { heartbeat: None, ..node }, false, after(91)), "no virt-handler was ever there");
    }
}
