//! What is known of the live migration of an instance.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The last migration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineInstanceMigrationState {
    /// UID of the VirtualMachineInstanceMigration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration_uid: Option<String>,
    /// `PreCopy`, `PostCopy` or `Paused`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("nullable" = true))]
    pub start_timestamp: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("nullable" = true))]
    pub end_timestamp: Option<Time>,
    /// Whether it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed: Option<bool>,
    /// Whether it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<bool>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_reason: Option<String>,
    /// Whether somebody asked to give it up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort_requested: Option<bool>,
    /// How far giving up is: `Aborting`, `Succeeded` or `Failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort_status: Option<String>,
    /// MigrationPolicy in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration_policy_name: Option<String>,
    /// Settings in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration_configuration: Option<VMIMConfigurationOptions>,
    /// Network that it uses: `Pod` or `Migration`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration_network_type: Option<String>,
    /// Node that it comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_node: Option<String>,
    /// Pod that it comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_pod: Option<String>,
    /// Claim with the TPM's and the firmware's state, at the source.
    #[serde(rename = "sourcePersistentStatePVCName", default, skip_serializing_if = "Option::is_none")]
    pub source_persistent_state_pvc_name: Option<String>,
    /// The source, as it knows itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_state: Option<VirtualMachineInstanceMigrationSourceState>,
    /// Node that it goes to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_node: Option<String>,
    /// Pod that it goes to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_pod: Option<String>,
    /// Address that the target listens on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_node_address: Option<String>,
    /// Ports that the target listens on, each with what it is for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub target_direct_migration_node_ports: BTreeMap<String, i32>,
    /// Whether the target has the guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_node_domain_detected: Option<bool>,
    /// When the guest ran at the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_node_domain_ready_timestamp: Option<Time>,
    /// CPUs of the target, as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_node_topology: Option<String>,
    /// CPUs of the target that the guest gets.
    #[serde(rename = "targetCPUSet", default, skip_serializing_if = "Vec::is_empty")]
    pub target_cpu_set: Vec<i32>,
    /// UID of the pod that holds plugged-in volumes at the target.
    #[serde(rename = "targetAttachmentPodUID", default, skip_serializing_if = "Option::is_none")]
    pub target_attachment_pod_uid: Option<String>,
    /// Memory that the machine needs besides the guest's, at the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_memory_overhead: Option<Quantity>,
    /// Claim with the TPM's and the firmware's state, at the target.
    #[serde(rename = "targetPersistentStatePVCName", default, skip_serializing_if = "Option::is_none")]
    pub target_persistent_state_pvc_name: Option<String>,
    /// The target, as it knows itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_state: Option<VirtualMachineInstanceMigrationTargetState>,
}

/// The source of a migration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineInstanceMigrationSourceState {
    /// Node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Address for the exchange between clusters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync_address: Option<String>,
    /// UID of the VirtualMachineInstanceMigration there.
    #[serde(rename = "migrationUID", default, skip_serializing_if = "Option::is_none")]
    pub migration_uid: Option<String>,
    /// UID of the instance there.
    #[serde(rename = "virtualMachineInstanceUID", default, skip_serializing_if = "Option::is_none")]
    pub virtual_machine_instance_uid: Option<String>,
    /// Name of the instance there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain_name: Option<String>,
    /// Namespace of the instance there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain_namespace: Option<String>,
    /// Labels that the target's node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selectors: BTreeMap<String, String>,
    /// Claim with the TPM's and the firmware's state.
    #[serde(rename = "persistentStatePVCName", default, skip_serializing_if = "Option::is_none")]
    pub persistent_state_pvc_name: Option<String>,
    /// SELinux context of the launcher.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selinux_context: Option<String>,
}

