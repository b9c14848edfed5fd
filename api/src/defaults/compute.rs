//! CPUs and memory that a VMI leaves out.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::is_arm;
use crate::config::ClusterConfig;
use crate::kubevirt::{CPU, ResourceRequirements, VirtualMachineInstanceSpec};
use crate::quantity;

/// The most CPUs that a guest may grow to.
const MAX_VCPUS: i64 = 512;
/// The smallest guest whose memory can grow while it runs.
const MIN_GROWING_MEMORY: i64 = 1 << 30;
/// The unit in which a guest's memory grows.
const GROWTH_UNIT: i64 = 2 << 20;

/// One socket, core and thread where nothing is said, or as many sockets as CPUs are limited or
/// requested; and the sockets that the guest may grow to, where sockets are known.
pub(super) fn default_cpu(spec: &mut VirtualMachineInstanceSpec, config: &ClusterConfig) {
    let arm = is_arm(spec);
    let sockets = sockets_of(spec.domain.resources.as_ref());
    let cpu = spec.domain.cpu.get_or_insert_with(CPU::default);
    if cpu.sockets.is_none() && cpu.cores.is_none() && cpu.threads.is_none() {
        cpu.sockets = Some(sockets);
        cpu.cores = Some(1);
        cpu.threads = Some(1);
    }
    let model = if arm { "host-passthrough" } else { &config.cpu_model };
    cpu.model.get_or_insert_with(|| model.to_owned());
    if cpu.max_sockets.is_none()
        && !arm
        && config.live_update
        && let Some(sockets) = cpu.sockets
    {
        let per_socket = cpu.cores.unwrap_or(1).max(1).saturating_mul(cpu.threads.unwrap_or(1).max(1));
        let by_ratio = sockets.saturating_mul(i64::from(config.max_hotplug_ratio));
        let wanted = config.max_sockets.map_or(by_ratio, i64::from);
        let fitting = MAX_VCPUS / per_socket.max(1);
        cpu.max_sockets = Some(wanted.min(fitting).max(sockets));
    }
}

/// The sockets that the limits, else the requests, stand for: whole CPUs, rounded up, at least 1.
fn sockets_of(resources: Option<&ResourceRequirements>) -> i64 {
    let Some(resources) = resources else { return 1 };
    let cpus = resources.limits.get("cpu").or_else(|| resources.requests.get("cpu"));
    cpus.and_then(|cpus| quantity::parse(cpus).ok()).map_or(1, |cpus| cpus.value().max(1))
}

/// The guest's memory where only requests, limits or huge pages say it; and the memory that the
/// guest may grow to, where it can.
pub(super) fn default_memory(spec: &mut VirtualMachineInstanceSpec, config: &ClusterConfig) {
    let guest = spec.domain.memory.as_ref().and_then(|m| m.guest.clone());
    if guest.is_none()
        && let Some(implied) = implied_memory(spec)
    {
        spec.domain.memory.get_or_insert_default().guest = Some(implied);
    }
    if !config.live_update || !can_grow(spec) {
        return;
    }
    let Some(memory) = &mut spec.domain.memory else {
        return;
    };
    let Some(Ok(guest)) = memory.guest.as_ref().map(quantity::parse) else {
        return;
    };
    let bytes = guest.value();
    if memory.max_guest.is_none() && bytes >= MIN_GROWING_MEMORY && bytes % GROWTH_UNIT == 0 {
        let by_ratio = || quantity::Parsed::bytes(bytes).times(i64::from(config.max_hotplug_ratio)).canonical();
        memory.max_guest = Some(config.max_guest.clone().unwrap_or_else(by_ratio));
    }
}

fn implied_memory(spec: &VirtualMachineInstanceSpec) -> Option<Quantity> {
    let resources = spec.domain.resources.as_ref();
    let named = |map: fn(&ResourceRequirements) -> Option<&Quantity>| resources.and_then(map).cloned();
    named(|r| r.requests.get("memory")).or_else(|| named(|r| r.limits.get("memory"))).or_else(|| {
        let pages = spec.domain.memory.as_ref()?.hugepages.as_ref()?;
        pages.page_size.clone().map(Quantity)
    })
}

/// Whether memory can be added while the guest runs.
fn can_grow(spec: &VirtualMachineInstanceSpec) -> bool {
    let cpu = spec.domain.cpu.as_ref();
    let pinned = cpu.is_some_and(|cpu| {
        cpu.realtime.is_some() || cpu.numa.as_ref().is_some_and(|numa| numa.guest_mapping_passthrough.is_some())
    });
    !pinned && spec.domain.launch_security.is_none() && matches!(spec.architecture.as_deref(), Some("amd64" | "arm64"))
}
