//! Settings for developers, and of the components and the containers of machines' pods.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Feature gates, and settings for developers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeveloperConfiguration {
    /// Feature gates that are on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub feature_gates: Vec<String>,
    /// Feature gates that are off, though they would be on. None of them may be in `featureGates` too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disabled_feature_gates: Vec<String>,
    /// Whether machines run, slowly, on nodes without hardware virtualisation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub use_emulation: Option<bool>,
    /// How many vCPUs share one CPU; 10 where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_allocation_ratio: Option<i64>,
    /// Percent of memory that guests see, of what their pods ask for; 100 where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10))]
    pub memory_overcommit: Option<i64>,
    /// Labels that each machine's node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selectors: BTreeMap<String, String>,
    /// Bytes that are left free on claims with disk images; 131072 where not given.
    #[serde(rename = "minimumReservePVCBytes", default, skip_serializing_if = "Option::is_none")]
    pub minimum_reserve_pvc_bytes: Option<i64>,
    /// Percent that a claim may be smaller than asked for; 10 where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pvc_tolerate_less_space_up_to_percent: Option<i64>,
    /// Frequency, in Hz, of the time stamp counter that machines count on everywhere; the lowest of all nodes where
    /// not given.
    #[serde(rename = "minimumClusterTSCFrequency", default, skip_serializing_if = "Option::is_none")]
    pub minimum_cluster_tsc_frequency: Option<i64>,
    /// How much the components log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_verbosity: Option<LogVerbosity>,
    /// The check of disk images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_verification: Option<DiskVerification>,
    /// Whether the components can be profiled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_profiler: Option<bool>,
}

/// How much the components log, from 0 to 9; 2 where not given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogVerbosity {
    /// virt-api.
    #[serde(rename = "virtAPI", default, skip_serializing_if = "Option::is_none")]
    pub virt_api: Option<i64>,
    /// virt-controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virt_controller: Option<i64>,
    /// virt-handler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virt_handler: Option<i64>,
    /// The pods of machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virt_launcher: Option<i64>,
    /// virt-operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virt_operator: Option<i64>,
    /// The exchange between clusters about migrations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virt_synchronization_controller: Option<i64>,
    /// virt-handler on single nodes, by the node's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_verbosity: BTreeMap<String, i64>,
}

/// The check of disk images.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DiskVerification {
    /// Memory that it may use.
    pub memory_limit: Quantity,
}

/// Resources of one type of container beside the machine's own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SupportContainerResources {
    /// Type of container, such as `container-disk`, `virtiofs`, `sidecar`, `hotplug-disk` or `guest-console-log`.
    pub r#type: String,
    /// What each of them asks for.
    pub resources: ResourceRequirementsWithoutClaims,
}

/// Resources of a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceRequirementsWithoutClaims {
    /// What it is sure to have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, Quantity>,
    /// What it has at most.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, Quantity>,
}

/// Filter of system calls.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SeccompConfiguration {
    /// That of the pods of machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_machine_instance_profile: Option<VirtualMachineInstanceProfile>,
}

/// Filter of the system calls of machines' pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineInstanceProfile {
    /// Where the filter is from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom_profile: Option<CustomProfile>,
}

/// Where a filter is from. One of the two is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CustomProfile {
    /// File on the node, below the kubelet's folder of profiles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub localhost_profile: Option<String>,
    /// Whether it is the container runtime's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_default_profile: Option<bool>,
}

/// What the components' servers accept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TLSConfiguration {
    /// Oldest version of TLS.
    #[serde(rename = "minTLSVersion", default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["VersionTLS10", "VersionTLS11", "VersionTLS12", "VersionTLS13"]))]
    pub min_tls_version: Option<String>,
    /// Cipher suites by their IANA names; not for TLS 1.3, which has no choice.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub ciphers: Vec<String>,
}

/// Sharing of equal memory pages.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KSMConfiguration {
    /// Nodes on which it is on; all where empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_label_selector: Option<LabelSelector>,
}

/// A component.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReloadableComponentConfiguration {
    /// Its client of the API server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rest_client: Option<RESTClientConfiguration>,
}

/// A client of the API server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RESTClientConfiguration {
    /// How fast it may ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limiter: Option<RateLimiter>,
}

/// How fast a client may ask.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RateLimiter {
    /// By a bucket of tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_bucket_rate_limiter: Option<TokenBucketRateLimiter>,
}

/// How fast a client may ask.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenBucketRateLimiter {
    /// Requests per second over time.
    pub qps: f64,
    /// Requests at once.
    pub burst: i64,
}
