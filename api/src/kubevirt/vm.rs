//! VirtualMachine (kubevirt.io/v1): what a user wants to have, whether it runs or not.
//!
//! The template holds the VirtualMachineInstance that is made from it each time it starts.

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DataVolumeTemplateSpec, VirtualMachineInstanceSpec, VirtualMachineStatus};

/// What a virtual machine is, and when it runs.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "kubevirt.io",
    version = "v1",
    kind = "VirtualMachine",
    plural = "virtualmachines",
    shortname = "vm",
    shortname = "vms",
    category = "all",
    namespaced,
    status = "VirtualMachineStatus",
    doc = "A virtual machine, running or not.",
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Status",
        type_ = "string",
        description = "Human Readable Status",
        json_path = ".status.printableStatus"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    derive = "Default",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineSpec {
    /// Whether the machine runs: true stands for `runStrategy: Always`, false for `Halted`. Older
    /// form; excludes `runStrategy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<bool>,
    /// When the machine runs: `Always`, `Halted`, `Manual` (on request), `RerunOnFailure`, `Once`,
    /// or `WaitAsReceiver` (a migration brings it). Excludes `running`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_strategy: Option<String>,
    /// The instance that is made from this machine when it starts.
    pub template: VirtualMachineInstanceTemplateSpec,
    /// Size of the machine, by the name of an instance type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instancetype: Option<InstancetypeMatcher>,
    /// Defaults for its devices, by the name of a preference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preference: Option<PreferenceMatcher>,
    /// DataVolumes that are made with the machine and go with it. The template's volumes use them
    /// by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub data_volume_templates: Vec<DataVolumeTemplateSpec>,
    /// What a change of the volumes of a running machine does: `Replacement` (takes effect at the
    /// next start; the default) or `Migration` (data is moved while it runs).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_volumes_strategy: Option<String>,
}

/// Names an instance type.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InstancetypeMatcher {
    /// Name of the instance type. Excludes `inferFromVolume`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `VirtualMachineInstancetype` or `VirtualMachineClusterInstancetype`; the latter where not
    /// given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// ControllerRevision that holds the instance type as it was when the machine was made. Filled
    /// in by the controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision_name: Option<String>,
    /// Volume whose labels name the instance type. Excludes `name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub infer_from_volume: Option<String>,
    /// What happens when the volume names none: `Reject` (the default) or `Ignore`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub infer_from_volume_failure_policy: Option<String>,
}

/// Names a preference.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PreferenceMatcher {
    /// Name of the preference. Excludes `inferFromVolume`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `VirtualMachinePreference` or `VirtualMachineClusterPreference`; the latter where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// ControllerRevision that holds the preference as it was when the machine was made. Filled in
    /// by the controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision_name: Option<String>,
    /// Volume whose labels name the preference. Excludes `name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub infer_from_volume: Option<String>,
    /// What happens when the volume names none: `Reject` (the default) or `Ignore`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub infer_from_volume_failure_policy: Option<String>,
}

/// The instance that a machine, pool or replica set makes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineInstanceTemplateSpec {
    /// Labels and annotations that the instance gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<meta::ObjectMeta>,
    /// What the instance is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<VirtualMachineInstanceSpec>,
}
