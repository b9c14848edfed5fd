//! Where a VMI's pod may run.

use std::collections::BTreeMap;

use holdfast_api::kubevirt::VirtualMachineInstance;
use k8s_openapi::api::core::v1::{Affinity, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};

/// Label of a node whose CPU model was superseded under VMs that run there.
const OBSOLETE_HOST_MODEL: &str = "node-labeller.kubevirt.io/obsolete-host-model";

/// Labels that the node must have: those that the user asks for, and what its hardware must be able to.
pub fn node_selector(vmi: &VirtualMachineInstance, emulation: bool) -> BTreeMap<String, String> {
    let spec = &vmi.spec;
    let mut labels = spec.node_selector.clone();
    let mut must = |key: String, value: &str| {
        labels.insert(key, value.to_owned());
    };
    must("kubevirt.io/schedulable".to_owned(), "true");
    if let Some(architecture) = &spec.architecture {
        must("kubernetes.io/arch".to_owned(), architecture);
    }
    let machine = spec.domain.machine.as_ref().and_then(|machine| machine.r#type.as_deref());
    if let Some(machine) = machine.filter(|machine| !machine.is_empty()) {
        must(format!("machine-type.node.kubevirt.io/{machine}"), "true");
    }
    let cpu = spec.domain.cpu.as_ref();
    let model = cpu.and_then(|cpu| cpu.model.as_deref()).unwrap_or("host-model");
    // An emulated processor takes any model; a real one must have it.
    if !emulation {
        if !matches!(model, "host-model" | "host-passthrough") {
            must(format!("cpu-model.node.kubevirt.io/{model}"), "true");
        }
        for feature in cpu.into_iter().flat_map(|cpu| &cpu.features) {
            if matches!(feature.policy.as_deref(), None | Some("" | "require")) {
                must(format!("cpu-feature.node.kubevirt.io/{}", feature.name), "true");
            }
        }
    }
    labels
}

/// The user's affinity, and none for nodes with an obsolete host model.
pub fn affinity(vmi: &VirtualMachineInstance) -> Affinity {
    let obsolete = NodeSelectorRequirement {
        key: OBSOLETE_HOST_MODEL.to_owned(),
        operator: "DoesNotExist".to_owned(),
        values: None,
    };
    let mut affinity = vmi.spec.affinity.clone().unwrap_or_default();
    let node = affinity.node_affinity.get_or_insert_with(NodeAffinity::default);
    let required = node.required_during_scheduling_ignored_during_execution.get_or_insert_with(NodeSelector::default);
    if required.node_selector_terms.is_empty() {
        required.node_selector_terms.push(NodeSelectorTerm::default());
    }
    // Terms are alternatives: each must hold it.
    for term in &mut required.node_selector_terms {
        term.match_expressions.get_or_insert_default().push(obsolete.clone());
    }
    affinity
}
