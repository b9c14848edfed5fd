//! What the schema of a field, beyond its type, does not allow.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause;

use crate::error_status::ErrorStatus;
use crate::kubevirt::VirtualMachineInstanceSpec;
use crate::quantity;

/// The values of `imagePullPolicy`.
const PULL_POLICIES: [&str; 3] = ["Always", "IfNotPresent", "Never"];

/// Refuses values that have the right type and yet cannot be read.
pub(crate) fn check_spec(spec: &VirtualMachineInstanceSpec, at: &str) -> Result<(), ErrorStatus> {
    for quantity in quantities(spec) {
        quantity::parse(quantity).map_err(|error| ErrorStatus::unreadable(error.to_string()))?;
    }
    for volume in &spec.volumes {
        let policy = volume.container_disk.as_ref().and_then(|disk| disk.image_pull_policy.as_deref());
        if policy.is_some_and(|policy| !PULL_POLICIES.contains(&policy)) {
            let known = PULL_POLICIES.join(" ");
            let field = format!("{at}.volumes.containerDisk.imagePullPolicy");
            return Err(schema_error(vec![format!("{field} in body should be one of [{known}]")]));
        }
    }
    Ok(())
}

/// The answer to an object that its schema does not allow; causes without a field.
pub(super) fn schema_error(messages: Vec<String>) -> ErrorStatus {
    let cause = |message| StatusCause { message: Some(message), ..StatusCause::default() };
    ErrorStatus::invalid(messages.into_iter().map(cause).collect())
}

/// Each quantity in a spec.
fn quantities(spec: &VirtualMachineInstanceSpec) -> impl Iterator<Item = &Quantity> {
    let domain = &spec.domain;
    let memory = domain.memory.iter().flat_map(|memory| {
        let overhead = memory.reserved_overhead.as_ref().and_then(|overhead| overhead.added_overhead.as_ref());
        [memory.guest.as_ref(), memory.max_guest.as_ref(), overhead]
    });
    let resources = domain.resources.iter().flat_map(|r| r.requests.values().chain(r.limits.values()));
    let volumes = spec.volumes.iter().flat_map(|volume| {
        let empty = volume.empty_disk.as_ref().map(|disk| &disk.capacity);
        [empty, volume.host_disk.as_ref().and_then(|disk| disk.capacity.as_ref())]
    });
    memory.flatten().chain(resources).chain(volumes.flatten())
}
