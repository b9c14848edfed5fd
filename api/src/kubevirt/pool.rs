//! VirtualMachinePool (pool.kubevirt.io/v1beta1): a number of machines that are made from one template and keep
//! their names and their state.

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{VirtualMachineSpec, null_is_given};

/// How many machines there are to be, and what each of them is.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "pool.kubevirt.io",
    version = "v1beta1",
    kind = "VirtualMachinePool",
    plural = "virtualmachinepools",
    shortname = "vmpool",
    shortname = "vmpools",
    category = "all",
    namespaced,
    status = "VirtualMachinePoolStatus",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.labelSelector"
    ),
    doc = "A number of machines made from one template.",
    printcolumn(
        name = "Desired",
        type_ = "integer",
        description = "Number of desired VirtualMachines",
        json_path = ".spec.replicas"
    ),
    printcolumn(
        name = "Current",
        type_ = "integer",
        description = "Number of managed and not final or deleted VirtualMachines",
        json_path = ".status.replicas"
    ),
    printcolumn(
        name = "Ready",
        type_ = "integer",
        description = "Number of managed VirtualMachines which are ready to receive traffic",
        json_path = ".status.readyReplicas"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    derive = "Default",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachinePoolSpec {
    /// How many machines there are to be; 1 where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub replicas: Option<i32>,
    /// Which machines belong to the pool. It must select the template's labels.
    pub selector: LabelSelector,
    /// What each machine is.
    pub virtual_machine_template: VirtualMachineTemplateSpec,
    /// Whether the pool neither makes, changes nor deletes machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
    /// What else gets the number of a machine besides its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name_generation: Option<VirtualMachinePoolNameGeneration>,
    /// How many machines may be not ready at a time while they are updated, as a number or as a percentage such as
    /// `25%`; all of them where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_unavailable: Option<IntOrString>,
    /// Which machines go when there are to be fewer. One of the three is set; `proactive` where none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale_in_strategy: Option<VirtualMachinePoolScaleInStrategy>,
    /// What a change of the template does to machines that are there. One of the three is set; `proactive` where none
    /// is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_strategy: Option<VirtualMachinePoolUpdateStrategy>,
    /// When a machine that does not start is made anew. Never where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autohealing: Option<VirtualMachinePoolAutohealingStrategy>,
}

/// The machine that a pool makes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineTemplateSpec {
    /// Labels and annotations that the machine gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<ObjectMeta>,
    /// What the machine is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<VirtualMachineSpec>,
}

/// What gets the number of a machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachinePoolNameGeneration {
    /// Names of ConfigMaps that its volumes use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub append_index_to_config_map_refs: Option<bool>,
    /// Names of Secrets that its volumes use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub append_index_to_secret_refs: Option<bool>,
}

/// Which machines go when there are to be fewer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachinePoolScaleInStrategy {
    /// The pool chooses, and shuts down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proactive: Option<VirtualMachinePoolProactiveScaleInStrategy>,
    /// Those that somebody else deletes are not replaced; the pool deletes none itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opportunistic: Option<VirtualMachinePoolOpportunisticScaleInStrategy>,
    /// None; users delete them and lower `replicas`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unmanaged: Option<VirtualMachinePoolUnmanagedStrategy>,
}

/// The pool chooses which machines go.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachinePoolProactiveScaleInStrategy {
    /// Which go first; any where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selection_policy: Option<VirtualMachinePoolSelectionPolicy>,
    /// What becomes of a machine's disks: `Disabled` deletes them with it (the default), `Offline` keeps them,
    /// `Online` keeps its memory too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["Disabled", "Offline", "Online"]))]
    pub state_preservation: Option<String>,
}

/// Machines that somebody else deletes are not replaced.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachinePoolOpportunisticScaleInStrategy {
    /// What becomes of a machine's disks: `Disabled` deletes them with it (the default), `Offline` keeps them,
    /// `Online` keeps its memory too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["Disabled", "Offline", "Online"]))]
    pub state_preservation: Option<String>,
}

/// Nothing happens by itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VirtualMachinePoolUnmanagedStrategy {}

/// What a change of the template does to machines that are there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachinePoolUpdateStrategy {
    /// Machines are changed, and restarted where the change needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proactive: Option<VirtualMachinePoolProactiveUpdateStrategy>,
    /// Machines are changed, and take the change up when they are started next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opportunistic: Option<VirtualMachinePoolOpportunisticUpdateStrategy>,
    /// Nothing; only new machines are as the template says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unmanaged: Option<VirtualMachinePoolUnmanagedStrategy>,
}

/// Machines are changed and restarted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachinePoolProactiveUpdateStrategy {
    /// Which are restarted first; any where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selection_policy: Option<VirtualMachinePoolSelectionPolicy>,
}

/// Machines take a change up when they are started next.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VirtualMachinePoolOpportunisticUpdateStrategy {}

/// An order of machines.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachinePoolSelectionPolicy {
    /// Machines that come before all others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selectors: Option<VirtualMachinePoolSelectors>,
    /// The order among the rest: by number (`AscendingOrder`, `DescendingOrder`), by age (`Newest`, `Oldest`), or
    /// `Random`, which is the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["AscendingOrder", "DescendingOrder", "Newest", "Oldest", "Random"]))]
    pub sort_policy: Option<String>,
}

/// Some machines of a pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachinePoolSelectors {
    /// By their labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_selector: Option<LabelSelector>,
    /// By the labels of the node that they run on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub node_selector_requirement_matcher: Vec<core::NodeSelectorRequirement>,
}

/// When a machine that does not start is made anew.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachinePoolAutohealingStrategy {
    /// After how many failed starts in a row; 3 where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "int32"))]
    #[schemars(extend("minimum" = 1))]
    pub start_up_failure_threshold: Option<i64>,
    /// How long it must have failed at least, such as `5m0s`, which is the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_failing_to_start_duration: Option<String>,
}

/// What a pool has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachinePoolStatus {
    /// Machines of the pool that are not being deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Those of them that are ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,
    /// What holds at the moment: `ReplicaPaused`, `ReplicaFailure`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<VirtualMachinePoolCondition>,
    /// The selector as text, for autoscalers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_selector: Option<String>,
}

/// One statement about a pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachinePoolCondition {
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
