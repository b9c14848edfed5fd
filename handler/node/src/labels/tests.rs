#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
//! On what libvirt told of a machine, against the labels that upstream gave to one of its kind.

use std::path::Path;

use super::*;

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/machine")
}

#[test]
fn labels_are_those_that_upstream_gave() {
    let host = Host::read(&folder(), false).unwrap();
    let node = Node { schedulable: true, ..Node::default() };
    let mut labels = of(node, Some(&host), &obsolete(&BTreeMap::new()));
    let observed = std::fs::read_to_string(folder().join("observed-labels.json")).unwrap();
    let mut observed: BTreeMap<String, String> = serde_json::from_str(&observed).unwrap();
    // The two machines have the same CPU, but not the same clock.
    for labels in [&mut labels, &mut observed] {
        labels.retain(|name, _| !name.contains("tsc-frequency"));
    }
    assert_eq!(labels, observed);
    assert!(observed.keys().all(|name| is_ours(name)));
}

#[test]
fn the_counter_is_known_from_the_device() {
    let host = Host::read(&folder(), false).unwrap();
    assert_eq!(host.tsc, Some((2_596_148_000, false)));
    let labels = of(Node::default(), Some(&host), &BTreeSet::new());
    assert_eq!(labels["cpu-timer.node.kubevirt.io/tsc-frequency"], "2596148000");
    assert_eq!(labels["scheduling.node.kubevirt.io/tsc-frequency-2596148000"], "true");
}

#[test]
fn kvm_has_another_cpu() {
    let host = Host::read(&folder(), true).unwrap();
    assert!(host.host_model.is_some() && host.host_model.as_deref() != Some("EPYC"), "{:?}", host.host_model);
    assert!(!host.features.is_empty() && host.machines.contains("q35"));
}

#[test]
fn obsolete_models_are_the_configurations() {
    let host = Host { models: [("Penryn".to_owned(), true), ("486".to_owned(), true)].into(), ..Host::default() };
    let host = Host { host_model: Some("Penryn".to_owned()), ..host };
    let configured = [("Penryn".to_owned(), true), ("486".to_owned(), false)].into();
    let labels = of(Node::default(), Some(&host), &obsolete(&configured));
    assert!(labels.contains_key("cpu-model.node.kubevirt.io/486"));
    assert!(!labels.contains_key("cpu-model.node.kubevirt.io/Penryn"));
    assert_eq!(labels["node-labeller.kubevirt.io/obsolete-host-model"], "true");
}

#[test]
fn only_what_differs_changes_and_only_what_is_ours() {
    let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let present = map(&[
        ("kubernetes.io/os", "linux"),
        ("kubevirt.io/schedulable", "false"),
        ("cpu-model.node.kubevirt.io/Gone", "true"),
        ("cpu-vendor.node.kubevirt.io/AMD", "true"),
    ]);
    let wanted = map(&[("kubevirt.io/schedulable", "true"), ("cpu-vendor.node.kubevirt.io/AMD", "true")]);
    let changes = changes(&present, &wanted);
    let expected = [
        ("cpu-model.node.kubevirt.io/Gone".to_owned(), None),
        ("kubevirt.io/schedulable".to_owned(), Some("true".to_owned())),
    ];
    assert_eq!(changes, expected.into());
    assert!(super::changes(&wanted, &wanted).is_empty());
}

#[test]
fn a_name_that_is_no_label_is_left_out() {
    let host = Host { models: [("a b".to_owned(), true), ("x".repeat(64), true)].into(), ..Host::default() };
    assert!(of(Node::default(), Some(&host), &BTreeSet::new()).keys().all(|name| !name.starts_with(CPU_MODEL)));
}
