//! Replays what KubeVirt 1.9 answered to manifests, each created as a dry run with strict field validation: code,
//! reason, message, causes, and the object as defaulted.
//!
//! `data/verdicts.jsonl` holds one manifest and its answer in each line. The test fails on any difference, for each
//! kind that is served here.
#![allow(clippy::unwrap_used)]

mod apiserver;

use std::collections::BTreeSet;

use holdfast_api::admit::Others;
use holdfast_api::config::ClusterConfig;
use holdfast_api::kubevirt::KubeVirt;
use serde_json::{Value, json};
use uuid::Uuid;

const VERDICTS: &str = include_str!("data/verdicts.jsonl");

/// Kinds that are not served here.
const NOT_SERVED: [&str; 4] =
    ["VirtualMachineClone", "VirtualMachineExport", "VirtualMachineRestore", "VirtualMachineSnapshot"];

/// The cluster of the recording: one installation, and nothing else that an answer depends on.
struct Cluster;

impl Others for Cluster {
    fn kubevirts(&self) -> Vec<KubeVirt> {
        vec![KubeVirt::default()]
    }
}

/// The feature gates that were on where an answer says `with_feature_gates`.
const GATES: [&str; 6] =
    ["HostDisk", "HostDevices", "Sidecar", "VSOCK", "DownwardMetrics", "ExperimentalIgnitionSupport"];

/// Our answer to a manifest, in the shape in which the observed ones are.
fn answer(manifest: &Value, config: &ClusterConfig) -> Value {
    match apiserver::create(manifest, &Cluster, config) {
        Ok(object) => {
            let metadata = &object["metadata"];
            json!({"code": 201, "object": {"annotations": metadata["annotations"],
                "finalizers": metadata["finalizers"], "labels": metadata["labels"], "spec": object["spec"],
                "status": object["status"]}})
        }
        Err(error) => {
            let body = serde_json::to_value(error.to_status()).unwrap();
            json!({"code": error.code, "reason": error.reason, "message": error.message,
                "causes": body["details"]["causes"]})
        }
    }
}

/// Blanks what differs from one answer to the next: new identities and times.
fn without_chance(answer: &mut Value) {
    match answer {
        Value::Object(fields) => {
            for (key, value) in fields {
                let identity = matches!(key.as_str(), "uuid" | "serial")
                    && value.as_str().is_some_and(|text| Uuid::parse_str(text).is_ok());
                if identity || key == "phaseTransitionTimestamp" {
                    *value = json!("set");
                }
                without_chance(value);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(without_chance),
        _ => {}
    }
}

/// The observed answer: without the fields that describe the case, and null for what is not there.
fn observed(verdict: &Value) -> Value {
    if verdict["code"] == 201 {
        return json!({"code": 201, "object": verdict["object"]});
    }
    // An empty list of causes was recorded where the answer has none.
    let causes = verdict["causes"].as_array().filter(|causes| !causes.is_empty());
    json!({"code": verdict["code"], "reason": verdict["reason"], "message": verdict["message"],
        "causes": causes})
}

#[test]
fn every_verdict() {
    let (mut replayed, mut problems) = (0, Vec::new());
    let mut skipped = BTreeSet::new();
    let plain = ClusterConfig::default();
    let mut gated = ClusterConfig::default();
    gated.feature_gates.extend(GATES.map(str::to_owned));
    for line in VERDICTS.lines() {
        let verdict: Value = serde_json::from_str(line).unwrap();
        let (case, kind) = (verdict["case"].as_str().unwrap(), verdict["manifest"]["kind"].as_str().unwrap());
        if !apiserver::serves(kind) {
            skipped.insert(kind.to_owned());
            continue;
        }
        replayed += 1;
        let (mut ours, mut theirs) = (answer(&verdict["manifest"], &plain), observed(&verdict));
        without_chance(&mut ours);
        without_chance(&mut theirs);
        let mut same = ours == theirs;
        if let Some(code) = verdict["with_feature_gates"].get("code") {
            same &= answer(&verdict["manifest"], &gated)["code"] == *code;
        }
        if !same {
            problems.push(format!("{case}:\n  observed {theirs}\n  ours     {ours}"));
        }
    }
    assert!(problems.is_empty(), "{} problems\n{}", problems.len(), problems.join("\n"));
    assert_eq!(skipped, NOT_SERVED.map(str::to_owned).into());
    assert_eq!(replayed, 226);
}
