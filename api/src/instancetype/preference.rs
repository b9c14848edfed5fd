//! Preferences: what a machine gets where it says nothing itself.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::size::or;
use crate::kubevirt::{
    BIOS, Bootloader, DevicePreferences, Devices, Disk, DiskTarget, DomainSpec, EFI, FeatureHyperv, FeaturePreferences,
    FirmwarePreferences, Timer, VirtualMachineInstanceSpec, VirtualMachinePreferenceSpec,
};

/// Fills in what an instance leaves out.
pub(super) fn apply(
    preference: &VirtualMachinePreferenceSpec,
    metadata: &mut ObjectMeta,
    spec: &mut VirtualMachineInstanceSpec,
) {
    if let Some(devices) = &preference.devices {
        set_devices(devices, spec);
    }
    let domain = &mut spec.domain;
    if let Some(features) = &preference.features {
        set_features(features, domain);
    }
    if let Some(firmware) = &preference.firmware {
        set_firmware(firmware, domain);
    }
    set_cpu_features(preference, domain);
    set_clock(preference, domain);
    if let Some(machine) = preference.machine.as_ref().and_then(|machine| machine.preferred_machine_type.as_ref()) {
        or(&mut domain.machine.get_or_insert_default().r#type, Some(machine));
    }
    or(&mut domain.launch_security, preference.preferred_launch_security.as_ref());
    or(&mut spec.architecture, preference.preferred_architecture.as_ref());
    or(&mut spec.subdomain, preference.preferred_subdomain.as_ref());
    or(&mut spec.termination_grace_period_seconds, preference.preferred_termination_grace_period_seconds.as_ref());
    annotate(metadata, &preference.annotations);
}

/// Adds annotations; those that are there stay.
pub(super) fn annotate(metadata: &mut ObjectMeta, annotations: &BTreeMap<String, String>) {
    if annotations.is_empty() {
        return;
    }
    let given = metadata.annotations.get_or_insert_default();
    for (key, value) in annotations {
        given.entry(key.clone()).or_insert_with(|| value.clone());
    }
}

fn set_devices(given: &DevicePreferences, spec: &mut VirtualMachineInstanceSpec) {
    let devices = &mut spec.domain.devices;
    let switches = [
        (&mut devices.autoattach_graphics_device, given.preferred_autoattach_graphics_device),
        (&mut devices.autoattach_input_device, given.preferred_autoattach_input_device),
        (&mut devices.autoattach_mem_balloon, given.preferred_autoattach_mem_balloon),
        (&mut devices.autoattach_pod_interface, given.preferred_autoattach_pod_interface),
        (&mut devices.autoattach_serial_console, given.preferred_autoattach_serial_console),
        (&mut devices.disable_hotplug, given.preferred_disable_hotplug),
        (&mut devices.use_virtio_transitional, given.preferred_use_virtio_transitional),
        (&mut devices.block_multi_queue, given.preferred_block_multi_queue),
        (&mut devices.network_interface_multiqueue, given.preferred_network_interface_multi_queue),
    ];
    for (field, value) in switches {
        or(field, value.as_ref());
    }
    for disk in &mut devices.disks {
        set_disk(given, disk);
    }
    let pod = |name: &str| spec.networks.iter().any(|network| network.name == name && network.pod.is_some());
    for interface in &mut devices.interfaces {
        or(&mut interface.model, given.preferred_interface_model.as_ref().filter(|_| interface.sriov.is_none()));
        let bound = interface.bridge.is_some()
            || interface.masquerade.is_some()
            || interface.sriov.is_some()
            || interface.passt_binding.is_some()
            || interface.binding.is_some();
        if !bound && pod(&interface.name) {
            or(&mut interface.masquerade, given.preferred_interface_masquerade.as_ref());
        }
    }
    set_others(given, devices);
}

fn set_disk(given: &DevicePreferences, disk: &mut Disk) {
    if disk.disk.is_none() && disk.cdrom.is_none() && disk.lun.is_none() {
        disk.disk = Some(DiskTarget::default());
    }
    if let Some(target) = &mut disk.disk {
        or(&mut target.bus, given.preferred_disk_bus.as_ref());
        if target.bus.as_deref() == Some("virtio") {
            or(&mut disk.dedicated_io_thread, given.preferred_disk_dedicated_io_thread.as_ref());
        }
        or(&mut disk.cache, given.preferred_disk_cache.as_ref());
        or(&mut disk.io, given.preferred_disk_io.as_ref());
        or(&mut disk.block_size, given.preferred_disk_block_size.as_ref());
    }
    if let Some(target) = &mut disk.cdrom {
        or(&mut target.bus, given.preferred_cdrom_bus.as_ref());
    }
    if let Some(target) = &mut disk.lun {
        or(&mut target.bus, given.preferred_lun_bus.as_ref());
    }
}

fn set_others(given: &DevicePreferences, devices: &mut Devices) {
    for input in &mut devices.inputs {
        or(&mut input.bus, given.preferred_input_bus.as_ref());
        if input.r#type.is_empty()
            && let Some(preferred) = &given.preferred_input_type
        {
            input.r#type.clone_from(preferred);
        }
    }
    for panic in &mut devices.panic_devices {
        or(&mut panic.model, given.preferred_panic_device_model.as_ref());
    }
    for gpu in &mut devices.gpus {
        or(&mut gpu.virtual_gpu_options, given.preferred_virtual_gpu_options.as_ref());
    }
    if let Some(sound) = &mut devices.sound {
        or(&mut sound.model, given.preferred_sound_model.as_ref());
    }
    if let Some(video) = &given.preferred_video_type
        && devices.autoattach_graphics_device != Some(false)
    {
        or(&mut devices.video.get_or_insert_default().r#type, Some(video));
    }
    or(&mut devices.rng, given.preferred_rng.as_ref());
    or(&mut devices.tpm, given.preferred_tpm.as_ref());
}

fn set_features(given: &FeaturePreferences, domain: &mut DomainSpec) {
    let features = domain.features.get_or_insert_default();
    or(&mut features.acpi, given.preferred_acpi.as_ref());
    or(&mut features.apic, given.preferred_apic.as_ref());
    or(&mut features.kvm, given.preferred_kvm.as_ref());
    or(&mut features.pvspinlock, given.preferred_pvspinlock.as_ref());
    or(&mut features.smm, given.preferred_smm.as_ref());
    if let Some(given) = &given.preferred_hyperv {
        set_hyperv(given, features.hyperv.get_or_insert_default());
    }
}

fn set_hyperv(given: &FeatureHyperv, hyperv: &mut FeatureHyperv) {
    or(&mut hyperv.relaxed, given.relaxed.as_ref());
    or(&mut hyperv.vapic, given.vapic.as_ref());
    or(&mut hyperv.spinlocks, given.spinlocks.as_ref());
    or(&mut hyperv.vpindex, given.vpindex.as_ref());
    or(&mut hyperv.runtime, given.runtime.as_ref());
    or(&mut hyperv.synic, given.synic.as_ref());
    or(&mut hyperv.synictimer, given.synictimer.as_ref());
    or(&mut hyperv.reset, given.reset.as_ref());
    or(&mut hyperv.vendorid, given.vendorid.as_ref());
    or(&mut hyperv.frequencies, given.frequencies.as_ref());
    or(&mut hyperv.reenlightenment, given.reenlightenment.as_ref());
    or(&mut hyperv.tlbflush, given.tlbflush.as_ref());
    or(&mut hyperv.ipi, given.ipi.as_ref());
    or(&mut hyperv.evmcs, given.evmcs.as_ref());
}

/// A machine that names a bootloader keeps it; UEFI comes before BIOS.
fn set_firmware(given: &FirmwarePreferences, domain: &mut DomainSpec) {
    let on = |switch: Option<bool>| switch == Some(true);
    let older = on(given.preferred_use_efi)
        .then(|| EFI { secure_boot: given.preferred_use_secure_boot.filter(|on| *on), ..EFI::default() });
    let efi = given.preferred_efi.clone().or(older);
    let bios = on(given.preferred_use_bios).then_some(BIOS { use_serial: given.preferred_use_bios_serial });
    if efi.is_none() && bios.is_none() {
        return;
    }
    let firmware = domain.firmware.get_or_insert_default();
    if firmware.bootloader.as_ref().is_none_or(|given| *given == Bootloader::default()) {
        let bios = bios.filter(|_| efi.is_none());
        firmware.bootloader = Some(Bootloader { bios, efi });
    }
}

fn set_cpu_features(preference: &VirtualMachinePreferenceSpec, domain: &mut DomainSpec) {
    let wanted = preference.cpu.as_ref().map(|cpu| cpu.preferred_cpu_features.as_slice()).unwrap_or_default();
    if wanted.is_empty() {
        return;
    }
    let features = &mut domain.cpu.get_or_insert_default().features;
    for feature in wanted {
        if !features.iter().any(|given| given.name == feature.name) {
            features.push(feature.clone());
        }
    }
}

fn set_clock(preference: &VirtualMachinePreferenceSpec, domain: &mut DomainSpec) {
    let Some(given) = &preference.clock else { return };
    let clock = domain.clock.get_or_insert_default();
    if let Some(offset) = &given.preferred_clock_offset
        && clock.utc.is_none()
        && clock.timezone.is_none()
    {
        clock.utc.clone_from(&offset.utc);
        clock.timezone.clone_from(&offset.timezone);
    }
    if let Some(given) = &given.preferred_timer {
        let timer = clock.timer.get_or_insert_with(Timer::default);
        or(&mut timer.hpet, given.hpet.as_ref());
        or(&mut timer.kvm, given.kvm.as_ref());
        or(&mut timer.pit, given.pit.as_ref());
        or(&mut timer.rtc, given.rtc.as_ref());
        or(&mut timer.hyperv, given.hyperv.as_ref());
    }
}
