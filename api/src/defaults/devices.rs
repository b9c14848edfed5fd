//! Disks, NICs, watchdog, images and probes that a VMI leaves out or half says.

use super::is_arm;
use crate::config::ClusterConfig;
use crate::kubevirt::{
    Disk, DiskTarget, I6300ESBWatchdog, Interface, InterfaceBridge, InterfaceMasquerade, Network, PodNetwork, Probe,
    VirtualMachineInstanceSpec,
};

/// The name of the NIC and network that a VMI with none gets.
const DEFAULT_NETWORK: &str = "default";

/// A volume that no disk or filesystem shows gets a disk; disks get a bus; a VMI without NICs
/// gets one on the pod network, unless it says no.
pub(super) fn default_devices(spec: &mut VirtualMachineInstanceSpec, config: &ClusterConfig) {
    default_interface(spec, config);
    show_volumes(spec);
    let (disk_bus, removable_bus) = if is_arm(spec) { ("virtio", "scsi") } else { ("sata", "sata") };
    let devices = &mut spec.domain.devices;
    for disk in &mut devices.disks {
        default_disk(disk, disk_bus, removable_bus);
    }
    if let Some(watchdog) = &mut devices.watchdog
        && watchdog.diag288.is_none()
    {
        watchdog
            .i6300esb
            .get_or_insert_with(I6300ESBWatchdog::default)
            .action
            .get_or_insert_with(|| "reset".to_owned());
    }
}

fn default_interface(spec: &mut VirtualMachineInstanceSpec, config: &ClusterConfig) {
    let devices = &mut spec.domain.devices;
    if devices.autoattach_pod_interface == Some(false) || !devices.interfaces.is_empty() || !spec.networks.is_empty() {
        return;
    }
    let masquerade = config.default_interface == "masquerade";
    devices.interfaces.push(Interface {
        name: DEFAULT_NETWORK.to_owned(),
        bridge: (!masquerade).then_some(InterfaceBridge {}),
        masquerade: masquerade.then_some(InterfaceMasquerade {}),
        ..Interface::default()
    });
    spec.networks.push(Network {
        name: DEFAULT_NETWORK.to_owned(),
        pod: Some(PodNetwork::default()),
        ..Network::default()
    });
}

/// A disk for each volume that nothing shows.
pub(crate) fn show_volumes(spec: &mut VirtualMachineInstanceSpec) {
    let devices = &mut spec.domain.devices;
    for volume in &spec.volumes {
        let shown = devices.disks.iter().any(|disk| disk.name == volume.name)
            || devices.filesystems.iter().any(|fs| fs.name == volume.name);
        if !shown && volume.memory_dump.is_none() {
            devices.disks.push(Disk { name: volume.name.clone(), ..Disk::default() });
        }
    }
}

fn default_disk(disk: &mut Disk, disk_bus: &str, removable_bus: &str) {
    if disk.disk.is_none() && disk.cdrom.is_none() && disk.lun.is_none() {
        disk.disk = Some(DiskTarget::default());
    }
    if let Some(target) = &mut disk.disk {
        target.bus.get_or_insert_with(|| disk_bus.to_owned());
    }
    if let Some(target) = &mut disk.lun {
        target.bus.get_or_insert_with(|| removable_bus.to_owned());
    }
    if let Some(target) = &mut disk.cdrom {
        target.bus.get_or_insert_with(|| removable_bus.to_owned());
        target.readonly.get_or_insert(true);
        target.tray.get_or_insert_with(|| "closed".to_owned());
    }
    if let Some(state) = disk.block_size.as_mut().and_then(|b| b.match_volume.as_mut()) {
        state.enabled.get_or_insert(true);
    }
}

/// An image whose tag can move is looked up at each start.
pub(super) fn default_volumes(spec: &mut VirtualMachineInstanceSpec) {
    for disk in spec.volumes.iter_mut().filter_map(|v| v.container_disk.as_mut()) {
        let policy = if moves(&disk.image) { "Always" } else { "IfNotPresent" };
        disk.image_pull_policy.get_or_insert_with(|| policy.to_owned());
    }
}

/// Whether an image has no digest and no tag other than `latest`.
fn moves(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    // A colon before the last slash belongs to the registry's port.
    let name = image.rsplit('/').next().unwrap_or(image);
    name.rsplit_once(':').is_none_or(|(_, tag)| tag == "latest")
}

/// The timing of probes, as for containers.
pub(super) fn default_probes(spec: &mut VirtualMachineInstanceSpec) {
    for probe in [&mut spec.liveness_probe, &mut spec.readiness_probe].into_iter().flatten() {
        default_probe(probe);
    }
}

fn default_probe(probe: &mut Probe) {
    probe.timeout_seconds.get_or_insert(1);
    probe.period_seconds.get_or_insert(10);
    probe.success_threshold.get_or_insert(1);
    probe.failure_threshold.get_or_insert(3);
}

#[cfg(test)]
mod tests {
    use super::moves;

    #[test]
    fn images_that_move() {
        for image in ["a", "a:latest", "r.example/a", "r.example:5000/a", "r:1/a:latest"] {
            assert!(moves(image), "{image}");
        }
        for image in ["a:1", "r.example:5000/a:v1", "a@sha256:00", "a:latest@sha256:00"] {
            assert!(!moves(image), "{image}");
        }
    }
}
