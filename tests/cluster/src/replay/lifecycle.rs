//! The life of a VM: the same acts, and the states that a client sees between them.
//!
//! Writes may be merged, so a state that upstream showed for a moment may be missing; but none comes that upstream
//! did not show, none comes in another order, and those that clients wait for (a VM's printableStatus, a VMI's
//! phase from Scheduling on) all come.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use hyper::Method;
use serde_json::{Value, json};

use super::stage::vm;
use super::{Difference, Outcome, lines};
use crate::api::{Api, conditions};

const NAMESPACE: &str = "/apis/kubevirt.io/v1/namespaces/default";
const SUBRESOURCES: &str = "/apis/subresources.kubevirt.io/v1/namespaces/default";
const NAME: &str = "life";
const DEADLINE: Duration = Duration::from_secs(120);

/// States of one kind, each once, in order.
type Seen = Vec<Value>;

/// Replays the acts of the record and compares the states.
///
/// # Errors
/// Where the cluster does not answer, or an act does not lead on.
pub async fn lifecycle(api: &Api, path: &Path) -> Result<Outcome> {
    let record = lines(path)?;
    let watcher = Watcher::start(api.clone());
    act(api, &watcher).await?;
    let Watched { vm, vmi, .. } = watcher.end();
    let mut outcome = Outcome { compared: record.len(), ..Outcome::default() };
    for (kind, ours) in [("VirtualMachine", vm), ("VirtualMachineInstance", vmi)] {
        let seen = in_order(record.iter().filter(|line| line["kind"] == kind).map(recorded));
        judge(kind, &seen, &ours, &mut outcome);
    }
    Ok(outcome)
}

fn judge(kind: &str, seen: &Seen, ours: &Seen, outcome: &mut Outcome) {
    // The same states come again with each start, so what does not fit is what the longest common order leaves out.
    for state in left_out(seen, ours) {
        outcome.differences.push(Difference::new(
            format!("{kind} {}", brief(state)),
            &json!("not in this order"),
            state,
        ));
    }
    let (waited, shown) = (in_order(seen.iter().filter_map(waited_for)), in_order(ours.iter().filter_map(waited_for)));
    if waited != shown {
        outcome.differences.push(Difference::new(
            format!("{kind} what clients wait for"),
            &json!(waited),
            &json!(shown),
        ));
    }
}

