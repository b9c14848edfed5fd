//! Settings of the KubeVirt object that hold for all virtual machines.

mod components;
mod devices;
mod machines;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use components::*;
pub use devices::*;
pub use machines::*;

/// Settings that hold for all virtual machines.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KubeVirtConfiguration {
    /// Feature gates, and settings for developers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub developer_configuration: Option<DeveloperConfiguration>,
    /// Machine types of each CPU architecture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture_configuration: Option<ArchConfiguration>,
    /// CPU model of machines that name none; `host-model` where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_model: Option<String>,
    /// CPU time that the pod of a machine without a request of its own asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_request: Option<Quantity>,
    /// What a node drain does to machines that do not say it themselves: `None` (the default), `LiveMigrate`,
    /// `LiveMigrateIfPossible` or `External`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eviction_strategy: Option<String>,
    /// When the images of virtual machines' pods are pulled: `Always`, `IfNotPresent` or `Never`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<String>,
    /// Live migration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migrations: Option<MigrationConfiguration>,
    /// NICs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkConfiguration>,
    /// How far a running machine may grow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live_update_configuration: Option<LiveUpdateConfiguration>,
    /// What a change of a running machine does: `LiveUpdate` applies what can be applied at once, `Stage` waits for
    /// the next start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["Stage", "LiveUpdate"]))]
    #[schemars(extend("nullable" = true))]
    pub vm_rollout_strategy: Option<String>,
    /// Instance types and preferences.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("nullable" = true))]
    pub instancetype: Option<InstancetypeConfiguration>,
    /// Ready-made instance types and preferences.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("nullable" = true))]
    pub common_instancetypes_deployment: Option<CommonInstancetypesDeployment>,
    /// Devices of nodes that machines may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permitted_host_devices: Option<PermittedHostDevices>,
    /// Mediated devices that are made on nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mediated_devices_configuration: Option<MediatedDevicesConfiguration>,
    /// What the firmware tells guests about their maker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smbios: Option<SMBiosConfiguration>,
    /// Factor, as text, on the memory that pods ask for beyond their guests'.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub additional_guest_memory_overhead_ratio: Option<String>,
    /// Seconds between two reports of a guest's memory use; 0 is never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "int32"))]
    pub mem_balloon_stats_period: Option<i64>,
    /// Without effect.
    #[serde(rename = "minCPUModel", default, skip_serializing_if = "Option::is_none")]
    pub min_cpu_model: Option<String>,
    /// CPU models that nodes do not offer, as keys with the value true.
    #[serde(rename = "obsoleteCPUModels", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub obsolete_cpu_models: BTreeMap<String, bool>,
    /// The hypervisor of the nodes; `kvm` where not given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1))]
    pub hypervisors: Vec<HypervisorConfiguration>,
    /// How many instances a node takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_machine_instances_per_node: Option<i64>,
    /// Switches for all machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_machine_options: Option<VirtualMachineOptions>,
    /// Storage class of claims that keep the state of firmware and TPM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm_state_storage_class: Option<String>,
    /// Resources of the containers beside the machine's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map"))]
    #[schemars(extend("x-kubernetes-list-map-keys" = ["type"]))]
    pub support_container_resources: Vec<SupportContainerResources>,
    /// Namespaces in which pods of machines get a CPU limit that equals their vCPUs.
    #[serde(rename = "autoCPULimitNamespaceLabelSelector", default, skip_serializing_if = "Option::is_none")]
    pub auto_cpu_limit_namespace_label_selector: Option<LabelSelector>,
    /// Runtime class of the pods of machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_runtime_class: Option<String>,
    /// SELinux type of the pods of machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selinux_launcher_type: Option<String>,
    /// Filter of system calls of the pods of machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seccomp_configuration: Option<SeccompConfiguration>,
    /// What the components' servers accept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_configuration: Option<TLSConfiguration>,
    /// Sharing of equal memory pages on nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ksm_configuration: Option<KSMConfiguration>,
    /// SCSI persistent reservations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("nullable" = true))]
    pub persistent_reservation_configuration: Option<PersistentReservationConfiguration>,
    /// Machines whose changed blocks are tracked, for backups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("nullable" = true))]
    pub changed_block_tracking_label_selectors: Option<ChangedBlockTrackingSelectors>,
    /// Proof that a guest runs in encrypted memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("nullable" = true))]
    pub confidential_compute: Option<ConfidentialComputeConfiguration>,
    /// Whether the cluster's roles `admin`, `edit` and `view` include the rights to virtual machines:
    /// `AggregateToDefault` or `Manual`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["AggregateToDefault", "Manual"]))]
    pub role_aggregation_strategy: Option<String>,
    /// Templates of virtual machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("nullable" = true))]
    pub virt_template_deployment: Option<VirtTemplateDeployment>,
    /// virt-api.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_configuration: Option<ReloadableComponentConfiguration>,
    /// The webhooks in virt-api.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook_configuration: Option<ReloadableComponentConfiguration>,
    /// virt-controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller_configuration: Option<ReloadableComponentConfiguration>,
    /// virt-handler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handler_configuration: Option<ReloadableComponentConfiguration>,
    /// Without effect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub supported_guest_agent_versions: Vec<String>,
    /// Older form of `architectureConfiguration.amd64.machineType`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine_type: Option<String>,
    /// Older form of `architectureConfiguration.amd64.emulatedMachines`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub emulated_machines: Vec<String>,
    /// Older form of `architectureConfiguration.amd64.ovmfPath`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ovmf_path: Option<String>,
}
