//! What a VM and a VMI that leave something out mean.
//!
//! Defaulting runs once, when an object is created, before validation; what it writes stays with
//! the object. It is pure: identities come from the caller, so that a host that reads its VMs from
//! files can give a VM the same ones each time. Defaulting a defaulted object changes nothing.

mod compute;
mod devices;
mod features;

pub(crate) use devices::show_volumes;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use uuid::Uuid;

use crate::config::ClusterConfig;
use crate::kubevirt::{
    Bootloader, CPUTopology, EFI, Firmware, Machine, MemoryStatus, ResourceRequirements, VirtualMachine,
    VirtualMachineInstance, VirtualMachineInstanceGuestOSInfo, VirtualMachineInstanceSpec,
    VirtualMachineInstanceStatus, VirtualMachineInstanceTemplateSpec,
};
use crate::status;

/// The finalizer with which a VMI stays until its guest is gone.
pub const VMI_FINALIZER: &str = "kubevirt.io/foregroundDeleteVirtualMachine";
/// Names how a guest's PCI devices are laid out.
pub const PCI_TOPOLOGY_ANNOTATION: &str = "kubevirt.io/pci-topology-version";
/// The layout of guests made now.
const PCI_TOPOLOGY: &str = "v3";
/// The user that a guest's process runs as.
const RUNTIME_USER: i64 = 107;

/// Where new identities come from: given `firmware.uuid` or `firmware.serial`, the UUID to use.
pub type Identities<'a> = &'a mut dyn FnMut(&str) -> Uuid;

/// Identities that are always the same for one object: each the SHA-1 UUID (version 5) of its
/// name in the namespace of the object's uid.
pub fn stable_identities(uid: Uuid) -> impl FnMut(&str) -> Uuid {
    move |what| Uuid::new_v5(&uid, what.as_bytes())
}

/// Fills in what a new VM leaves out. Most defaults are not among them: they are applied to the
/// VMI at each start, so that they follow the version that starts it. Here is what must not
/// change from start to start: what the guest takes for its identity and its hardware.
pub fn default_vm(vm: &mut VirtualMachine, config: &ClusterConfig, identities: Identities) {
    let template = &mut vm.spec.template;
    annotate(template.metadata.get_or_insert_default());
    let spec = template.spec.get_or_insert_default();
    default_architecture(spec, config);
    let firmware = spec.domain.firmware.get_or_insert_default();
    if firmware.uuid.is_none() {
        firmware.uuid = Some(identities("firmware.uuid").to_string());
    }
    if firmware.serial.is_none() {
        firmware.serial = Some(identities("firmware.serial").to_string());
    }
    default_machine(spec, config);
    spec.domain.resources.get_or_insert_with(ResourceRequirements::default);
}

/// Fills in what a new VMI leaves out, and the status that it starts with.
pub fn default_vmi(vmi: &mut VirtualMachineInstance, config: &ClusterConfig, identities: Identities, now: Timestamp) {
    annotate(&mut vmi.metadata);
    let finalizers = vmi.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|entry| entry == VMI_FINALIZER) {
        finalizers.push(VMI_FINALIZER.to_owned());
    }
    default_vmi_spec(&mut vmi.spec, config, identities);
    vmi.status = Some(first_status(&vmi.spec, now));
}

/// The spec of the VMI that a template comes to, for rules that hold for both.
pub(crate) fn defaulted_template(
    template: &VirtualMachineInstanceTemplateSpec,
    config: &ClusterConfig,
) -> Option<VirtualMachineInstanceSpec> {
    let mut spec = template.spec.clone()?;
    default_vmi_spec(&mut spec, config, &mut |_| Uuid::nil());
    Some(spec)
}

fn default_vmi_spec(spec: &mut VirtualMachineInstanceSpec, config: &ClusterConfig, identities: Identities) {
    default_architecture(spec, config);
    default_machine(spec, config);
    features::default_features(spec);
    compute::default_cpu(spec, config);
    compute::default_memory(spec, config);
    let firmware = spec.domain.firmware.get_or_insert_with(Firmware::default);
    if firmware.uuid.is_none() {
        firmware.uuid = Some(identities("firmware.uuid").to_string());
    }
    if is_arm(spec) {
        let firmware = spec.domain.firmware.get_or_insert_with(Firmware::default);
        firmware.bootloader.get_or_insert_with(|| Bootloader {
            bios: None,
            efi: Some(EFI { secure_boot: Some(false), ..EFI::default() }),
        });
    }
    spec.domain.resources.get_or_insert_with(ResourceRequirements::default);
    devices::default_devices(spec, config);
    devices::default_volumes(spec);
    devices::default_probes(spec);
    if spec.eviction_strategy.is_none() {
        spec.eviction_strategy = Some(config.eviction_strategy.clone());
    }
}

/// The status of a VMI that nothing has looked at yet.
fn first_status(spec: &VirtualMachineInstanceSpec, now: Timestamp) -> VirtualMachineInstanceStatus {
    let mut first = VirtualMachineInstanceStatus {
        guest_os_info: Some(VirtualMachineInstanceGuestOSInfo::default()),
        runtime_user: Some(RUNTIME_USER),
        ..VirtualMachineInstanceStatus::default()
    };
    if let Some(cpu) = &spec.domain.cpu {
        first.current_cpu_topology = Some(CPUTopology { cores: cpu.cores, sockets: cpu.sockets, threads: cpu.threads });
    }
    if let Some(guest) = spec.domain.memory.as_ref().and_then(|m| m.guest.as_ref()) {
        first.memory = Some(MemoryStatus {
            guest_at_boot: Some(guest.clone()),
            guest_current: Some(guest.clone()),
            guest_requested: Some(guest.clone()),
            memory_overhead: None,
        });
    }
    status::set_phase(&mut first, "Pending", now);
    first
}

fn annotate(metadata: &mut ObjectMeta) {
    metadata
        .annotations
        .get_or_insert_default()
        .entry(PCI_TOPOLOGY_ANNOTATION.to_owned())
        .or_insert_with(|| PCI_TOPOLOGY.to_owned());
}

fn default_architecture(spec: &mut VirtualMachineInstanceSpec, config: &ClusterConfig) {
    spec.architecture.get_or_insert_with(|| config.architecture.clone());
}

fn default_machine(spec: &mut VirtualMachineInstanceSpec, config: &ClusterConfig) {
    let machine = &config.machines(spec.architecture.as_deref().unwrap_or_default()).default;
    spec.domain.machine.get_or_insert_with(Machine::default).r#type.get_or_insert_with(|| machine.clone());
}

fn is_arm(spec: &VirtualMachineInstanceSpec) -> bool {
    spec.architecture.as_deref() == Some("arm64")
}

#[cfg(test)]
mod tests;
