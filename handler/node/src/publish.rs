//! What the cluster is told of this node: labels, a heartbeat, a condition.
//!
//! The Node object as the last answer had it is what the next beat is compared with, so that a beat is one request.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use holdfast_kubernetes::config::Settings;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1 as core;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::NodeOptions;
use crate::checks::{self, Verdict};
use crate::facts::Facts;
use crate::labels::{self, Host, SCHEDULABLE, SKIP};

const HEARTBEAT: &str = "kubevirt.io/heartbeat";
/// Whether we tune the kernel's page merging; we never do.
const KSM_MANAGED: &str = "kubevirt.io/ksm-handler-managed";
/// The condition's type.
const CONDITION: &str = "HoldfastReady";
/// Between beats.
const BEAT: Duration = Duration::from_secs(60);
/// How long the node's parts have to find out how they stand.
const FIRST: Duration = Duration::from_secs(5);
/// Between attempts of a beat that failed.
const RETRY: Duration = Duration::from_secs(5);
/// Between looks at what is not announced.
const LOOK: Duration = Duration::from_secs(20);
/// What the API server has for an answer.
const ANSWER: Duration = Duration::from_secs(15);
/// Less at the end: a node that is shut down waits for nobody.
const LAST_ANSWER: Duration = Duration::from_secs(5);
const OVSDB: Duration = Duration::from_secs(1);

/// Writes to the Node object.
pub struct Publisher {
    options: NodeOptions,
    nodes: Api<core::Node>,
    /// As the API server had it last.
    node: Option<core::Node>,
    host: Result<Host, String>,
    beat_at: Instant,
}

/// Tells the cluster until `stop`.
pub async fn run(options: NodeOptions, mut facts: watch::Receiver<Facts>, stop: CancellationToken) -> Publisher {
    let mut settings = options.settings.clone();
    let host = Host::read(&options.capabilities, options.kvm).map_err(|error| crate::text(&error));
    if let Err(error) = &host {
        tracing::error!(error, "failed to read the capabilities of QEMU");
    }
    let nodes = Api::all(options.client.clone());
    // The first verdict shall be one on the node, not on our own start.
    let _ = timeout(FIRST, facts.wait_for(Facts::is_complete)).await;
    let mut publisher = Publisher { options, nodes, node: None, host, beat_at: Instant::now() };
    loop {
        let now = (facts.borrow_and_update().clone(), Arc::clone(&settings.borrow_and_update()));
        let wake = publisher.beat(&now.0, &now.1).await;
        tokio::select! {
            () = stop.cancelled() => return publisher,
            () = sleep_until(wake) => {}
            Ok(()) = facts.changed() => {}
            Ok(()) = settings.changed() => {}
        }
    }
}

impl Publisher {
    /// Writes what is due or has changed; returns when to look again.
    async fn beat(&mut self, facts: &Facts, settings: &Settings) -> Instant {
        let ovs = match &self.options.ovsdb {
            Some(socket) => Some(matches!(timeout(OVSDB, UnixStream::connect(socket)).await, Ok(Ok(_)))),
            None => None,
        };
        let host = self.host.as_ref().map_err(String::as_str);
        let (kvm, emulation) = (self.options.kvm, settings.emulation);
        let wiring = self.options.wiring.as_ref().map(drop).map_err(String::as_str);
        let verdict = checks::judge(&checks::Node { facts, host, kvm, wiring, emulation, ovs });
        let node = labels::Node {
            schedulable: verdict.is_good(),
            cpu_manager: has_cpu_manager(&self.options.kubelet),
            ksm: fs::read_to_string("/sys/kernel/mm/ksm/run").is_ok_and(|run| run.trim() == "1"),
        };
        let configuration = settings.kubevirt.spec.configuration.as_ref();
        let obsolete = labels::obsolete(configuration.map(|at| &at.obsolete_cpu_models).unwrap_or(&BTreeMap::new()));
        let wanted = labels::of(node, host.ok(), &obsolete);
        match self.write(&wanted, &verdict).await {
            Ok(()) => self.beat_at.min(Instant::now() + LOOK),
            Err(error) => {
                tracing::warn!(error = crate::text(&error), "failed to write to the Node object");
                self.node = None;
                Instant::now() + RETRY
            }
        }
    }

    async fn write(&mut self, wanted: &BTreeMap<String, String>, verdict: &Verdict) -> Result<(), kube::Error> {
        let known = match self.node.take() {
            Some(node) => node,
            None => within(ANSWER, self.nodes.get(&self.options.node)).await?,
        };
        let mut changes = changes(&known, wanted);
        let due = self.beat_at <= Instant::now();
        let mut node = known;
        if due || !changes.is_empty() {
            // Always there: whoever thought that this node was dead has set it to false.
            changes.insert(SCHEDULABLE.to_owned(), wanted.get(SCHEDULABLE).cloned());
            let annotations = json!({ HEARTBEAT: seconds(Timestamp::now()), KSM_MANAGED: "false" });
            let patch = json!({ "metadata": { "labels": changes, "annotations": annotations } });
            node = within(ANSWER, self.patch(patch)).await?;
            self.beat_at = Instant::now() + BEAT;
        }
        if let Some(patch) = condition(&node, verdict, Timestamp::now()) {
            tracing::info!(ready = verdict.is_good(), "{}", verdict.message().replace('\n', "; "));
            node = within(ANSWER, self.patch_status(patch)).await?;
        }
        self.node = Some(node);
        Ok(())
    }