/// The target of a migration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineInstanceMigrationTargetState {
    /// Node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Address that it listens on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_address: Option<String>,
    /// Ports that it listens on, each with what it is for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub direct_migration_node_ports: BTreeMap<String, i32>,
    /// Address for the exchange between clusters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync_address: Option<String>,
    /// UID of the VirtualMachineInstanceMigration there.
    #[serde(rename = "migrationUID", default, skip_serializing_if = "Option::is_none")]
    pub migration_uid: Option<String>,
    /// UID of the instance there.
    #[serde(rename = "virtualMachineInstanceUID", default, skip_serializing_if = "Option::is_none")]
    pub virtual_machine_instance_uid: Option<String>,
    /// Name of the instance there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain_name: Option<String>,
    /// Namespace of the instance there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain_namespace: Option<String>,
    /// Whether the guest is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain_detected: Option<bool>,
    /// When the guest ran there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain_ready_timestamp: Option<Time>,
    /// CPUs of the node, as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_topology: Option<String>,
    /// CPUs that the guest gets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cpu_set: Vec<i32>,
    /// UID of the pod that holds plugged-in volumes.
    #[serde(rename = "attachmentPodUID", default, skip_serializing_if = "Option::is_none")]
    pub attachment_pod_uid: Option<String>,
    /// Claim with the TPM's and the firmware's state.
    #[serde(rename = "persistentStatePVCName", default, skip_serializing_if = "Option::is_none")]
    pub persistent_state_pvc_name: Option<String>,
    /// SELinux context of the launcher.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selinux_context: Option<String>,
}

/// Settings of a migration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VMIMConfigurationOptions {
    /// Whether the guest is slowed down when it changes its memory too fast.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_auto_converge: Option<bool>,
    /// Whether the guest may go on at the target before all of its memory is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_post_copy: Option<bool>,
    /// Whether the guest may be slowed down, paused or moved early to come to an end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_workload_disruption: Option<bool>,
    /// Whether it is done where it may harm the guest's data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsafe_migration_override: Option<bool>,
    /// Bytes per second at most; no limit where 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth_per_migration: Option<Quantity>,
    /// Seconds for each GiB of memory and disk until it is given up or the guest is disrupted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_timeout_per_gi_b: Option<i64>,
    /// Seconds without progress until it is given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress_timeout: Option<i64>,
    /// Milliseconds at most that the guest stands still at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2000000))]
    pub max_downtime_ms: Option<i64>,
    /// Migrations at a time in the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "int32"))]
    pub parallel_migrations_per_cluster: Option<i64>,
    /// Migrations at a time away from a node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "int32"))]
    pub parallel_outbound_migrations_per_node: Option<i64>,
    /// Taint of a node that calls for migration away from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_drain_taint_key: Option<String>,
    /// NetworkAttachmentDefinition of the network that is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Whether the data is not encrypted.
    #[serde(rename = "disableTLS", default, skip_serializing_if = "Option::is_none")]
    pub disable_tls: Option<bool>,
    /// Whether the target's SELinux level is that of the source.
    #[serde(rename = "matchSELinuxLevelOnMigration", default, skip_serializing_if = "Option::is_none")]
    pub match_se_linux_level_on_migration: Option<bool>,
    /// Seconds that it waits for utility volumes to be taken off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub utility_volumes_timeout: Option<i64>,
    /// Settings that may go again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub experimental: Option<ExperimentalMigrationOptions>,
}

/// Settings that may go again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExperimentalMigrationOptions {
    /// Compression of the memory: `none` or `zstd`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["none", "zstd"]))]
    pub compression: Option<String>,
    /// How lack of progress is recognised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stall_detector: Option<StallDetectorOptions>,
}

/// How lack of progress is recognised. Factors are decimal numbers in text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StallDetectorOptions {
    /// Weight of the newest measurement in the average, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ewma_alpha: Option<String>,
    /// Percent that the rest must shrink by to count as progress, 0 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub stall_margin: Option<i64>,
    /// Seconds without progress that count as a stall.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stall_progress_timeout: Option<i64>,
    /// How the patience shrinks from one stall to the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patience_window_decay_factor: Option<String>,
    /// Ratio of transfer to change above which waiting is worth it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precopy_possible_factor: Option<String>,
    /// What the completion timeout is multiplied by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_timeout_factor: Option<String>,
    /// Whether it waits for a moment when little is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search_local_minima: Option<bool>,
    /// Seconds that the move to the target may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switchover_timeout: Option<i64>,
}
