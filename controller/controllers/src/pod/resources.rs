//! What a VMI's pod asks its node for.

use std::collections::BTreeMap;

use holdfast_api::kubevirt::{VirtualMachineInstance, VirtualMachineInstanceSpec};
use holdfast_api::quantity;
use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

const MIB: i64 = 1 << 20;

/// virt-launcher, both of its processes.
const LAUNCHER: i64 = 4 * MIB;
/// libvirt's daemon, of which each launcher has its own.
const LIBVIRTD: i64 = 6 * MIB;
/// What the kernel keeps for the pod's processes: page tables, stacks, sockets.
const KERNEL: i64 = 4 * MIB;
/// Pages of programs and libraries, which count for the pod that reads them first on a node.
const PROGRAMS: i64 = 16 * MIB;
/// QEMU beside the guest's memory: heap, data, devices' buffers.
const QEMU: i64 = 36 * MIB;
/// Translated code, where the processor is emulated: the bound that the launcher gives QEMU, for a guest that is at work
/// reaches it, and a pod with a memory limit must not be killed for it.
const TRANSLATED_CODE: i64 = 128 * MIB;
/// Each virtual processor: its thread's stack and what KVM or the emulator keep for it.
const VCPU: i64 = 2 * MIB;
/// The screen's memory, where there is one.
const VIDEO: i64 = 16 * MIB;
/// One byte of page tables for so many bytes of the guest's memory: 8 bytes for each page of 4 KiB.
const PAGE_TABLES: i64 = 512;
/// The firmware TPM's process.
const TPM: i64 = 53 * MIB;
/// Disk space for logs and what libvirt writes; the guest's own is beside it.
const EPHEMERAL: &str = "50M";
/// How many virtual processors share one of a node, where the configuration says nothing.
const CPU_ALLOCATION_RATIO: i64 = 10;

/// Bytes that a VMI's pod needs beside the guest's memory. What each term covers and how it was measured:
/// docs/launcher.md.
pub fn overhead(vmi: &VirtualMachineInstance, emulation: bool) -> i64 {
    let spec = &vmi.spec;
    let devices = &spec.domain.devices;
    let screen = devices.autoattach_graphics_device != Some(false);
    let reserved = spec.domain.memory.as_ref().and_then(|memory| memory.reserved_overhead.as_ref());
    let reserved = reserved.and_then(|reserved| reserved.added_overhead.as_ref()).map_or(0, bytes);
    LAUNCHER
        + LIBVIRTD
        + KERNEL
        + PROGRAMS
        + QEMU
        + if emulation { TRANSLATED_CODE } else { 0 }
        + vcpus(spec) * VCPU
        + guest_memory(spec) / PAGE_TABLES
        + if screen { VIDEO } else { 0 }
        + if devices.tpm.is_some() { TPM } else { 0 }
        + reserved
}

/// Virtual processors that the guest has at boot.
pub fn vcpus(spec: &VirtualMachineInstanceSpec) -> i64 {
    let cpu = spec.domain.cpu.as_ref();
    let of = |number: Option<i64>| number.filter(|n| *n > 0).unwrap_or(1);
    cpu.map_or(1, |cpu| of(cpu.sockets).saturating_mul(of(cpu.cores)).saturating_mul(of(cpu.threads)))
}

/// The guest's memory in bytes.
fn guest_memory(spec: &VirtualMachineInstanceSpec) -> i64 {
    let guest = spec.domain.memory.as_ref().and_then(|memory| memory.guest.as_ref());
    let requested = spec.domain.resources.as_ref().and_then(|resources| resources.requests.get("memory"));
    guest.or(requested).map_or(0, bytes)
}

fn bytes(quantity: &Quantity) -> i64 {
    quantity::parse(quantity).map_or(0, |parsed| parsed.value())
}

/// What the container asks for, and is allowed.
///
/// CPU and memory are as the VMI says, with the overhead added to memory; what it leaves out follows from the guest's
/// size. Devices come from virt-handler's device plugins.
pub fn requirements(vmi: &VirtualMachineInstance, emulation: bool, cpu_ratio: Option<i64>) -> ResourceRequirements {
    let spec = &vmi.spec;
    let given = spec.domain.resources.clone().unwrap_or_default();
    let (mut requests, mut limits) = (BTreeMap::new(), BTreeMap::new());
    let memory = |bytes: i64| Quantity(bytes.to_string());
    let beside = overhead(vmi, emulation);
    let counted = if given.overcommit_guest_overhead == Some(true) { 0 } else { beside };
    let requested = given.requests.get("memory").map_or_else(|| guest_memory(spec), bytes);
    requests.insert("memory".to_owned(), memory(requested + counted));
    if let Some(limit) = given.limits.get("memory") {
        limits.insert("memory".to_owned(), memory(bytes(limit) + beside));
    }
    let ratio = cpu_ratio.filter(|ratio| *ratio > 0).unwrap_or(CPU_ALLOCATION_RATIO);
    let share = Quantity(format!("{}m", (vcpus(spec) * 1000 / ratio).max(1)));
    // A limit without a request is a request as well, as for any pod.
    let cpu = given.requests.get("cpu").or(given.limits.get("cpu")).cloned().unwrap_or(share);
    requests.insert("cpu".to_owned(), cpu);
    if let Some(limit) = given.limits.get("cpu") {
        limits.insert("cpu".to_owned(), limit.clone());
    }
    requests.insert("ephemeral-storage".to_owned(), Quantity(EPHEMERAL.to_owned()));
    let networked = !spec.domain.devices.interfaces.is_empty();
    let devices = [("kvm", !emulation), ("tun", networked), ("vhost-net", networked && !emulation)];
    for (device, _) in devices.into_iter().filter(|(_, needed)| *needed) {
        for list in [&mut requests, &mut limits] {
            list.insert(format!("devices.kubevirt.io/{device}"), Quantity("1".to_owned()));
        }
    }
    ResourceRequirements { requests: Some(requests), limits: Some(limits), claims: None }
}
