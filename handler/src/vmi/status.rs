//! Writing what becomes of a VMI into its object. What a report leads to, the agent says; here is when it is written,
//! and how.
//!
//! Only what changes is sent, as a merge patch under the version that it was derived from: whoever writes in between is
//! not overwritten, and what they wrote is looked at first.

use std::time::Duration;

use holdfast_agent::vmi::VmiReport;
use holdfast_agent::vmi::status::derive;
use holdfast_agent_api::launcher::DomainState;
use holdfast_api::kubevirt::{VirtualMachineInstance, VirtualMachineInstanceStatus};
use holdfast_api::status::phase;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Map, Value, json};
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(10);
/// How often a write is begun anew when somebody else was faster.
const ATTEMPTS: usize = 4;

/// What came of a write.
#[derive(Debug)]
pub enum Written {
    /// It is written; the object as it is now.
    Done(Box<VirtualMachineInstance>),
    /// There was nothing to write.
    Nothing,
    /// The VMI is gone, or another one has its name.
    Gone,
    /// It could not be written now.
    Failed(String),
}

/// The status that is to be written into a VMI, if there is one. `node` is this node's name.
pub fn wanted(vmi: &VirtualMachineInstance, report: &VmiReport, node: &str) -> Option<VirtualMachineInstanceStatus> {
    let status = vmi.status.as_ref()?;
    // Until it is this node's by its own word, it is the controller's to write.
    if status.node_name.as_deref() != Some(node) {
        return None;
    }
    let none = matches!(report.domain.state, DomainState::None);
    let has_news = match phase(vmi) {
        // Before there is a domain, only why there is none.
        "Scheduled" => !none || report.failure.is_some(),
        // A launcher that is not heard (yet) says nothing about a guest that was seen to run.
        "Running" => !none,
        _ => false,
    };
    has_news.then(|| derive(vmi, report, Timestamp::now())).filter(|wanted| wanted != status)
}

/// Writes what `report` says into `vmi`, or into what it has become in the meantime.
pub async fn write(client: &Client, vmi: &VirtualMachineInstance, report: &VmiReport, node: &str) -> Written {
    let meta = &vmi.metadata;
    let name = meta.name.as_deref().unwrap_or_default();
    let api = Api::<VirtualMachineInstance>::namespaced(client.clone(), meta.namespace.as_deref().unwrap_or_default());
    let mut vmi = vmi.clone();
    for _ in 0..ATTEMPTS {
        let Some(status) = wanted(&vmi, report, node) else { return Written::Nothing };
        let Some(patch) = patch(&vmi, &status) else { return Written::Nothing };
        let sent = timeout(DEADLINE, api.patch(name, &PatchParams::default(), &Patch::Merge(patch))).await;
        let error = match sent {
            Ok(Ok(vmi)) => return Written::Done(Box::new(vmi)),
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => None,
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => return Written::Gone,
            Ok(Err(error)) => Some(holdfast_kubernetes::chain(&error)),
            Err(_) => Some("the API server does not answer".to_owned()),
        };
        if let Some(error) = error {
            return Written::Failed(error);
        }
        match timeout(DEADLINE, api.get_opt(name)).await {
            Ok(Ok(Some(now))) if now.metadata.uid == vmi.metadata.uid => vmi = now,
            Ok(Ok(_)) => return Written::Gone,
            Ok(Err(error)) => return Written::Failed(holdfast_kubernetes::chain(&error)),
            Err(_) => return Written::Failed("the API server does not answer".to_owned()),
        }
    }
    Written::Failed("somebody else writes the VMI again and again".to_owned())
}

/// The merge patch that gives `vmi` this status; none where it has it.
fn patch(vmi: &VirtualMachineInstance, status: &VirtualMachineInstanceStatus) -> Option<Value> {
    let encode = |status: &VirtualMachineInstanceStatus| match serde_json::to_value(status) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    };
    let before = vmi.status.as_ref().map(encode).unwrap_or_default();
    let changed = difference(&before, &encode(status));
    (!changed.is_empty()).then(|| {
        json!({
            "metadata": {"resourceVersion": vmi.metadata.resource_version, "uid": vmi.metadata.uid},
            "status": changed,
        })
    })
}

