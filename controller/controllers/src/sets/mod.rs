//! Numbers of equal things: VirtualMachineInstanceReplicaSets of VMIs, VirtualMachinePools of VMs.
//!
//! Invariants: only what a set controls counts and is touched; what it made goes with it by the garbage collector, by
//! owner references; one round makes or deletes at most [`BURST`] things.

pub mod pool;
pub mod replica_set;
mod status;

use holdfast_api::kubevirt::{VirtualMachineInstanceReplicaSet, VirtualMachinePool};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::Value;

use crate::api::ApiError;
use crate::engine::Cached;

/// Most things that one round makes or deletes.
const BURST: usize = 50;

/// Why a set is not as it shall be.
#[derive(Debug, thiserror::Error)]
pub enum SetError {
    /// A call failed.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// An object of ours cannot be written as JSON.
    #[error("failed to encode a set")]
    Encode(#[from] serde_json::Error),
}

impl Cached for VirtualMachineInstanceReplicaSet {
    fn read(object: Value) -> Result<Self, serde_json::Error> {
        serde_json::from_value(object)
    }
}

impl Cached for VirtualMachinePool {
    fn read(object: Value) -> Result<Self, serde_json::Error> {
        serde_json::from_value(object)
    }
}

/// The reference by which a set controls what it makes.
fn owner(api_version: &str, kind: &str, meta: &ObjectMeta) -> OwnerReference {
    OwnerReference {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Whether the object with this UID controls the other.
fn is_controlled(meta: &ObjectMeta, uid: Option<&String>) -> bool {
    let owners = meta.owner_references.as_deref().unwrap_or_default();
    owners.iter().any(|owner| owner.controller == Some(true) && Some(&owner.uid) == uid)
}

/// Name of the set of that kind that controls an object.
pub fn owner_name(meta: &ObjectMeta, kind: &str) -> Option<String> {
    let owners = meta.owner_references.as_deref().unwrap_or_default();
    let owner = owners.iter().find(|owner| owner.controller == Some(true) && owner.kind == kind)?;
    Some(owner.name.clone())
}
