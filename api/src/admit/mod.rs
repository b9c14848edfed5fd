//! What the webhooks answer: the one entry point for everything that is asked about objects on their way in.
//!
//! One [`Review`] is one call of one webhook. The API server has its own part: it drops or refuses unknown fields
//! before the mutating webhooks, and holds the object against its schema between them and the validating ones. So a
//! mutating webhook meets objects that lack required fields or have wrong types: required fields that are left out
//! are read as empty or 0, as KubeVirt's are, and what cannot be read is refused.
//!
//! Invariants: pure; other objects come in by [`Others`]. An object that is being deleted is let through, so that no
//! rule can keep a finalizer from going.

mod installation;
mod instances;
mod machines;
mod migrations;
mod presets;
mod read;
mod sets;
mod sizes;
mod webhook;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

pub use installation::installation_problems;
pub use webhook::Webhook;

use crate::config::ClusterConfig;
use crate::defaults::Identities;
use crate::error_status::ErrorStatus;
use crate::kubevirt::{
    KubeVirt, VirtualMachineInstance, VirtualMachineInstanceMigration, VirtualMachineInstancePreset,
    VirtualMachineInstancetypeSpec, VirtualMachinePreferenceSpec,
};

/// What is being done to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// It is made.
    Create,
    /// It is changed.
    Update,
    /// It is deleted.
    Delete,
    /// A stream to it is opened.
    Connect,
}

/// Who does it.
#[derive(Debug, Clone, Copy)]
pub struct User<'a> {
    /// Name, such as `system:serviceaccount:kubevirt:kubevirt-handler`.
    pub name: &'a str,
    /// Groups.
    pub groups: &'a [String],
}

/// One call of one webhook.
#[derive(Debug, Clone, Copy)]
pub struct Review<'a> {
    /// Which webhook.
    pub webhook: Webhook,
    /// What is being done.
    pub operation: Operation,
    /// Name of the object; empty where the API server is to make one.
    pub name: &'a str,
    /// Namespace of the object; empty for those without one.
    pub namespace: &'a str,
    /// The object as it is to be; null where it is deleted.
    pub object: &'a Value,
    /// The object as it is; null where it is new.
    pub old: &'a Value,
    /// Who asks.
    pub user: User<'a>,
    /// Namespace of the installation, and so of our service accounts.
    pub install_namespace: &'a str,
}

/// The service accounts that write what others may not.
const OURS: [&str; 4] = ["kubevirt-apiserver", "kubevirt-controller", "kubevirt-handler", "kubevirt-operator"];

impl Review<'_> {
    /// Whether one of our own components asks.
    fn is_ours(&self) -> bool {
        let account = self.user.name.strip_prefix("system:serviceaccount:").and_then(|name| name.split_once(':'));
        account.is_some_and(|(namespace, name)| namespace == self.install_namespace && OURS.contains(&name))
    }

    /// Whether the object is only waiting for its finalizers.
    fn is_going(&self) -> bool {
        !self.object["metadata"]["deletionTimestamp"].is_null()
    }

    /// Whether a field is what it was.
    fn keeps(&self, field: &str) -> bool {
        self.operation == Operation::Update && self.object[field] == self.old[field]
    }
}

/// Other objects that an answer may depend on. Each is `None`, or empty, where there is no such object.
pub trait Others {
    /// A VMI.
    fn instance(&self, _namespace: &str, _name: &str) -> Option<VirtualMachineInstance> {
        None
    }
    /// An instance type. `kind` is that of a matcher, see [`crate::instancetype::is_cluster_wide`].
    fn instancetype(&self, _namespace: &str, _kind: &str, _name: &str) -> Option<VirtualMachineInstancetypeSpec> {
        None
    }
    /// A preference, as an instance type.
    fn preference(&self, _namespace: &str, _kind: &str, _name: &str) -> Option<VirtualMachinePreferenceSpec> {
        None
    }
    /// A ControllerRevision.
    fn revision(&self, _namespace: &str, _name: &str) -> Option<ControllerRevision> {
        None
    }
    /// The migrations of a VMI.
    fn migrations(&self, _namespace: &str, _vmi: &str) -> Vec<VirtualMachineInstanceMigration> {
        Vec::new()
    }
    /// The presets of a namespace.
    fn presets(&self, _namespace: &str) -> Vec<VirtualMachineInstancePreset> {
        Vec::new()
    }
    /// All KubeVirt objects.
    fn kubevirts(&self) -> Vec<KubeVirt> {
        Vec::new()
    }
    /// A kind of which there are objects that an uninstall would take away, such as `Virtual Machines`.
    fn workloads(&self) -> Option<&'static str> {
        None
    }
}

/// An object that is let through.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Allowed {
    /// The object as it is to be; `None` where it stays as it came.
    pub object: Option<Value>,
    /// What the user is told besides.
    pub warnings: Vec<String>,
}

impl Allowed {
    /// The object, if it is another than the one that came.
    fn changed(review: &Review, object: Value) -> Self {
        Self { object: (object != *review.object).then_some(object), warnings: Vec::new() }
    }
}

/// Answers one call. A refusal is in the webhook's own words: the API server puts the webhook's name before it.
pub fn admit(
    review: &Review,
    others: &dyn Others,
    config: &ClusterConfig,
    identities: Identities,
    now: Timestamp,
) -> Result<Allowed, ErrorStatus> {
    if review.webhook != Webhook::KubeVirtValidateDelete
        && (review.is_going() || matches!(review.operation, Operation::Delete | Operation::Connect))
        && review.webhook != Webhook::VmiMutate
    {
        return Ok(Allowed::default());
    }
    match review.webhook {
        Webhook::VmMutate => machines::mutate(review, others, config, identities),
        Webhook::VmValidate => machines::validate(review, others, config),
        Webhook::VmiMutate => instances::mutate(review, others, config, identities, now),
        Webhook::VmiValidateCreate => instances::validate_create(review, config),
        Webhook::VmiValidateUpdate => instances::validate_update(review),
        Webhook::MigrationMutateCreate => migrations::mutate(review),
        Webhook::MigrationValidateCreate => migrations::validate_create(review, others),
        Webhook::MigrationValidateUpdate => migrations::validate_update(review),
        Webhook::MigrationPolicyValidate => migrations::validate_policy(review),
        Webhook::ReplicaSetValidate => sets::validate_replica_set(review, config),
        Webhook::PoolValidate => sets::validate_pool(review, config),
        Webhook::PresetValidate => presets::validate(review),
        Webhook::InstancetypeValidate | Webhook::ClusterInstancetypeValidate => sizes::validate_instancetype(review),
        Webhook::PreferenceValidate | Webhook::ClusterPreferenceValidate => sizes::validate_preference(review),
        Webhook::StatusValidate => machines::validate_status(review),
        Webhook::KubeVirtValidateCreate => installation::validate_create(review, others),
        Webhook::KubeVirtValidateUpdate => installation::validate_update(review),
        Webhook::KubeVirtValidateDelete => installation::validate_delete(review, others),
    }
}

#[cfg(test)]
mod tests;
