//! ControllerRevisions: instance types and preferences as they were when a machine first named them.

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use thiserror::Error;

use crate::kubevirt::{VirtualMachine, VirtualMachineInstancetypeSpec, VirtualMachinePreferenceSpec};

/// Why a ControllerRevision holds no instance type, or no preference.
#[derive(Debug, Error)]
pub enum RevisionError {
    /// It holds nothing, or no object with a spec.
    #[error("failed to read ControllerRevision `{name}`: it holds no spec")]
    Empty {
        /// Name of the ControllerRevision.
        name: String,
    },
    /// It holds something else.
    #[error("failed to read ControllerRevision `{name}`: it holds {found}, not {expected}")]
    Kind {
        /// Name of the ControllerRevision.
        name: String,
        /// Kind of what it holds.
        found: String,
        /// What it should hold.
        expected: &'static str,
    },
    /// What it holds cannot be read.
    #[error("failed to read ControllerRevision `{name}`")]
    Content {
        /// Name of the ControllerRevision.
        name: String,
        /// Why.
        source: serde_json::Error,
    },
}

/// The ControllerRevision of an instance type or a preference, given as the whole object, for a machine. `None` where
/// the machine or the object has no identity yet. What makes the name is the object's content at that moment, so
/// making it again meets the one that is there.
pub fn revision(vm: &VirtualMachine, object: &Value) -> Option<ControllerRevision> {
    let (vm_name, vm_uid) = (vm.metadata.name.as_ref()?, vm.metadata.uid.as_ref()?);
    let metadata = &object["metadata"];
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let (kind, api_version) = (text(&object["kind"])?, text(&object["apiVersion"])?);
    let (name, uid, generation) = (text(&metadata["name"])?, text(&metadata["uid"])?, metadata["generation"].as_i64()?);
    let version = api_version.rsplit('/').next().unwrap_or_default();
    let labels = [
        ("kind", kind.clone()),
        ("name", name.clone()),
        ("version", version.to_owned()),
        ("uid", uid.clone()),
        ("generation", generation.to_string()),
    ];
    let mut kept = json!({"name": name, "uid": uid, "generation": generation});
    if let Some(namespace) = text(&metadata["namespace"]) {
        kept["namespace"] = json!(namespace);
    }
    let data = json!({"apiVersion": api_version, "kind": kind, "metadata": kept, "spec": object["spec"]});
    Some(ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{vm_name}-{name}-{version}-{uid}-{generation}")),
            namespace: vm.metadata.namespace.clone(),
            labels: Some(
                labels.map(|(label, value)| (format!("instancetype.kubevirt.io/object-{label}"), value)).into(),
            ),
            owner_references: Some(vec![OwnerReference {
                api_version: "kubevirt.io/v1".to_owned(),
                kind: "VirtualMachine".to_owned(),
                name: vm_name.clone(),
                uid: vm_uid.clone(),
                controller: Some(true),
                block_owner_deletion: Some(true),
            }]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(data)),
        revision: 0,
    })
}

/// The instance type that a ControllerRevision holds.
pub fn stored_instancetype(revision: &ControllerRevision) -> Result<VirtualMachineInstancetypeSpec, RevisionError> {
    stored(revision, "Instancetype", "an instance type")
}

/// The preference that a ControllerRevision holds.
pub fn stored_preference(revision: &ControllerRevision) -> Result<VirtualMachinePreferenceSpec, RevisionError> {
    stored(revision, "Preference", "a preference")
}

fn stored<T: DeserializeOwned>(
    revision: &ControllerRevision,
    kind: &str,
    expected: &'static str,
) -> Result<T, RevisionError> {
    let name = || revision.metadata.name.clone().unwrap_or_default();
    let data = revision.data.as_ref().map(|data| &data.0);
    let Some(spec) = data.map(|data| &data["spec"]).filter(|spec| spec.is_object()) else {
        return Err(RevisionError::Empty { name: name() });
    };
    let found = data.and_then(|data| data["kind"].as_str()).unwrap_or_default();
    if !found.to_ascii_lowercase().ends_with(&kind.to_ascii_lowercase()) {
        return Err(RevisionError::Kind { name: name(), found: format!("`{found}`"), expected });
    }
    serde_json::from_value(spec.clone()).map_err(|source| RevisionError::Content { name: name(), source })
}
