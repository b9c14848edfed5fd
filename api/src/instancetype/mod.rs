//! Instance types and preferences: what they make of a machine.
//!
//! An instance type decides about a machine's size, and a machine that names one may not say anything about it
//! itself: what both say is a conflict. A preference only fills in what the machine leaves out. Both are applied to
//! the copy of the template that becomes the instance, before defaulting; so that a machine stays what it was, the
//! objects are kept as ControllerRevisions when it first names them.

mod preference;
mod revision;
mod size;
mod topology;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

pub use revision::{RevisionError, revision, stored_instancetype, stored_preference};
pub use topology::{Topology, TopologyError};

use crate::admit::Others;
use crate::defaults::show_volumes;
use crate::error_status::ErrorStatus;
use crate::kubevirt::{
    InstancetypeStatusRef, VirtualMachine, VirtualMachineInstanceSpec, VirtualMachineInstancetypeSpec,
    VirtualMachinePreferenceSpec,
};
use crate::quantity;
use crate::validate::Causes;

/// What a matcher that names no kind means.
pub const CLUSTER_INSTANCETYPE: &str = "virtualmachineclusterinstancetype";
/// What a matcher that names no kind means.
pub const CLUSTER_PREFERENCE: &str = "virtualmachineclusterpreference";

/// Whether the kind of a matcher is the one for the whole cluster. Matchers name kinds in any case, in singular or
/// plural; without a kind they mean those of the cluster.
pub fn is_cluster_wide(kind: &str) -> bool {
    kind.is_empty() || kind.to_ascii_lowercase().starts_with("virtualmachinecluster")
}

/// The instance type and the preference of a machine, where they are known.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sizes {
    /// The instance type.
    pub instancetype: Option<VirtualMachineInstancetypeSpec>,
    /// The preference.
    pub preference: Option<VirtualMachinePreferenceSpec>,
}

impl Sizes {
    /// Looks for both, first in the ControllerRevisions that the machine was given.
    pub fn find(vm: &VirtualMachine, namespace: &str, others: &dyn Others) -> Self {
        let status = vm.status.as_ref();
        let kept = |name: &Option<String>, revision: &Option<String>, status: Option<&InstancetypeStatusRef>| {
            let of_status = status.filter(|status| status.name == *name);
            let of_status = of_status.and_then(|status| status.controller_revision_ref.as_ref()?.name.as_ref());
            others.revision(namespace, revision.as_ref().or(of_status).filter(|name| !name.is_empty())?)
        };
        let instancetype = vm.spec.instancetype.as_ref().and_then(|matcher| {
            let status = status.and_then(|status| status.instancetype_ref.as_ref());
            kept(&matcher.name, &matcher.revision_name, status)
                .and_then(|revision| stored_instancetype(&revision).ok())
                .or_else(|| {
                    others.instancetype(
                        namespace,
                        matcher.kind.as_deref().unwrap_or_default(),
                        matcher.name.as_deref()?,
                    )
                })
        });
        let preference = vm.spec.preference.as_ref().and_then(|matcher| {
            let status = status.and_then(|status| status.preference_ref.as_ref());
            kept(&matcher.name, &matcher.revision_name, status)
                .and_then(|revision| stored_preference(&revision).ok())
                .or_else(|| {
                    others.preference(namespace, matcher.kind.as_deref().unwrap_or_default(), matcher.name.as_deref()?)
                })
        });
        Self { instancetype, preference }
    }
}

/// The fields of a machine that its instance type decides about and that are set all the same.
pub fn conflicts(
    instancetype: &VirtualMachineInstancetypeSpec,
    metadata: &ObjectMeta,
    spec: &VirtualMachineInstanceSpec,
) -> Vec<String> {
    size::conflicts(instancetype, metadata, spec)
}

/// Applies both to an instance that is made from a machine, before its defaults. Nothing is changed where there are
/// conflicts; they are named as fields of the machine.
pub fn apply(
    instancetype: Option<&VirtualMachineInstancetypeSpec>,
    preference: Option<&VirtualMachinePreferenceSpec>,
    metadata: &mut ObjectMeta,
    spec: &mut VirtualMachineInstanceSpec,
) -> Result<(), Vec<String>> {
    if let Some(instancetype) = instancetype {
        let conflicts = conflicts(instancetype, metadata, spec);
        if !conflicts.is_empty() {
            return Err(conflicts);
        }
        size::apply(instancetype, preference, metadata, spec);
    }
    if let Some(preference) = preference {
        show_volumes(spec);
        preference::apply(preference, metadata, spec);
    }
    Ok(())
}

