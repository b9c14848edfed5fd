//! VirtualMachineInstanceReplicaSet (kubevirt.io/v1): a number of equal instances without machines of their own.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{VirtualMachineInstanceTemplateSpec, null_is_given};

/// How many instances there are to be, and what each of them is.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "kubevirt.io",
    version = "v1",
    kind = "VirtualMachineInstanceReplicaSet",
    plural = "virtualmachineinstancereplicasets",
    shortname = "vmirs",
    shortname = "vmirss",
    category = "all",
    namespaced,
    status = "VirtualMachineInstanceReplicaSetStatus",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.labelSelector"
    ),
    doc = "A number of equal instances.",
    printcolumn(
        name = "Desired",
        type_ = "integer",
        description = "Number of desired VirtualMachineInstances",
        json_path = ".spec.replicas"
    ),
    printcolumn(
        name = "Current",
        type_ = "integer",
        description = "Number of managed and not final or deleted VirtualMachineInstances",
        json_path = ".status.replicas"
    ),
    printcolumn(
        name = "Ready",
        type_ = "integer",
        description = "Number of managed VirtualMachineInstances which are ready to receive traffic",
        json_path = ".status.readyReplicas"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    derive = "Default",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineInstanceReplicaSetSpec {
    /// How many instances there are to be; 1 where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Which instances belong to the set. It must select the template's labels.
    pub selector: LabelSelector,
    /// What each instance is.
    pub template: VirtualMachineInstanceTemplateSpec,
    /// Whether the set neither makes nor deletes instances.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
}

/// What a set has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineInstanceReplicaSetStatus {
    /// Instances of the set that are neither at an end nor being deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Those of them that are ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,
    /// What holds at the moment: `ReplicaPaused`, `ReplicaFailure`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<VirtualMachineInstanceReplicaSetCondition>,
    /// The selector as text, for autoscalers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_selector: Option<String>,
}

/// One statement about a set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineInstanceReplicaSetCondition {
    /// What it is about.
    pub r#type: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Why, in one word for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why, in a sentence for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When `status` changed last; null where nobody keeps it.
    #[serde(default, deserialize_with = "null_is_given", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Time>")]
    #[schemars(extend("nullable" = true))]
    pub last_transition_time: Option<Value>,
    /// When it was looked at last; null where nobody keeps it.
    #[serde(default, deserialize_with = "null_is_given", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Time>")]
    #[schemars(extend("nullable" = true))]
    pub last_probe_time: Option<Value>,
}
