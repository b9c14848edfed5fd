//! What keeps a pod from starting that has its node. The kubelet tells it in events alone: that the sandbox cannot be
//! made (a network that cannot be joined), or a volume not mounted (a Secret that is missing).
//!
//! Nobody watches the events of a cluster for it: those of one pod are asked for when it has waited longer than pods
//! do, and then less and less often. What was told last is kept in memory; who leads next asks anew.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::events::v1::Event;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::decide::Told;
use crate::api;
use crate::context::Context;
use crate::engine::Key;
use crate::pod::PodFacts;

/// How long a pod may take on its ordinary way, and the least time between two questions.
const ORDINARY: SignedDuration = SignedDuration::from_secs(8);
/// The longest time between two questions.
const LONGEST: SignedDuration = SignedDuration::from_secs(60);
/// Events that tell of no progress: the pod has its node, and its sandbox is made once more.
const NO_PROGRESS: [&str; 2] = ["Scheduled", "SandboxChanged"];

/// What was told of the pods that wait, by VMI.
#[derive(Debug, Default)]
pub struct Troubles(Mutex<HashMap<Key, Asked>>);

#[derive(Clone, Debug)]
struct Asked {
    pod: String,
    at: Timestamp,
    told: Option<Told>,
}

impl Troubles {
    fn get(&self, vmi: &Key, pod: &PodFacts) -> Option<Asked> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(vmi).cloned();
        known.filter(|asked| asked.pod == pod.uid)
    }

    fn put(&self, vmi: &Key, asked: Asked) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(vmi.clone(), asked);
    }

    /// Forgets what was told of a VMI.
    pub fn forget(&self, vmi: &Key) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(vmi);
    }
}

/// What keeps the pod of a VMI from starting, where it waits, and when to look again.
pub(super) async fn of(context: &Context, vmi: &Key, pod: &PodFacts) -> (Option<Told>, Option<Duration>) {
    if !pod.waits_on_node() {
        context.troubles.forget(vmi);
        return (None, None);
    }
    let now = Timestamp::now();
    let known = context.troubles.get(vmi, pod);
    let wait = wait(pod.bound.unwrap_or(now), known.as_ref().map(|asked| asked.at), now);
    if wait > SignedDuration::ZERO {
        return (known.and_then(|asked| asked.told), Some(wait.unsigned_abs()));
    }
    let of_pod = format!("regarding.uid={}", pod.uid);
    let told = match api::list_fields::<Event>(&context.client, &pod.key.namespace, &of_pod).await {
        Ok(events) => newest(&events),
        Err(error) => {
            tracing::warn!(pod = %pod.key, error = holdfast_kubernetes::chain(&error), "what keeps it is not known");
            known.and_then(|asked| asked.told)
        }
    };
    context.troubles.put(vmi, Asked { pod: pod.uid.clone(), at: now, told: told.clone() });
    (told, Some(ORDINARY.unsigned_abs()))
}

/// How long to wait before asking, for a pod that was bound then and last asked about then: the older the wait, the
/// less often.
fn wait(bound: Timestamp, asked: Option<Timestamp>, now: Timestamp) -> SignedDuration {
    match asked {
        None => ORDINARY - now.duration_since(bound),
        Some(asked) => (asked.duration_since(bound) / 2).clamp(ORDINARY, LONGEST) - now.duration_since(asked),
    }
}

/// The newest event, if it tells of trouble. One that tells of progress says that the trouble before it is over.
fn newest(events: &[Event]) -> Option<Told> {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let is_warning = |event: &Event| event.type_.as_deref() == Some("Warning");
    let counts = |event: &&Event| !NO_PROGRESS.contains(&event.reason.as_deref().unwrap_or_default());
    // Times are whole seconds; of the same one, trouble counts.
    let newest = events.iter().filter(counts).max_by_key(|event| (time(event), is_warning(event)))?;
    is_warning(newest).then(|| Told { reason: text(&newest.reason), message: steady(&text(&newest.note)) })
}

fn time(event: &Event) -> Option<Timestamp> {
    let series = event.series.as_ref().map(|series| series.last_observed_time.0);
    let last = event.deprecated_last_timestamp.as_ref().map(|time| time.0);
    let made = event.event_time.as_ref().map(|time| time.0);
    series.or(last).or(made).or(event.metadata.creation_timestamp.as_ref().map(|time| time.0))
}

/// A message without what is another each time: the id of the sandbox, and that there were similar ones.
fn steady(note: &str) -> String {
    let note = note.strip_prefix("(combined from similar events): ").unwrap_or(note);
    let is_id = |word: &str| word.len() >= 32 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut text = String::with_capacity(note.len());
    for part in note.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
        let word = part.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        if is_id(word) {
            text.push_str("...");
            text.push_str(&part[word.len()..]);
        } else {
            text.push_str(part);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn event(kind: &str, reason: &str, second: u32, note: &str) -> Event {
        serde_json::from_value(json!({"metadata": {"name": "e"}, "type": kind, "reason": reason, "note": note,
            "deprecatedLastTimestamp": format!("2026-01-01T00:00:{second:02}Z")}))
        .unwrap()
    }

    #[test]
    fn the_newest_trouble_is_told_until_something_goes_on() {
        let sandbox = event("Warning", "FailedCreatePodSandBox", 20, "no");
        let mut events = vec![
            event("Warning", "FailedScheduling", 1, "x"),
            event("Normal", "Scheduled", 40, "x"),
            event("Normal", "Pulled", 20, "x"),
            event("Warning", "FailedMount", 10, "x"),
            sandbox,
            event("Normal", "SandboxChanged", 30, "x"),
        ];
        let told = Told { reason: "FailedCreatePodSandBox".into(), message: "no".into() };
        assert_eq!(newest(&events), Some(told));
        events.push(event("Normal", "Pulling", 31, "x"));
        assert_eq!(newest(&events), None);
        assert_eq!(newest(&[]), None);
    }

    #[test]
    fn the_same_trouble_has_the_same_words() {
        let id = "0123456789abcdef".repeat(4);
        let note = format!("(combined from similar events): for sandbox \"{id}\": bridge `br-a1`: {id}");
        assert_eq!(steady(&note), "for sandbox \"...\": bridge `br-a1`: ...");
    }

    #[test]
    fn questions_become_rare() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let secs = SignedDuration::from_secs;
        assert_eq!(wait(at(0), None, at(3)), secs(5));
        assert_eq!(wait(at(0), Some(at(8)), at(9)), secs(7));
        assert_eq!(wait(at(0), Some(at(40)), at(41)), secs(19));
        assert_eq!(wait(at(0), Some(at(4000)), at(4001)), secs(59));
    }
}
