//! What of a node matters, and nothing more.

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::{HEARTBEAT, SCHEDULABLE};
use crate::engine::Cached;

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// `metadata.uid`.
    pub uid: String,
    /// Whether its kubelet says that it is well, and was heard of late.
    pub ready: bool,
    /// When its virt-handler was last seen.
    pub heartbeat: Option<Timestamp>,
    /// Whether VMs are scheduled to it.
    pub schedulable: bool,
}

impl Cached for NodeFacts {
    fn read(object: Value) -> Result<Self, serde_json::Error> {
        let Node { metadata: meta, status, .. } = serde_json::from_value(object)?;
        let conditions = status.and_then(|status| status.conditions).unwrap_or_default();
        let heartbeat = meta.annotations.as_ref().and_then(|annotations| annotations.get(HEARTBEAT));
        Ok(Self {
            uid: meta.uid.unwrap_or_default(),
            ready: conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"),
            heartbeat: heartbeat.and_then(|text| read_time(text)),
            schedulable: meta.labels.is_some_and(|labels| labels.get(SCHEDULABLE).is_some_and(|is| is == "true")),
        })
    }
}

/// A heartbeat: RFC 3339, as a string or as the JSON of one, which is what upstream's handler writes.
fn read_time(text: &str) -> Option<Timestamp> {
    text.trim().trim_matches('"').parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn heartbeats_are_read_in_both_forms() {
        let expected: Timestamp = "2026-11-22T03:13:22Z".parse().unwrap();
        assert_eq!(read_time("2026-11-22T03:13:22Z"), Some(expected));
        assert_eq!(read_time("\"2026-11-22T03:13:22Z\""), Some(expected));
        assert_eq!(read_time("soon"), None);
        let node = serde_json::json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "uid": "u",
            "labels": {"kubevirt.io/schedulable": "true"}, "annotations": {"kubevirt.io/heartbeat": "x"}}});
        let facts = NodeFacts::read(node).unwrap();
        assert_eq!((facts.heartbeat, facts.schedulable, facts.uid.as_str()), (None, true, "u"));
        assert!(!facts.ready);
    }

    #[test]
    fn a_node_is_ready_when_it_is_said_to_be() {
        for (status, ready) in [("True", true), ("False", false), ("Unknown", false)] {
            let node = serde_json::json!({"metadata": {"name": "n"}, "status": {"conditions": [
                {"type": "MemoryPressure", "status": "True"}, {"type": "Ready", "status": status}]}});
            assert_eq!(NodeFacts::read(node).unwrap().ready, ready, "{status}");
        }
    }
}
