//! The pod of a VMI (pure): what it is called, what is in it, and what of it matters afterwards.
//!
//! Its name is made from the VMI's UID, so that whoever makes it a second time finds it there.

mod facts;
mod placement;
mod resources;
mod template;
#[cfg(test)]
mod tests;
mod volumes;

pub use facts::{ComputeState, LeasedNic, PodFacts, is_ordinary};
pub use resources::overhead;
pub use template::{Input, POD_GRACE, grace, launcher_pod, pod_name, pods_of};

/// Condition of a pod that is True while its guest is not paused; a readiness gate.
pub const UNPAUSED: &str = "kubevirt.io/virtual-machine-unpaused";
/// Label of a pod that says which part of KubeVirt it is.
pub const COMPONENT_LABEL: &str = "kubevirt.io";
/// Label of a launcher's pod: UID of its VMI.
pub const CREATED_BY_LABEL: &str = "kubevirt.io/created-by";
/// Label of a launcher's pod: name of its VMI, as far as labels can have it.
const VMI_LABEL: &str = "vmi.kubevirt.io/id";
/// Annotation of a launcher's pod: name of its VMI.
const DOMAIN_ANNOTATION: &str = "kubevirt.io/domain";
/// Label of a VMI: the node that it is on.
pub const NODE_NAME_LABEL: &str = "kubevirt.io/nodeName";
/// The launcher's container.
pub const COMPUTE: &str = "compute";
