//! What the cluster, or the one host, sets for all VMs: input to defaulting and validation.

use std::collections::BTreeSet;

/// The configuration that defaulting and validation read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterConfig {
    /// The feature gates that are on, by name, for example `HostDisk`.
    pub feature_gates: BTreeSet<String>,
    /// The architecture of VMs that name none: `amd64`, `arm64` or `s390x`.
    pub architecture: String,
    /// The machine type of amd64 VMs that name none.
    pub machine_type: String,
    /// The machine types that an amd64 VM may name, as patterns that may end in `*`.
    pub emulated_machines: Vec<String>,
    /// The CPU model of amd64 VMs that name none.
    pub cpu_model: String,
    /// What becomes of a VM that names no `evictionStrategy` when its node is drained.
    pub eviction_strategy: String,
    /// How many times its sockets and its memory a running VM may grow to.
    pub max_hotplug_ratio: u32,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self {
            feature_gates: BTreeSet::new(),
            architecture: "amd64".to_owned(),
            machine_type: "q35".to_owned(),
            emulated_machines: vec!["q35*".to_owned(), "pc-q35*".to_owned()],
            cpu_model: "host-model".to_owned(),
            eviction_strategy: "None".to_owned(),
            max_hotplug_ratio: 4,
        }
    }
}

impl ClusterConfig {
    /// Whether a feature gate is on.
    pub fn has(&self, gate: &str) -> bool {
        self.feature_gates.contains(gate)
    }
}
