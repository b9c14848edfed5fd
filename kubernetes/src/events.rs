//! Events about objects, as `kubectl describe` shows them. Series of the same event are counted, not repeated.

use std::hash::{DefaultHasher, Hash, Hasher};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
pub use kube::runtime::events::EventType;
use kube::runtime::events::{Event, Recorder, Reporter};

/// Tells of objects in the name of a component. Cheap to clone.
#[derive(Clone)]
pub struct Events(Recorder);

impl Events {
    /// For `component` (`virt-controller`, `virtualmachine-controller`, `virt-handler`...), running as `instance`
    /// (the pod's or node's name).
    pub fn new(client: Client, component: &str, instance: Option<String>) -> Self {
        Self(Recorder::new(client, Reporter { controller: component.to_owned(), instance }))
    }

    /// Tells one. It is told in the background of nothing else: an event that cannot be written is logged and lost.
    pub async fn publish(&self, about: &ObjectReference, kind: EventType, reason: &str, message: &str) {
        // The API server takes notes of at most 1024 bytes.
        let note: String = message.chars().take(1000).collect();
        let event = Event {
            type_: kind,
            reason: reason.to_owned(),
            note: Some(note),
            action: action(reason, message),
            secondary: None,
        };
        if let Err(error) = self.0.publish(&event, about).await {
            tracing::warn!(error = crate::chain(&error), reason, "failed to write an event");
        }
    }
}

/// What a series goes by besides the reason: the recorder counts another message of the same reason as the first one once
/// more, and it would never be read.
fn action(reason: &str, message: &str) -> String {
    let mut hasher = DefaultHasher::new();
    message.hash(&mut hasher);
    format!("{reason}-{:08x}", hasher.finish() & 0xffff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_is_a_series() {
        assert_eq!(action("Failed", "a"), action("Failed", "a"));
        assert_ne!(action("Failed", "a"), action("Failed", "b"));
    }
}