    /// Says that no VM can be started here until somebody comes back.
    pub async fn leave(&mut self) {
        self.last(json!({ "metadata": { "labels": { SCHEDULABLE: "false" } } })).await;
    }

    /// Takes everything of ours off the Node object.
    pub async fn erase(&mut self) {
        let node = match within(LAST_ANSWER, self.nodes.get(&self.options.node)).await {
            Ok(node) => node,
            Err(error) => return tracing::error!(error = crate::text(&error), "failed to read the Node object"),
        };
        let labels = changes(&node, &BTreeMap::new());
        let annotations = json!({ HEARTBEAT: null, KSM_MANAGED: null });
        self.last(json!({ "metadata": { "labels": labels, "annotations": annotations } })).await;
        let gone = json!({ "status": { "conditions": [{ "type": CONDITION, "$patch": "delete" }] } });
        if let Err(error) = within(LAST_ANSWER, self.patch_status(gone)).await {
            tracing::error!(error = crate::text(&error), "failed to take the condition off the Node object");
        }
    }

    async fn patch(&self, patch: Value) -> Result<core::Node, kube::Error> {
        self.nodes.patch(&self.options.node, &PatchParams::default(), &Patch::Merge(patch)).await
    }

    /// Lists of conditions are merged by type.
    async fn patch_status(&self, patch: Value) -> Result<core::Node, kube::Error> {
        self.nodes.patch_status(&self.options.node, &PatchParams::default(), &Patch::Strategic(patch)).await
    }

    async fn last(&self, patch: Value) {
        if let Err(error) = within(LAST_ANSWER, self.patch(patch)).await {
            tracing::warn!(error = crate::text(&error), "failed to write to the Node object");
        }
    }
}

/// What of the labels has to change; nothing beside ourselves where somebody labels the node himself.
fn changes(node: &core::Node, wanted: &BTreeMap<String, String>) -> BTreeMap<String, Option<String>> {
    let present = node.metadata.labels.clone().unwrap_or_default();
    let skip = node.metadata.annotations.iter().flatten().any(|(name, value)| name == SKIP && value == "true");
    let mut changes = labels::changes(&present, wanted);
    changes.retain(|name, _| !skip || name == SCHEDULABLE);
    changes
}

/// The patch that makes the condition say the verdict; none where it does.
fn condition(node: &core::Node, verdict: &Verdict, now: Timestamp) -> Option<Value> {
    let conditions = node.status.iter().filter_map(|status| status.conditions.as_ref()).flatten();
    let present = conditions.into_iter().find(|condition| condition.type_ == CONDITION);
    let (status, reason) = if verdict.is_good() { ("True", "Ready") } else { ("False", "ChecksFailed") };
    let message = verdict.message();
    let told = |text: &Option<String>, wanted: &str| text.as_deref() == Some(wanted);
    if present.is_some_and(|is| is.status == status && told(&is.reason, reason) && told(&is.message, &message)) {
        return None;
    }
    let now = seconds(now);
    let mut condition = json!({
        "type": CONDITION, "status": status, "reason": reason, "message": message, "lastHeartbeatTime": now,
    });
    if present.is_none_or(|is| is.status != status) {
        condition["lastTransitionTime"] = json!(now);
    }
    Some(json!({ "status": { "conditions": [condition] } }))
}

/// RFC 3339 in whole seconds, as Kubernetes writes times.
fn seconds(time: Timestamp) -> String {
    let whole = time.round(jiff::Unit::Second).unwrap_or(time);
    (whole + SignedDuration::ZERO).to_string()
}

/// Whether kubelet gives containers CPUs of their own.
fn has_cpu_manager(kubelet: &Path) -> bool {
    let state = fs::read(kubelet.join("cpu_manager_state")).unwrap_or_default();
    let state: Value = serde_json::from_slice(&state).unwrap_or_default();
    state["policyName"] == "static"
}

async fn within<T>(deadline: Duration, call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
    let late = || kube::Error::Service(format!("no answer within {} s", deadline.as_secs()).into());
    timeout(deadline, call).await.unwrap_or_else(|_| Err(late()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn node(value: Value) -> core::Node {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_condition_is_written_once() {
        let bad = Verdict { problems: vec!["no tun".to_owned()], notes: Vec::new() };
        let at: Timestamp = "2026-11-22T03:13:22.7Z".parse().unwrap();
        let patch = condition(&core::Node::default(), &bad, at).unwrap();
        let written = &patch["status"]["conditions"][0];
        assert_eq!((&written["status"], &written["message"]), (&json!("False"), &json!("no tun")));
        assert_eq!(written["lastTransitionTime"], "2026-11-22T03:13:23Z");
        let node = node(patch.clone());
        assert_eq!(condition(&node, &bad, at), None);
        let worse = Verdict { problems: vec!["no tun".to_owned(), "no CNI".to_owned()], notes: Vec::new() };
        let patch = condition(&node, &worse, at).unwrap();
        assert_eq!(patch["status"]["conditions"][0].get("lastTransitionTime"), None);
    }

    #[test]
    fn a_node_that_somebody_else_labels_is_left_alone() {
        let skipped =
            node(json!({"metadata": {"annotations": {SKIP: "true"}, "labels": {"kubevirt.io/cpumanager": "x"}}}));
        let wanted =
            [(SCHEDULABLE.to_owned(), "true".to_owned()), ("cpumanager".to_owned(), "false".to_owned())].into();
        let changes = changes(&skipped, &wanted);
        assert_eq!(changes, [(SCHEDULABLE.to_owned(), Some("true".to_owned()))].into());
    }
}
