//! What the cluster, or the one host, sets for all VMs: input to defaulting and validation.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::kubevirt::{ArchSpecificConfiguration, KubeVirtConfiguration, KubeVirtSpec};

/// The feature gates that are on where nobody says anything: those that upstream calls Beta.
/// What is generally available has no gate, and what is Alpha is off.
pub const BETA_GATES: [&str; 16] = [
    "DeclarativeHotplugVolumes",
    "ExternalNetResourceInjection",
    "GPUsWithDRA",
    "HostDevicesWithDRA",
    "ImageVolume",
    "KubevirtSeccompProfile",
    "LibvirtHooksServerAndClient",
    "NodeRestriction",
    "OptOutRoleAggregation",
    "PasstBinding",
    "PodSecondaryInterfaceNamingUpgrade",
    "RebootPolicy",
    "Snapshot",
    "Template",
    "VmiMemoryOverheadReport",
    "WorkloadEncryptionSEV",
];

/// Architectures, the machine type of a VM that names none, and the types that a VM may name.
const MACHINES: [(&str, &str, &[&str]); 3] = [
    ("amd64", "q35", &["q35*", "pc-q35*"]),
    ("arm64", "virt", &["virt*"]),
    ("s390x", "s390-ccw-virtio", &["s390-ccw-virtio*"]),
];

/// The configuration that defaulting and validation read.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterConfig {
    /// The feature gates that are on, by name, for example `HostDisk`.
    pub feature_gates: BTreeSet<String>,
    /// The architecture of VMs that name none: `amd64`, `arm64` or `s390x`.
    pub architecture: String,
    /// Machine types, by architecture.
    pub machines: BTreeMap<String, Machines>,
    /// The CPU model of amd64 VMs that name none.
    pub cpu_model: String,
    /// What becomes of a VM that names no `evictionStrategy` when its node is drained.
    pub eviction_strategy: String,
    /// Whether a change of a VM that runs is applied to it where that can be done; else each change waits for
    /// the next start.
    pub live_update: bool,
    /// How many times its sockets and its memory a running VM may grow to.
    pub max_hotplug_ratio: u32,
    /// Sockets that a VM may grow to, in the place of the ratio.
    pub max_sockets: Option<u32>,
    /// Memory that a VM may grow to, in the place of the ratio.
    pub max_guest: Option<Quantity>,
    /// The binding of the NIC that a VM without NICs gets: `bridge` or `masquerade`.
    pub default_interface: String,
    /// Whether a NIC on the pod network may be bridged.
    pub bridge_on_pod_network: bool,
    /// Whether a VM runs without hardware virtualisation on a node that has none.
    pub emulation: bool,
}

/// The machine types of one architecture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machines {
    /// That of VMs that name none.
    pub default: String,
    /// Those that a VM may name, as patterns that may end in `*`.
    pub allowed: Vec<String>,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self {
            feature_gates: BETA_GATES.map(str::to_owned).into(),
            architecture: "amd64".to_owned(),
            machines: MACHINES
                .map(|(name, default, allowed)| (name.to_owned(), Machines::new(default, allowed)))
                .into(),
            cpu_model: "host-model".to_owned(),
            eviction_strategy: "None".to_owned(),
            live_update: true,
            max_hotplug_ratio: 4,
            max_sockets: None,
            max_guest: None,
            default_interface: "bridge".to_owned(),
            bridge_on_pod_network: true,
            emulation: false,
        }
    }
}

impl ClusterConfig {
    /// What a KubeVirt object sets. What it leaves out, or sets to nothing, is as by default.
    pub fn of(spec: &KubeVirtSpec) -> Self {
        let mut config = Self::default();
        if let Some(given) = &spec.configuration {
            config.take(given);
        }
        config
    }

    /// Whether a feature gate is on.
    pub fn has(&self, gate: &str) -> bool {
        self.feature_gates.contains(gate)
    }

    /// The machine types of an architecture; those of amd64 for one that is unknown.
    pub fn machines(&self, architecture: &str) -> &Machines {
        static NONE: Machines = Machines { default: String::new(), allowed: Vec::new() };
        self.machines.get(architecture).or_else(|| self.machines.get("amd64")).unwrap_or(&NONE)
    }

