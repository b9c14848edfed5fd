//! How much memory the guest has, and how many free ports a machine of its size keeps for hot-plug.

use holdfast_api::kubevirt::DomainSpec;
use holdfast_api::quantity;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::Serialize;

use super::DomainError;

/// `<memory>`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Memory {
    #[serde(rename = "@unit")]
    unit: &'static str,
    #[serde(rename = "$text")]
    kib: i64,
}

/// Machines of more memory than this get more ports.
const LARGE: i64 = 2 << 30;

fn bytes(spec: &DomainSpec) -> Result<i64, DomainError> {
    let read = |field, quantity: &Quantity| {
        let parsed = quantity::parse(quantity);
        parsed.map(quantity::Parsed::value).map_err(|source| DomainError::Quantity {
            field,
            value: quantity.0.clone(),
            source,
        })
    };
    if let Some(guest) = spec.memory.as_ref().and_then(|memory| memory.guest.as_ref()) {
        return read("spec.domain.memory.guest", guest);
    }
    let resources = spec.resources.as_ref();
    if let Some(request) = resources.and_then(|resources| resources.requests.get("memory")) {
        return read("spec.domain.resources.requests.memory", request);
    }
    if let Some(limit) = resources.and_then(|resources| resources.limits.get("memory")) {
        return read("spec.domain.resources.limits.memory", limit);
    }
    Ok(8 << 20)
}

/// The guest's memory: what is asked for it, else what is requested for the VM, else its limit.
pub(super) fn guest(spec: &DomainSpec) -> Result<Memory, DomainError> {
    Ok(Memory { unit: "KiB", kib: bytes(spec)? / 1024 })
}

/// Ports to keep free between the NICs and the rest, where `used` ports carry a device: what is left of 8 (of 16
/// beyond 2 GiB), but at least 3 (6).
pub(super) fn spare_ports(spec: &DomainSpec, used: usize) -> Result<usize, DomainError> {
    if spec.devices.disable_hotplug == Some(true) {
        return Ok(0);
    }
    let (total, least) = if bytes(spec)? > LARGE { (16, 6) } else { (8, 3) };
    Ok(usize::max(least, usize::saturating_sub(total, used)))
}
