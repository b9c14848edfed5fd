//! The node's labels: which CPUs, features and machines a VM can have here, under the names that KubeVirt's users and
//! scheduling rules know. Pure.

mod host;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

pub use host::{Host, HostError};

/// Whether VMs may be scheduled here.
pub const SCHEDULABLE: &str = "kubevirt.io/schedulable";
/// On the node of somebody who labels it himself.
pub const SKIP: &str = "node-labeller.kubevirt.io/skip-node";

const CPU_MODEL: &str = "cpu-model.node.kubevirt.io/";
const CPU_MODEL_MIGRATION: &str = "cpu-model-migration.node.kubevirt.io/";
const CPU_FEATURE: &str = "cpu-feature.node.kubevirt.io/";
const CPU_VENDOR: &str = "cpu-vendor.node.kubevirt.io/";
const CPU_TIMER: &str = "cpu-timer.node.kubevirt.io/";
const HOST_MODEL: &str = "host-model-cpu.node.kubevirt.io/";
const HOST_MODEL_FEATURE: &str = "host-model-required-features.node.kubevirt.io/";
const HYPERV: &str = "hyperv.node.kubevirt.io/";
const MACHINE: &str = "machine-type.node.kubevirt.io/";
const TSC_SCHEDULING: &str = "scheduling.node.kubevirt.io/tsc-frequency-";
const OBSOLETE_HOST_MODEL: &str = "node-labeller.kubevirt.io/obsolete-host-model";
const CPU_MANAGER: [&str; 2] = ["cpumanager", "kubevirt.io/cpumanager"];
const KSM: &str = "kubevirt.io/ksm-enabled";

/// Labels that begin so are ours.
const PREFIXES: [&str; 10] = [
    CPU_MODEL,
    CPU_MODEL_MIGRATION,
    CPU_FEATURE,
    CPU_VENDOR,
    CPU_TIMER,
    HOST_MODEL,
    HOST_MODEL_FEATURE,
    HYPERV,
    MACHINE,
    TSC_SCHEDULING,
];
/// And so are these.
const NAMES: [&str; 5] = [SCHEDULABLE, OBSOLETE_HOST_MODEL, CPU_MANAGER[0], CPU_MANAGER[1], KSM];

/// CPU models that are too old to be offered, unless the configuration says otherwise.
const OBSOLETE: [&str; 17] = [
    "486",
    "Conroe",
    "Opteron_G1",
    "Opteron_G2",
    "athlon",
    "core2duo",
    "coreduo",
    "kvm32",
    "kvm64",
    "n270",
    "pentium",
    "pentium2",
    "pentium3",
    "pentiumpro",
    "phenom",
    "qemu32",
    "qemu64",
];

/// What is known of the node beside its CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Whether VMs can run here.
    pub schedulable: bool,
    /// Whether kubelet gives whole CPUs to containers.
    pub cpu_manager: bool,
    /// Whether the kernel merges equal pages.
    pub ksm: bool,
}

/// Whether a label is one that we set or take away.
#[must_use]
pub fn is_ours(label: &str) -> bool {
    NAMES.contains(&label) || PREFIXES.iter().any(|prefix| label.starts_with(prefix))
}

/// The CPU models that are not offered: the usual ones, changed by the configuration's `obsoleteCPUModels`.
#[must_use]
pub fn obsolete(configured: &BTreeMap<String, bool>) -> BTreeSet<String> {
    let mut all: BTreeSet<String> = OBSOLETE.map(str::to_owned).into();
    for (model, obsolete) in configured {
        if *obsolete {
            all.insert(model.clone());
        } else {
            all.remove(model);
        }
    }
    all
}

/// All labels that the node shall have from us.
#[must_use]
pub fn of(node: Node, host: Option<&Host>, obsolete: &BTreeSet<String>) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    let mut set = |name: String, value: String| {
        // A name that cannot be a label's would make the API server refuse all of them.
        if is_label(&name) {
            labels.insert(name, value);
        }
    };
    set(SCHEDULABLE.to_owned(), node.schedulable.to_string());
    for name in CPU_MANAGER {
        set(name.to_owned(), node.cpu_manager.to_string());
    }
    set(KSM.to_owned(), node.ksm.to_string());
    let Some(host) = host else { return labels };
    let yes = || "true".to_owned();
    for machine in &host.machines {
        set(format!("{MACHINE}{machine}"), yes());
    }
    for (model, usable) in host.models.iter().filter(|(model, _)| !obsolete.contains(*model)) {
        set(format!("{CPU_MODEL_MIGRATION}{model}"), yes());
        if *usable {
            set(format!("{CPU_MODEL}{model}"), yes());
        }
    }
    for feature in &host.features {
        set(format!("{CPU_FEATURE}{feature}"), yes());
    }
    if let Some(model) = &host.host_model {
        set(format!("{HOST_MODEL}{model}"), yes());
        if obsolete.contains(model) {
            set(OBSOLETE_HOST_MODEL.to_owned(), yes());
        }
    }
    for feature in &host.host_model_features {
        set(format!("{HOST_MODEL_FEATURE}{feature}"), yes());
    }
    for feature in &host.hyperv {
        set(format!("{HYPERV}{feature}"), yes());
    }
    if let Some(vendor) = &host.vendor {
        set(format!("{CPU_VENDOR}{vendor}"), yes());
    }
    if let Some((frequency, scalable)) = host.tsc {
        set(format!("{CPU_TIMER}tsc-frequency"), frequency.to_string());
        set(format!("{CPU_TIMER}tsc-scalable"), scalable.to_string());
        set(format!("{TSC_SCHEDULING}{frequency}"), yes());
    }
    labels
}

/// What has to change in `present` to make our labels the wanted ones: a value, or none to take a label away.
#[must_use]
pub fn changes(
    present: &BTreeMap<String, String>,
    wanted: &BTreeMap<String, String>,
) -> BTreeMap<String, Option<String>> {
    let stale = present.keys().filter(|name| is_ours(name) && !wanted.contains_key(*name));
    let stale = stale.map(|name| (name.clone(), None));
    let other = wanted.iter().filter(|(name, value)| present.get(*name) != Some(value));
    stale.chain(other.map(|(name, value)| (name.clone(), Some(value.clone())))).collect()
}

/// Whether the part behind the slash can be a label's name.
fn is_label(name: &str) -> bool {
    let name = name.rsplit_once('/').map_or(name, |(_, name)| name);
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    name.len() <= 63 && name.chars().all(inner) && edge(name.chars().next()) && edge(name.chars().last())
}