    fn take(&mut self, given: &KubeVirtConfiguration) {
        if let Some(developer) = &given.developer_configuration {
            self.feature_gates.extend(developer.feature_gates.iter().cloned());
            for gate in &developer.disabled_feature_gates {
                self.feature_gates.remove(gate);
            }
            self.emulation = developer.use_emulation == Some(true);
        }
        // Older fields are of amd64; the newer ones come after them and win.
        let older = ArchSpecificConfiguration {
            machine_type: given.machine_type.clone(),
            emulated_machines: given.emulated_machines.clone(),
            ovmf_path: None,
        };
        self.take_machines("amd64", Some(&older));
        if let Some(architectures) = &given.architecture_configuration {
            set(&mut self.architecture, architectures.default_architecture.as_ref());
            self.take_machines("amd64", architectures.amd64.as_ref());
            self.take_machines("arm64", architectures.arm64.as_ref());
            self.take_machines("s390x", architectures.s390x.as_ref());
        }
        set(&mut self.cpu_model, given.cpu_model.as_ref());
        set(&mut self.eviction_strategy, given.eviction_strategy.as_ref());
        self.live_update = given.vm_rollout_strategy.as_deref() != Some("Stage");
        if let Some(growth) = &given.live_update_configuration {
            let positive = |number: Option<i64>| number.and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0);
            self.max_hotplug_ratio = positive(growth.max_hotplug_ratio).unwrap_or(self.max_hotplug_ratio);
            self.max_sockets = positive(growth.max_cpu_sockets);
            self.max_guest.clone_from(&growth.max_guest);
        }
        if let Some(network) = &given.network {
            set(&mut self.default_interface, network.default_network_interface.as_ref());
            self.bridge_on_pod_network = network.permit_bridge_interface_on_pod_network != Some(false);
        }
    }

    fn take_machines(&mut self, architecture: &str, given: Option<&ArchSpecificConfiguration>) {
        let (Some(given), Some(machines)) = (given, self.machines.get_mut(architecture)) else { return };
        set(&mut machines.default, given.machine_type.as_ref());
        if !given.emulated_machines.is_empty() {
            machines.allowed.clone_from(&given.emulated_machines);
        }
    }
}

impl Machines {
    fn new(default: &str, allowed: &[&str]) -> Self {
        Self { default: default.to_owned(), allowed: allowed.iter().map(|&pattern| pattern.to_owned()).collect() }
    }
}

/// Sets what is given, unless it is empty.
fn set(field: &mut String, given: Option<&String>) {
    if let Some(given) = given.filter(|given| !given.is_empty()) {
        field.clone_from(given);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(configuration: Value) -> ClusterConfig {
        ClusterConfig::of(&serde_json::from_value(json!({"configuration": configuration})).unwrap())
    }

    #[test]
    fn an_empty_configuration_is_the_default() {
        assert_eq!(ClusterConfig::of(&KubeVirtSpec::default()), ClusterConfig::default());
        assert_eq!(
            of(json!({"cpuModel": "", "developerConfiguration": {"featureGates": []}})),
            ClusterConfig::default()
        );
    }

    #[test]
    fn gates_go_on_and_off() {
        let config = of(json!({"developerConfiguration":
            {"featureGates": ["HostDisk"], "disabledFeatureGates": ["Snapshot"], "useEmulation": true}}));
        assert!(config.has("HostDisk") && config.has("ImageVolume") && !config.has("Snapshot") && !config.has("VSOCK"));
        assert!(config.emulation);
    }

    #[test]
    fn newer_fields_win() {
        let config = of(json!({"machineType": "pc-q35-8.2", "emulatedMachines": ["pc*"],
            "architectureConfiguration": {"amd64": {"machineType": "q35"}, "arm64": {"emulatedMachines": ["virt-9*"]}}}));
        assert_eq!(config.machines("amd64"), &Machines::new("q35", &["pc*"]));
        assert_eq!(config.machines("arm64"), &Machines::new("virt", &["virt-9*"]));
    }

    #[test]
    fn growth_and_networks() {
        let config = of(json!({"vmRolloutStrategy": "Stage", "evictionStrategy": "LiveMigrate",
            "liveUpdateConfiguration": {"maxHotplugRatio": 2, "maxCpuSockets": 8, "maxGuest": "8Gi"},
            "network": {"defaultNetworkInterface": "masquerade", "permitBridgeInterfaceOnPodNetwork": false}}));
        assert_eq!((config.max_hotplug_ratio, config.max_sockets, config.live_update), (2, Some(8), false));
        assert_eq!(config.max_guest, Some(Quantity("8Gi".to_owned())));
        assert_eq!((config.default_interface.as_str(), config.bridge_on_pod_network), ("masquerade", false));
        assert_eq!(config.eviction_strategy, "LiveMigrate");
    }
}
