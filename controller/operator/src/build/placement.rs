//! Where pods run: what the user wants, on top of what is so by default.

use holdfast_api::kubevirt::{ComponentConfig, NodePlacement};
use serde_json::{Map, Value, json};

/// Affinity of a component that serves the cluster: on a node of the control plane rather than elsewhere, and its
/// pods apart. Nothing of that is required, so that it runs on clusters without such nodes.
pub(super) fn infra_affinity(component: &str) -> Value {
    json!({
        "nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{
            "weight": 100,
            "preference": {"matchExpressions": [
                {"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"},
            ]},
        }]},
        "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{
            "weight": 1,
            "podAffinityTerm": {
                "labelSelector": {"matchExpressions": [
                    {"key": "kubevirt.io", "operator": "In", "values": [component]},
                ]},
                "topologyKey": "kubernetes.io/hostname",
            },
        }]},
    })
}

/// Taints that a component which serves the cluster puts up with.
pub(super) fn infra_tolerations() -> Value {
    json!([
        {"key": "CriticalAddonsOnly", "operator": "Exists"},
        {"key": "node-role.kubernetes.io/control-plane", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "node-role.kubernetes.io/master", "operator": "Exists", "effect": "NoSchedule"},
    ])
}

/// Puts what the user wants into a pod's spec. Labels of nodes and taints come on top of what is there; of the three
/// kinds of affinity, a kind that is given takes the place of ours.
pub(super) fn place(pod: &mut Value, config: Option<&ComponentConfig>) {
    let Some(NodePlacement { node_selector, affinity, tolerations }) = config.and_then(|c| c.node_placement.as_ref())
    else {
        return;
    };
    for (key, value) in node_selector {
        pod["nodeSelector"][key] = json!(value);
    }
    if let Some(Value::Object(given)) = affinity.as_ref().and_then(|affinity| serde_json::to_value(affinity).ok()) {
        let ours = pod["affinity"].as_object_mut().map(std::mem::take).unwrap_or_default();
        pod["affinity"] = Value::Object(ours.into_iter().chain(given).collect::<Map<_, _>>());
    }
    if !tolerations.is_empty() {
        let mut all = pod["tolerations"].as_array().cloned().unwrap_or_default();
        all.extend(tolerations.iter().filter_map(|toleration| serde_json::to_value(toleration).ok()));
        pod["tolerations"] = Value::Array(all);
    }
}
