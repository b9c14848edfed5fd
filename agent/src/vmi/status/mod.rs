//! A VMI's status from what its task reports. Pure; times are passed in.
//!
//! Only the fields that the node knows are written; the rest of a status (nodeName, activePods, runtimeUser and
//! such) stays as it was. Names, values and messages are those that clients of the KubeVirt API know.

mod conditions;
mod events;
mod interfaces;

use holdfast_agent_api::launcher::{DomainState, GuestInfo};
use holdfast_api::kubevirt::{
    CPUTopology, Machine, MemoryStatus, VirtualMachineInstance, VirtualMachineInstanceGuestOSInfo,
    VirtualMachineInstanceStatus, VolumeStatus,
};
use holdfast_api::status;
use k8s_openapi::jiff::Timestamp;

use super::VmiReport;

pub use events::{COMMAND_EVENTS, Occurrence, OccurrenceKind, events};

/// The status of `vmi` with what `report` says. Calling it again with its own result changes nothing.
pub fn derive(vmi: &VirtualMachineInstance, report: &VmiReport, now: Timestamp) -> VirtualMachineInstanceStatus {
    let mut status = vmi.status.clone().unwrap_or_default();
    if let Some(phase) = phase(report) {
        status::set_phase(&mut status, phase, now);
    }
    if let Some(end) = report.final_state().filter(|end| !end.succeeded) {
        status.reason = Some(end.reason.clone());
    }
    conditions::set(&mut status, vmi, report, now);
    status.volume_status = volumes(vmi, report, &status.volume_status);
    if report.is_alive() {
        status.interfaces = interfaces::join(vmi, report);
        status.guest_os_info = Some(report.guest.as_ref().map(guest_os).unwrap_or_default());
        status.current_cpu_topology = vmi.spec.domain.cpu.as_ref().map(|cpu| CPUTopology {
            cores: cpu.cores,
            sockets: cpu.sockets,
            threads: cpu.threads,
        });
        if !report.domain.machine.is_empty() {
            status.machine = Some(Machine { r#type: Some(report.domain.machine.clone()) });
        }
        memory(vmi, &mut status);
    }
    status
}

/// The phase that a report leads to; none where it says nothing about it.
fn phase(report: &VmiReport) -> Option<&'static str> {
    match &report.domain.state {
        DomainState::None => None,
        DomainState::Running | DomainState::Paused { .. } | DomainState::ShuttingDown => Some("Running"),
        DomainState::Final(end) if end.succeeded => Some("Succeeded"),
        DomainState::Final(_) => Some("Failed"),
    }
}

/// The volumes by name; a target that was known stays known after the domain is gone.
fn volumes(vmi: &VirtualMachineInstance, report: &VmiReport, before: &[VolumeStatus]) -> Vec<VolumeStatus> {
    let target = |name: &str| report.domain.volume_targets.iter().find(|(volume, _)| volume == name);
    let entry = |name: &String| {
        let mut entry = before.iter().find(|entry| &entry.name == name).cloned();
        let entry = entry.get_or_insert_with(|| VolumeStatus { name: name.clone(), ..VolumeStatus::default() });
        if let Some((_, target)) = target(name) {
            entry.target.clone_from(target);
        }
        entry.clone()
    };
    let mut volumes: Vec<_> = vmi.spec.volumes.iter().map(|volume| entry(&volume.name)).collect();
    volumes.sort_by(|a, b| a.name.cmp(&b.name));
    volumes
}

fn guest_os(guest: &GuestInfo) -> VirtualMachineInstanceGuestOSInfo {
    let field = |key: &str| guest.os.get(key).filter(|value| !value.is_empty()).cloned();
    VirtualMachineInstanceGuestOSInfo {
        id: field("id"),
        kernel_release: field("kernel-release"),
        kernel_version: field("kernel-version"),
        machine: field("machine"),
        name: field("name"),
        pretty_name: field("pretty-name"),
        version: field("version"),
        version_id: field("version-id"),
    }
}

/// The guest's memory: as at boot, for it cannot change while the VM runs.
fn memory(vmi: &VirtualMachineInstance, status: &mut VirtualMachineInstanceStatus) {
    let guest = vmi.spec.domain.memory.as_ref().and_then(|memory| memory.guest.clone());
    let Some(guest) = guest else { return };
    let memory = status.memory.get_or_insert_with(MemoryStatus::default);
    memory.guest_at_boot.get_or_insert_with(|| guest.clone());
    memory.guest_current.get_or_insert_with(|| guest.clone());
    memory.guest_requested = Some(guest);
}

#[cfg(test)]
mod tests;
