//! Replays the life of one VM under KubeVirt 1.9: each state of the VM that was seen is one that
//! `vm_status` computes, and each thing that the controller did is what `decide` decides.
//!
//! `data/lifecycle.jsonl` holds one change in each line: created halted, started, paused, unpaused,
//! its template changed, `Manual`, restarted, stopped, `RerunOnFailure`, stopped, started, `Always`,
//! restarted, deleted. It was recorded from outside, so a line's VM may be computed from the VMI
//! before the latest one.
#![allow(clippy::unwrap_used)]

use holdfast_api::kubevirt::{VirtualMachine, VirtualMachineInstance, VirtualMachineInstanceTemplateSpec};
use holdfast_api::run_strategy::{Action, Observed, decide, vm_status};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

const LINES: &str = include_str!("data/lifecycle.jsonl");

/// From which second the VM had which run strategy: what the recorder did, which no line says.
const STRATEGIES: [(f64, &str); 5] =
    [(0.0, "Halted"), (3.4, "Always"), (30.9, "Manual"), (53.6, "RerunOnFailure"), (74.5, "Always")];
/// When the template was changed.
const TEMPLATE_CHANGED: f64 = 25.8;

fn lines() -> Vec<Value> {
    LINES.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn time(line: &Value) -> f64 {
    line["t"].as_f64().unwrap()
}

/// The VM at a time, with a status.
fn vm(seconds: f64, deleting: bool, finalizers: &Value, status: &Value) -> VirtualMachine {
    let strategy = STRATEGIES.iter().rev().find(|(from, _)| *from <= seconds).unwrap().1;
    let deleted = deleting.then_some("2026-01-01T00:00:00Z");
    let hostname = (seconds >= TEMPLATE_CHANGED).then_some("changed");
    serde_json::from_value(json!({
        "metadata": {"name": "w1", "generation": 1, "deletionTimestamp": deleted, "finalizers": finalizers},
        "spec": {"runStrategy": strategy,
            "template": {"spec": {"hostname": hostname, "domain": {"devices": {}}}}},
        "status": status,
    }))
    .unwrap()
}

/// The VMI of a line. Its uid is the one that the next request to stop names, before another VMI.
fn vmi(lines: &[Value], index: usize) -> VirtualMachineInstance {
    let line = &lines[index];
    let uid = lines[index..]
        .iter()
        .take_while(|later| time(later) == time(line) || later["type"] != "ADDED")
        .find_map(|later| later["stateChangeRequests"][0]["uid"].as_str())
        .unwrap_or("last");
    let deleted = (line["deleting"] == true).then_some("2026-01-01T00:00:00Z");
    serde_json::from_value(json!({
        "metadata": {"name": "w1", "uid": uid, "deletionTimestamp": deleted, "finalizers": line["finalizers"]},
        "spec": {"domain": {"devices": {}}},
        "status": {"phase": line["phase"], "conditions": line["conditions"],
            // That it ran tells an end from a failure to start.
            "phaseTransitionTimestamps": [{"phase": "Running"}]},
    }))
    .unwrap()
}

/// The fields of a status that lines have.
fn fields(status: &Value) -> Value {
    let conditions: Vec<Value> = status["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|c| json!([c["type"], c["status"], c["reason"], c["message"]]))
        .collect();
    let mut fields = json!({ "conditions": conditions });
    for key in ["created", "printableStatus", "ready", "runStrategy", "stateChangeRequests"] {
        fields[key] = status[key].clone();
    }
    fields
}

/// Without what differs for a moment: `RestartRequired` goes, and the run strategy is noted, when
/// the next VMI is created there, and when it is seen here.
fn settled(mut fields: Value) -> Value {
    if fields["created"].is_null() {
        fields["runStrategy"] = Value::Null;
        fields["conditions"].as_array_mut().unwrap().retain(|condition| condition[0] != "RestartRequired");
    }
    fields
}

#[test]
fn every_state_of_the_vm_is_one_that_we_compute() {
    let lines = lines();
    let mut before = json!({});
    let mut seen: Vec<Option<VirtualMachineInstance>> = vec![None];
    let mut started: Option<VirtualMachineInstanceTemplateSpec> = None;
    let mut compared = 0;
    for (index, line) in lines.iter().enumerate() {
        if line["kind"] == "VirtualMachineInstance" {
            if line["type"] == "ADDED" {
                started = Some(vm(time(line), false, &json!([]), &json!({})).spec.template);
            }
            seen.push((line["type"] != "DELETED").then(|| vmi(&lines, index)));
            continue;
        }
        // The first states come before the first pass of the controller.
        if line["conditions"].as_array().unwrap().is_empty() {
            continue;
        }
        let given = &line["stateChangeRequests"];
        let asked = given.as_array().is_some_and(|given| {
            let before = before["stateChangeRequests"].as_array().cloned().unwrap_or_default();
            !before.ends_with(given)
        });
        if asked {
            before["stateChangeRequests"] = given.clone();
        }
        let vm = vm(time(line), line["deleting"] == true, &line["finalizers"], &before);
        let computed: Vec<Value> = seen
            .iter()
            .map(|vmi| {
                let status = vm_status(&Observed {
                    vm: &vm,
                    vmi: vmi.as_ref(),
                    started: started.as_ref(),
                    hot_plug: false,
                    failure: None,
                    now: Timestamp::UNIX_EPOCH,
                    jitter: 0.0,
                });
                settled(fields(&json!(status)))
            })
            .collect();
        let expected = settled(fields(line));
        // A line may also be what a subresource or a deletion changed, before the controller.
        let by_api = (asked || line["deleting"] == true) && expected == settled(fields(&before));
        assert!(
            by_api || computed.contains(&expected),
            "at {}\nexpected {expected}\ncomputed {computed:#?}",
            line["t"]
        );
        before = line.clone();
        seen = seen.pop().into_iter().collect();
        compared += 1;
    }
    assert!(compared > 50, "{compared}");
}

#[test]
fn everything_that_was_done_is_what_we_decide() {
    let lines = lines();
    let (mut status, mut finalizers) = (json!({}), json!([]));
    let mut live: Option<VirtualMachineInstance> = None;
    let mut deleting = false;
    let mut actions = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        if line["kind"] == "VirtualMachine" {
            if line["finalizers"].is_array() && finalizers == json!([]) {
                let new = vm(time(line), false, &finalizers, &status);
                assert_eq!(decide(&new, None, Timestamp::UNIX_EPOCH), Action::AddFinalizer);
                actions.push("AddFinalizer");
            }
            if line["type"] == "DELETED" {
                let vm = vm(time(line), true, &finalizers, &status);
                assert_eq!(decide(&vm, None, Timestamp::UNIX_EPOCH), Action::ReleaseVm);
                actions.push("ReleaseVm");
            }
            finalizers = line.get("finalizers").cloned().unwrap_or(finalizers);
            deleting = line["deleting"] == true;
            status = line.clone();
            continue;
        }
        let next = (line["type"] != "DELETED").then(|| vmi(&lines, index));
        // The VM as the controller saw it: a stop whose VMI is gone is taken from the list first.
        let mut current = vm(time(line), deleting, &finalizers, &status);
        if live.is_none() {
            let observed = Observed {
                vm: &current.clone(),
                vmi: None,
                started: None,
                hot_plug: false,
                failure: None,
                now: Timestamp::UNIX_EPOCH,
                jitter: 0.0,
            };
            current.status = Some(vm_status(&observed));
        }
        let decided = decide(&current, live.as_ref(), Timestamp::UNIX_EPOCH);
        let held = |vmi: &VirtualMachineInstance| vmi.metadata.finalizers.as_ref().unwrap().len() == 2;
        let gone = |vmi: &VirtualMachineInstance| vmi.metadata.deletion_timestamp.is_some();
        match (&live, &next) {
            (None, Some(_)) => {
                assert_eq!(decided, Action::CreateVmi { paused: false }, "at {}", line["t"]);
                actions.push("CreateVmi");
            }
            (Some(old), Some(new)) if gone(new) && !gone(old) => {
                let uid = old.metadata.uid.clone().unwrap();
                assert_eq!(decided, Action::DeleteVmi { uid, start_again: false }, "at {}", line["t"]);
                actions.push("DeleteVmi");
            }
            (Some(old), Some(new)) if held(old) && !held(new) => {
                assert_eq!(decided, Action::ReleaseVmi, "at {}", line["t"]);
                actions.push("ReleaseVmi");
            }
            // What the node reports needs nothing of the controller.
            (Some(old), Some(_)) if !gone(old) => assert_eq!(decided, Action::Nothing, "at {}", line["t"]),
            _ => {}
        }
        live = next;
    }
    let one_run = ["CreateVmi", "DeleteVmi", "ReleaseVmi"];
    let expected = [&["AddFinalizer"][..], &one_run.repeat(5), &["ReleaseVm"]].concat();
    assert_eq!(actions, expected);
}