/// Writes what both make of a machine into the machine itself, which then names neither.
pub fn expand(
    vm: &mut VirtualMachine,
    instancetype: Option<&VirtualMachineInstancetypeSpec>,
    preference: Option<&VirtualMachinePreferenceSpec>,
) -> Result<(), Vec<String>> {
    let template = &mut vm.spec.template;
    let mut metadata = template.metadata.clone().unwrap_or_default();
    let spec = template.spec.get_or_insert_default();
    apply(instancetype, preference, &mut metadata, spec)?;
    if template.metadata.is_some() || metadata != ObjectMeta::default() {
        template.metadata = Some(metadata);
    }
    vm.spec.instancetype = None;
    vm.spec.preference = None;
    Ok(())
}

/// What a machine lacks that its preference asks for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unmet {
    /// Too few CPUs.
    #[error("insufficient CPU resources of {found} vCPU provided by {by}, preference requires {needed} vCPU")]
    Cpu {
        /// CPUs that there are.
        found: i64,
        /// CPUs that there must be.
        needed: i64,
        /// Who says how many there are.
        by: &'static str,
    },
    /// Too little memory.
    #[error("insufficient Memory resources of {found} provided by {by}, preference requires {needed}")]
    Memory {
        /// Memory that there is.
        found: String,
        /// Memory that there must be.
        needed: String,
        /// Who says how much there is.
        by: &'static str,
    },
    /// Another architecture.
    #[error("preference requires architecture {needed} but {found} is being requested")]
    Architecture {
        /// The machine's.
        found: String,
        /// The preference's.
        needed: String,
    },
    /// The CPUs cannot be spread.
    #[error(transparent)]
    Topology(#[from] TopologyError),
}

impl Unmet {
    /// The refusal.
    pub fn to_status(&self) -> ErrorStatus {
        let field = match self {
            Self::Cpu { .. } | Self::Memory { .. } | Self::Topology(_) => "spec.instancetype",
            Self::Architecture { .. } => "spec.template.spec.architecture",
        };
        let mut causes = Causes::default();
        causes.invalid(field, self.to_string());
        causes.into_error()
    }
}

/// Whether an instance, with both applied, has what its preference asks for.
pub fn requirements(
    instancetype: Option<&VirtualMachineInstancetypeSpec>,
    preference: Option<&VirtualMachinePreferenceSpec>,
    spec: &VirtualMachineInstanceSpec,
) -> Result<(), Unmet> {
    let Some(preference) = preference else { return Ok(()) };
    if let Some(instancetype) = instancetype {
        Topology::of(instancetype.cpu.guest, Some(preference))?;
    }
    let Some(required) = &preference.requirements else { return Ok(()) };
    let by = if instancetype.is_some() { "instance type" } else { "VM" };
    if let Some(cpu) = &required.cpu {
        let given = spec.domain.cpu.clone().unwrap_or_default();
        let count = |part: Option<i64>| part.unwrap_or(1).max(1);
        let found = count(given.sockets).saturating_mul(count(given.cores)).saturating_mul(count(given.threads));
        if found < cpu.guest {
            return Err(Unmet::Cpu { found, needed: cpu.guest, by });
        }
    }
    if let Some(memory) = &required.memory {
        let found = spec.domain.memory.as_ref().and_then(|memory| memory.guest.clone());
        let bytes = |text: &_| quantity::parse(text).map_or(0, quantity::Parsed::value);
        if found.as_ref().map_or(0, bytes) < bytes(&memory.guest) {
            let found = found.map_or_else(|| "0".to_owned(), |found| found.0);
            return Err(Unmet::Memory { found, needed: memory.guest.0.clone(), by });
        }
    }
    if let (Some(needed), Some(found)) = (&required.architecture, &spec.architecture)
        && needed != found
    {
        return Err(Unmet::Architecture { found: found.clone(), needed: needed.clone() });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
