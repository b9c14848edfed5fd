//! The CustomResourceDefinitions: the files that `cargo xtask crds` writes.
//!
//! They go to the API server as they are. As values they would take tens of megabytes of memory, for as long as the
//! operator runs.

use serde_json::Value;

use crate::object::Desired;

macro_rules! definitions {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../../../deploy/crds/", $name, ".yaml")))),*]
    };
}

/// All but that of the KubeVirt object itself, which is there before the operator and after it.
pub(super) const DEFINITIONS: &[(&str, &str)] = definitions![
    "ipleases.holdfast.io",
    "macleases.holdfast.io",
    "migrationpolicies.migrations.kubevirt.io",
    "underlaynetworks.holdfast.io",
    "virtualmachineclusterinstancetypes.instancetype.kubevirt.io",
    "virtualmachineclusterpreferences.instancetype.kubevirt.io",
    "virtualmachineinstancemigrations.kubevirt.io",
    "virtualmachineinstancepresets.kubevirt.io",
    "virtualmachineinstancereplicasets.kubevirt.io",
    "virtualmachineinstances.kubevirt.io",
    "virtualmachineinstancetypes.instancetype.kubevirt.io",
    "virtualmachinepools.pool.kubevirt.io",
    "virtualmachinepreferences.instancetype.kubevirt.io",
    "virtualmachines.kubevirt.io",
];

/// The kind of Multus's networks, for clusters that have it from nobody else. It bears no mark of ours, and so stays
/// when we go: others may have made such objects by then.
pub const NETWORK_ATTACHMENT_DEFINITION: &str = include_str!("network-attachment-definition.yaml");

pub(super) fn build(labels: &Value) -> Vec<Desired> {
    DEFINITIONS.iter().map(|(name, text)| Desired::definition(name, text, labels.clone())).collect()
}

/// Whether a kind, named `plural.group`, is installed.
pub(super) fn served(name: &str) -> bool {
    DEFINITIONS.iter().any(|(defined, _)| *defined == name)
}

/// Group with version, and the plurals in it, of each kind that components use: what the API server must serve before
/// they start.
pub fn served_versions() -> impl Iterator<Item = (&'static str, &'static str)> {
    [
        ("kubevirt.io/v1", "virtualmachines"),
        ("kubevirt.io/v1", "virtualmachineinstances"),
        ("kubevirt.io/v1", "virtualmachineinstancereplicasets"),
        ("pool.kubevirt.io/v1beta1", "virtualmachinepools"),
        ("instancetype.kubevirt.io/v1beta1", "virtualmachineinstancetypes"),
        ("holdfast.io/v1alpha1", "underlaynetworks"),
        ("holdfast.io/v1alpha1", "ipleases"),
        ("holdfast.io/v1alpha1", "macleases"),
        ("k8s.cni.cncf.io/v1", "network-attachment-definitions"),
    ]
    .into_iter()
}