/// The merge patch (RFC 7396) from one object to another.
fn difference(before: &Map<String, Value>, after: &Map<String, Value>) -> Map<String, Value> {
    let gone = before.keys().filter(|key| !after.contains_key(*key)).map(|key| (key.clone(), Value::Null));
    let changed = after.iter().filter_map(|(key, value)| match (before.get(key), value) {
        (Some(before), value) if before == value => None,
        (Some(Value::Object(before)), Value::Object(after)) => Some((key.clone(), difference(before, after).into())),
        _ => Some((key.clone(), value.clone())),
    });
    gone.chain(changed).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use holdfast_agent_api::launcher::{Failure, FailureClass, FinalState, PauseReason};

    use super::*;

    fn vmi(status: Value) -> VirtualMachineInstance {
        serde_json::from_value(json!({
            "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
            "metadata": {"name": "a", "namespace": "lab", "uid": "u", "resourceVersion": "7"},
            "spec": {"domain": {"devices": {}}}, "status": status,
        }))
        .unwrap()
    }

    fn report(state: DomainState) -> VmiReport {
        let mut report = VmiReport::default();
        report.domain.state = state;
        report
    }

    #[test]
    fn only_a_vmi_of_this_node_is_written() {
        let running = report(DomainState::Running);
        let phase = |status: Value| wanted(&vmi(status), &running, "n1").and_then(|status| status.phase);
        assert_eq!(phase(json!({"phase": "Scheduled", "nodeName": "n1"})).as_deref(), Some("Running"));
        assert_eq!(phase(json!({"phase": "Scheduled", "nodeName": "n2"})), None);
        assert_eq!(phase(json!({"phase": "Scheduling"})), None);
        assert_eq!(phase(json!({"phase": "Failed", "nodeName": "n1"})), None);
    }

    #[test]
    fn a_launcher_that_is_not_heard_changes_nothing() {
        let (scheduled, running) =
            (json!({"phase": "Scheduled", "nodeName": "n1"}), json!({"phase": "Running", "nodeName": "n1"}));
        let none = report(DomainState::None);
        assert_eq!(wanted(&vmi(scheduled.clone()), &none, "n1"), None);
        assert_eq!(wanted(&vmi(running.clone()), &none, "n1"), None);
        let mut failed = none.clone();
        let failure = Failure { class: FailureClass::Retry, reason: "R".into(), message: "m".into() };
        failed.failure = Some(failure);
        assert!(wanted(&vmi(scheduled), &failed, "n1").is_some());
        assert_eq!(wanted(&vmi(running.clone()), &failed, "n1"), None);
        let end = FinalState { succeeded: true, reason: "Shutdown".into(), message: String::new() };
        let ended = wanted(&vmi(running), &report(DomainState::Final(end)), "n1").unwrap();
        assert_eq!(ended.phase.as_deref(), Some("Succeeded"));
    }

    #[test]
    fn a_patch_holds_what_changes_and_the_version_that_it_was_made_from() {
        let scheduled = vmi(json!({"phase": "Scheduled", "nodeName": "n1", "runtimeUser": 107}));
        let status = wanted(&scheduled, &report(DomainState::Running), "n1").unwrap();
        let sent = patch(&scheduled, &status).unwrap();
        assert_eq!(sent["metadata"], json!({"resourceVersion": "7", "uid": "u"}));
        assert_eq!(sent["status"]["phase"], "Running");
        assert!(sent["status"].get("nodeName").is_none() && sent["status"].get("runtimeUser").is_none());

        let running = VirtualMachineInstance { status: Some(status), ..scheduled };
        assert!(wanted(&running, &report(DomainState::Running), "n1").is_none(), "a second look writes nothing");
        // As the API server has it after a merge patch: lists without nulls.
        let mut stored = running.clone();
        for condition in &mut stored.status.as_mut().unwrap().conditions {
            condition.last_probe_time = None;
        }
        assert!(wanted(&stored, &report(DomainState::Running), "n1").is_none(), "nor does one at what was kept of it");
        let paused = report(DomainState::Paused { reason: PauseReason::User });
        let sent = patch(&running, &wanted(&running, &paused, "n1").unwrap()).unwrap();
        assert_eq!(sent["status"].as_object().unwrap().keys().collect::<Vec<_>>(), ["conditions"]);
    }

    #[test]
    fn what_is_gone_is_null() {
        let map = |value: Value| value.as_object().unwrap().clone();
        let (before, after) =
            (map(json!({"a": 1, "b": {"c": 1, "d": 2}, "e": 3})), map(json!({"b": {"c": 1, "d": 3}, "f": 4})));
        assert_eq!(Value::Object(difference(&before, &after)), json!({"a": null, "e": null, "b": {"d": 3}, "f": 4}));
        assert!(difference(&after, &after).is_empty());
    }
}
