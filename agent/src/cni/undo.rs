//! ADDs whose answer nobody took: what they made is taken away again.
//!
//! A runtime that gives up on an ADD ends the plugin and says DEL. That DEL may overtake the ADD, find nothing, and
//! what the ADD makes after it would stay for as long as the namespace does. So whoever cannot tell the answer of an
//! ADD takes away what it has made.
//!
//! Invariant: what another ADD of the same call has answered, or may be about to answer, is left to that one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_agent_api::cni::{Request, Verb};

use crate::registry::{Key, Registry};

/// How many ADDs of each call are under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Adds(Arc<Mutex<BTreeMap<String, usize>>>);

/// An ADD that is under way, until it is dropped.
#[derive(Debug)]
pub(super) struct Adding {
    adds: Adds,
    call: String,
}

impl Adds {
    /// Notes a call, before it is served; none where it is no ADD.
    pub fn begin(&self, request: &Request) -> Option<Adding> {
        if request.verb != Verb::Add {
            return None;
        }
        let call = format!("{}/{}", request.container_id, request.ifname);
        *self.counts().entry(call.clone()).or_default() += 1;
        Some(Adding { adds: self.clone(), call })
    }

    /// Whether an ADD of this call is under way.
    fn has(&self, call: &str) -> bool {
        self.counts().contains_key(call)
    }

    fn counts(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        // A count is changed in one step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Adding {
    /// Takes away what this ADD has made.
    pub async fn undo(self, registry: &Registry, added: &[Key]) {
        let (adds, call) = (self.adds.clone(), self.call.clone());
        // It counts no more: of two that are undone at once, one must find itself the last.
        drop(self);
        for key in added {
            if let Err(error) = undo(&adds, &call, registry, key).await {
                tracing::warn!(attachment = %key, error, "an attachment stays whose ADD nobody took the answer of");
            }
        }
    }
}

async fn undo(adds: &Adds, call: &str, registry: &Registry, key: &Key) -> Result<(), String> {
    let Some(made) = registry.get(key).map(|entry| entry.record) else { return Ok(()) };
    // Whoever comes after this waits for the key, and finds the removal under way.
    let hold = registry.hold(key, &made.attachment.id).await.map_err(|error| error.to_string())?;
    let left = !adds.has(call) && registry.get(key).is_some_and(|now| !now.answered && now.record == made);
    if !left {
        return Ok(());
    }
    tracing::info!(attachment = %key, "nobody took the answer of its ADD: removing it");
    registry.drop_key(&hold, key, made.attachment.id).map_err(|error| crate::chain(&error))
}

impl Drop for Adding {
    fn drop(&mut self) {
        let mut counts = self.adds.counts();
        if let Some(count) = counts.get_mut(&self.call) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.call);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_under_way_until_its_last_add_ends() {
        let adds = Adds::default();
        let begin = |verb, ifname: &str| {
            let request = Request {
                version: 1,
                verb,
                container_id: "c".into(),
                netns: String::new(),
                ifname: ifname.into(),
                args: String::new(),
                netns_override: false,
                config: serde_json::Value::Null,
            };
            adds.begin(&request)
        };
        assert!(begin(Verb::Del, "eth0").is_none());
        let first = begin(Verb::Add, "eth0");
        let second = begin(Verb::Add, "eth0");
        drop(first);
        assert!(adds.has("c/eth0") && !adds.has("c/net1"));
        drop(second);
        assert!(!adds.has("c/eth0"));
    }
}
