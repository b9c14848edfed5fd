//! CPU, memory, and what is asked of the node for them.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The guest's CPU. It has `sockets` x `cores` x `threads` virtual CPUs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CPU {
    /// Sockets; 1 where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "int32"))]
    pub sockets: Option<i64>,
    /// Cores of a socket; 1 where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "int32"))]
    pub cores: Option<i64>,
    /// Threads of a core; 1 where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "int32"))]
    pub threads: Option<i64>,
    /// Sockets that there is room for, to plug CPUs in; 4 times `sockets` where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "int32"))]
    pub max_sockets: Option<i64>,
    /// CPU model of libvirt, `host-model` or `host-passthrough`; `host-model` where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// CPU features that the guest must, may or must not have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<CPUFeature>,
    /// Whether each virtual CPU gets a CPU of the node for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedicated_cpu_placement: Option<bool>,
    /// Whether QEMU's own work gets one more such CPU. Needs `dedicatedCpuPlacement`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolate_emulator_thread: Option<bool>,
    /// How the guest sees the node's NUMA topology. Needs `dedicatedCpuPlacement` and huge pages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numa: Option<NUMA>,
    /// Tuning for guests with a real-time kernel. Needs `dedicatedCpuPlacement`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub realtime: Option<Realtime>,
}

/// One feature of the CPU.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CPUFeature {
    /// libvirt's name of the feature.
    pub name: String,
    /// `force`, `require` (the default), `optional`, `disable` or `forbid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
}

/// How the guest sees the node's NUMA topology.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NUMA {
    /// The guest's cells are those of the CPUs that it got.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_mapping_passthrough: Option<NUMAGuestMappingPassthrough>,
}

/// NUMA cells as they are on the node. Has no fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NUMAGuestMappingPassthrough {}

/// Real-time tuning.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Realtime {
    /// Virtual CPUs that it is for, such as `0-3,^1`; all where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<String>,
}

/// The guest's memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Memory {
    /// How much the guest has, such as `2Gi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<Quantity>,
    /// How much there is room for, to plug memory in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_guest: Option<Quantity>,
    /// Back it with huge pages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hugepages: Option<Hugepages>,
    /// What is reserved on top of the guest's memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved_overhead: Option<ReservedOverhead>,
}

/// Huge pages.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Hugepages {
    /// Their size: `2Mi`, `1Gi`, or another that the node has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_size: Option<String>,
}

/// Memory that a machine needs besides the guest's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReservedOverhead {
    /// Memory that is asked for on top of what is computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub added_overhead: Option<Quantity>,
    /// Whether the guest's memory has to be locked: `Required` or `NotRequired`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["NotRequired", "Required"]))]
    pub mem_lock: Option<String>,
}

/// What the pod asks the cluster for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceRequirements {
    /// What is reserved: `cpu`, `memory`, and `hugepages-<size>`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, Quantity>,
    /// What is allowed at most.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, Quantity>,
    /// Whether the memory that QEMU needs besides the guest's is left out of the requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overcommit_guest_overhead: Option<bool>,
}

/// Threads for disk I/O.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DiskIOThreads {
    /// How many threads the pool has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "int32"))]
    pub supplemental_pool_thread_count: Option<i64>,
}
