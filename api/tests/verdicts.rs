//! Replays what KubeVirt 1.9 answered to 230 manifests, each created as a dry run with strict field
//! validation: code, reason, message, causes, and the object as defaulted.
//!
//! `data/verdicts.jsonl` holds one manifest and its answer in each line. What we answer differently
//! is listed in `DIFFERENT` with the reason; the test fails on any other difference, and on an
//! entry of a list that has become untrue.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use holdfast_api::config::ClusterConfig;
use holdfast_api::decode::{Object, decode_value};
use holdfast_api::defaults::{default_vm, default_vmi, stable_identities};
use holdfast_api::error_status::ErrorStatus;
use holdfast_api::validate::{decoding_error, validate_vm, validate_vmi};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

const VERDICTS: &str = include_str!("data/verdicts.jsonl");

/// Kinds that have no type here yet.
const NO_TYPE_YET: [&str; 11] = [
    "KubeVirt",
    "MigrationPolicy",
    "VirtualMachineClone",
    "VirtualMachineExport",
    "VirtualMachineInstanceMigration",
    "VirtualMachineInstanceReplicaSet",
    "VirtualMachineInstancetype",
    "VirtualMachinePool",
    "VirtualMachinePreference",
    "VirtualMachineRestore",
    "VirtualMachineSnapshot",
];

/// Cases that we answer differently, and why.
const DIFFERENT: [(&str, &str); 4] = [
    // KubeVirt reads a required field that is left out as empty or 0, and refuses it later if a
    // rule happens to look at it. We say that it is missing, by its name.
    ("port-missing", "refused in other words: the field is required"),
    ("kernelboot-noimage", "refused in other words: the field is required"),
    ("sound-noname", "refused in other words: the field is required"),
    ("cpu-feature-noname", "refused: a feature without a name is accepted there and fails when the guest starts"),
];

/// The feature gates that were on where an answer says `with_feature_gates`.
const GATES: [&str; 6] =
    ["HostDisk", "HostDevices", "Sidecar", "VSOCK", "DownwardMetrics", "ExperimentalIgnitionSupport"];

/// Our answer to a manifest, in the shape in which the observed ones are.
fn answer(manifest: &Value, config: &ClusterConfig) -> Value {
    match admit(manifest, config) {
        Ok(object) => json!({"code": 201, "object": object}),
        Err(error) => {
            let body = serde_json::to_value(error.to_status()).unwrap();
            json!({"code": error.code, "reason": error.reason, "message": error.message,
                "causes": body["details"]["causes"]})
        }
    }
}

fn admit(manifest: &Value, config: &ClusterConfig) -> Result<Value, ErrorStatus> {
    let mut identities = stable_identities(Uuid::nil());
    match decode_value(manifest.clone()).map_err(|error| decoding_error(&error))? {
        Object::VirtualMachine(mut vm) => {
            default_vm(&mut vm, config, &mut identities);
            validate_vm(&vm, config)?;
            Ok(shape(&vm.metadata, json!(vm.spec), json!(vm.status)))
        }
        Object::VirtualMachineInstance(mut vmi) => {
            default_vmi(&mut vmi, config, &mut identities, Timestamp::UNIX_EPOCH);
            validate_vmi(&vmi, config)?;
            Ok(shape(&vmi.metadata, json!(vmi.spec), json!(vmi.status)))
        }
        other => panic!("{} is not replayed", other.kind()),
    }
}

fn shape(metadata: &ObjectMeta, spec: Value, status: Value) -> Value {
    json!({"annotations": metadata.annotations, "finalizers": metadata.finalizers,
        "labels": metadata.labels, "spec": spec, "status": status})
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
    let (mut skipped, mut differing) = (BTreeSet::new(), BTreeSet::new());
    let plain = ClusterConfig::default();
    let gated = ClusterConfig { feature_gates: GATES.map(str::to_owned).into(), ..ClusterConfig::default() };
    for line in VERDICTS.lines() {
        let verdict: Value = serde_json::from_str(line).unwrap();
        let (case, kind) = (verdict["case"].as_str().unwrap(), verdict["manifest"]["kind"].as_str().unwrap());
        if NO_TYPE_YET.contains(&kind) {
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
            differing.insert(case.to_owned());
        }
        if !same && !DIFFERENT.iter().any(|(known, _)| *known == case) {
            problems.push(format!("{case}:\n  observed {theirs}\n  ours     {ours}"));
        }
    }
    let stale = DIFFERENT.iter().filter(|(case, _)| !differing.contains(*case));
    problems.extend(stale.map(|(case, _)| format!("{case}: listed as different, and it is not")));
    let unseen = NO_TYPE_YET.iter().filter(|kind| !skipped.contains(**kind));
    problems.extend(unseen.map(|kind| format!("{kind}: listed as without a type, and in no line")));
    assert!(problems.is_empty(), "{} problems\n{}", problems.len(), problems.join("\n"));
    assert_eq!(replayed, 211);
}