/// The states of ours that are not part of a longest common subsequence of both.
fn left_out<'a>(seen: &Seen, ours: &'a Seen) -> Vec<&'a Value> {
    let mut longest = vec![vec![0; ours.len() + 1]; seen.len() + 1];
    for (i, known) in seen.iter().enumerate().rev() {
        for (j, state) in ours.iter().enumerate().rev() {
            longest[i][j] =
                if known == state { longest[i + 1][j + 1] + 1 } else { longest[i + 1][j].max(longest[i][j + 1]) };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut rest = Vec::new();
    while j < ours.len() {
        if i < seen.len() && seen[i] == ours[j] {
            (i, j) = (i + 1, j + 1);
        } else if i < seen.len() && longest[i + 1][j] >= longest[i][j + 1] {
            i += 1;
        } else {
            rest.push(&ours[j]);
            j += 1;
        }
    }
    rest
}

fn brief(state: &Value) -> String {
    let main = state["printableStatus"].as_str().or(state["phase"].as_str()).unwrap_or("-");
    format!("{main}, Ready {}", state["ready"].as_str().unwrap_or("-"))
}

fn waited_for(state: &Value) -> Option<Value> {
    if let Some(status) = state["printableStatus"].as_str() {
        return Some(json!(status));
    }
    let phase = state["phase"].as_str()?;
    // What it is called before its pod is there, and how it ended, may pass unseen: the object goes at once.
    (!matches!(phase, "Pending" | "ended")).then(|| json!(phase))
}

fn in_order(states: impl Iterator<Item = Value>) -> Seen {
    let mut seen: Seen = Vec::new();
    for state in states {
        if seen.last() != Some(&state) {
            seen.push(state);
        }
    }
    seen
}

/// A line of the record as a state.
fn recorded(line: &Value) -> Value {
    let of = |kind: &str| {
        let list = line["conditions"].as_array().cloned().unwrap_or_default();
        list.into_iter().find(|condition| condition["type"] == kind).unwrap_or_default()
    };
    let (ready, paused, restart) = (of("Ready"), of("Paused"), of("RestartRequired"));
    state(&line["printableStatus"], &line["phase"], &ready, &paused, &restart, line["deleting"] == true)
}

/// An object as a state.
fn shown(object: &Value) -> Value {
    let all = conditions(object);
    let of = |kind: &str| all.get(kind).cloned().unwrap_or_default();
    let status = &object["status"];
    let (ready, paused, restart) = (of("Ready"), of("Paused"), of("RestartRequired"));
    let deleting = object["metadata"]["deletionTimestamp"].is_string();
    state(&status["printableStatus"], &status["phase"], &ready, &paused, &restart, deleting)
}

fn state(printable: &Value, phase: &Value, ready: &Value, paused: &Value, restart: &Value, deleting: bool) -> Value {
    let text = |condition: &Value| match (condition["status"].as_str(), condition["reason"].as_str()) {
        (None, _) => Value::Null,
        // A pod that is terminating may be gone before it is looked at.
        (Some(status), Some("PodNotExists")) => json!(format!("{status} PodTerminating")),
        (Some(status), reason) => json!(format!("{status} {}", reason.unwrap_or_default()).trim_end()),
    };
    // How a guest without an operating system ends depends on who is first: its power button or its grace period.
    let phase = if *phase == "Succeeded" || *phase == "Failed" { &json!("ended") } else { phase };
    json!({"printableStatus": printable, "phase": phase, "ready": text(ready), "paused": text(paused),
        "restartRequired": text(restart), "deleting": deleting})
}

/// What was seen.
#[derive(Clone, Default)]
struct Watched {
    vm: Seen,
    vmi: Seen,
    /// The VM, as it was seen last.
    last: Value,
}

/// Reads both objects again and again and keeps each state once. A watch would see more; what passes within a look
/// is what may be merged. What is waited for here is waited for as it was seen, so that it is seen.
struct Watcher {
    watched: Arc<Mutex<Watched>>,
    task: tokio::task::JoinHandle<()>,
}

impl Watcher {
    fn start(api: Api) -> Self {
        let watched = Arc::new(Mutex::new(Watched::default()));
        let told = Arc::clone(&watched);
        let task = tokio::spawn(async move {
            loop {
                for (plural, is_vm) in [("virtualmachines", true), ("virtualmachineinstances", false)] {
                    if let Ok(Some(object)) = api.get(&format!("{NAMESPACE}/{plural}/{NAME}")).await {
                        let state = shown(&object);
                        let mut watched = told.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                        let list = if is_vm { &mut watched.vm } else { &mut watched.vmi };
                        if list.last() != Some(&state) {
                            list.push(state);
                        }
                        if is_vm {
                            watched.last = object;
                        }
                    }
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        Self { watched, task }
    }

    fn now(&self) -> Watched {
        self.watched.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn end(self) -> Watched {
        self.task.abort();
        self.now()
    }
}

/// The VM as clients see it, and as it is watched.
#[derive(Clone, Copy)]
struct Life<'a> {
    api: &'a Api,
    watcher: &'a Watcher,
}

async fn act(api: &Api, watcher: &Watcher) -> Result<()> {
    let life = Life { api, watcher };
    let vms = format!("{NAMESPACE}/virtualmachines");
    let path = format!("{vms}/{NAME}");
    api.delete(&path).await?;
    api.call(Method::POST, &vms, &vm(NAME, "Halted")).await?.ok()?;
    status(life, "Stopped").await?;
    verb(api, "virtualmachines", "start", &json!({})).await?;
    ready(life).await?;
    verb(api, "virtualmachineinstances", "pause", &json!({})).await?;
    status(life, "Paused").await?;
    not_ready(life).await?;
    verb(api, "virtualmachineinstances", "unpause", &json!({})).await?;
    ready(life).await?;
    let cores = json!({"spec": {"template": {"spec": {"domain": {"cpu": {"cores": 2}}}}}});
    api.call(Method::PATCH, &path, &cores).await?.ok()?;
    until(life, "a restart is required", |vm| conditions(vm).contains_key("RestartRequired")).await?;
    strategy(api, &path, "Manual").await?;
    let before = uid(api).await?;
    verb(api, "virtualmachines", "restart", &json!({})).await?;
    another(life, &before).await?;
    verb(api, "virtualmachines", "stop", &json!({"gracePeriod": 0})).await?;
    gone(life).await?;
    strategy(api, &path, "RerunOnFailure").await?;
    ready(life).await?;
    verb(api, "virtualmachines", "stop", &json!({})).await?;
    gone(life).await?;
    verb(api, "virtualmachines", "start", &json!({})).await?;
    ready(life).await?;
    strategy(api, &path, "Always").await?;
    let before = uid(api).await?;
    verb(api, "virtualmachines", "restart", &json!({})).await?;
    another(life, &before).await?;
    api.delete(&path).await
}

async fn verb(api: &Api, plural: &str, verb: &str, body: &Value) -> Result<()> {
    let path = format!("{SUBRESOURCES}/{plural}/{NAME}/{verb}");
    api.call(Method::PUT, &path, body).await?.ok().with_context(|| verb.to_owned()).map(drop)
}

async fn strategy(api: &Api, path: &str, strategy: &str) -> Result<()> {
    api.call(Method::PATCH, path, &json!({"spec": {"runStrategy": strategy}})).await?.ok()?;
    Ok(())
}

async fn until(life: Life<'_>, what: &str, is: impl Fn(&Value) -> bool) -> Result<Value> {
    life.api.until(what, DEADLINE, async || Ok(Some(life.watcher.now().last).filter(|vm| is(vm)))).await
}

async fn status(life: Life<'_>, wanted: &str) -> Result<()> {
    until(life, &format!("the VM is {wanted}"), |vm| vm["status"]["printableStatus"] == wanted).await.map(drop)
}

async fn ready(life: Life<'_>) -> Result<()> {
    until(life, "the VM is ready", |vm| vm["status"]["ready"] == true && vm["status"]["printableStatus"] == "Running")
        .await
        .map(drop)
}

async fn not_ready(life: Life<'_>) -> Result<()> {
    until(life, "the VM is not ready", |vm| vm["status"]["ready"] != true).await.map(drop)
}

async fn uid(api: &Api) -> Result<Value> {
    let vmi = api.get(&format!("{NAMESPACE}/virtualmachineinstances/{NAME}")).await?.context("there is no VMI")?;
    Ok(vmi["metadata"]["uid"].clone())
}

async fn another(life: Life<'_>, before: &Value) -> Result<()> {
    let path = format!("{NAMESPACE}/virtualmachineinstances/{NAME}");
    let there = life.api.until("another VMI is there", DEADLINE, async || {
        Ok(life.api.get(&path).await?.filter(|vmi| vmi["metadata"]["uid"] != *before))
    });
    there.await?;
    ready(life).await
}

async fn gone(life: Life<'_>) -> Result<()> {
    let path = format!("{NAMESPACE}/virtualmachineinstances/{NAME}");
    life.api
        .until("the VMI is gone", DEADLINE, async || Ok(life.api.get(&path).await?.is_none().then_some(())))
        .await?;
    status(life, "Stopped").await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vm(printable: &str, ready: &str) -> Value {
        json!({"printableStatus": printable, "phase": null, "ready": ready, "paused": null, "restartRequired": null,
            "deleting": false})
    }

    #[test]
    fn merged_is_fine_and_reordered_or_left_out_is_not() {
        let seen = vec![vm("Stopped", "a"), vm("Starting", "a"), vm("Starting", "b"), vm("Running", "c")];
        let differences = |ours: &Seen| {
            let mut outcome = Outcome::default();
            judge("VirtualMachine", &seen, ours, &mut outcome);
            outcome.differences.into_iter().map(|difference| difference.what).collect::<Vec<_>>()
        };
        assert!(differences(&vec![vm("Stopped", "a"), vm("Starting", "b"), vm("Running", "c")]).is_empty());
        let left_out = differences(&vec![vm("Stopped", "a"), vm("Running", "c")]);
        assert_eq!(left_out, ["VirtualMachine what clients wait for"]);
        let reordered = differences(&vec![vm("Starting", "b"), vm("Starting", "a"), vm("Running", "c")]);
        assert!(reordered.contains(&"VirtualMachine Starting, Ready a".to_owned()), "{reordered:?}");
    }
}
