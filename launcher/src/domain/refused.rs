//! Fields of the spec that this version knows and does not carry out, each refused by name.

use holdfast_api::kubevirt::{VirtualMachineInstance, VirtualMachineInstanceSpec};

/// A field that is not carried out, or a value that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct Refused {
    field: String,
    message: String,
}

impl Refused {
    pub(super) fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

type Rule = (&'static str, fn(&VirtualMachineInstanceSpec) -> bool);

/// One line for each field: its path and whether a spec uses it.
const RULES: &[Rule] = &[
    ("spec.domain.firmware.kernelBoot", |s| s.domain.firmware.as_ref().is_some_and(|f| f.kernel_boot.is_some())),
    ("spec.domain.firmware.acpi", |s| s.domain.firmware.as_ref().is_some_and(|f| f.acpi.is_some())),
    ("spec.domain.firmware.bootloader.efi", |s| {
        s.domain.firmware.as_ref().and_then(|f| f.bootloader.as_ref()).is_some_and(|b| b.efi.is_some())
    }),
    ("spec.accessCredentials", |s| !s.access_credentials.is_empty()),
    ("spec.domain.launchSecurity", |s| s.domain.launch_security.is_some()),
    ("spec.domain.cpu.dedicatedCpuPlacement", |s| {
        s.domain.cpu.as_ref().is_some_and(|c| c.dedicated_cpu_placement == Some(true))
    }),
    ("spec.domain.cpu.isolateEmulatorThread", |s| {
        s.domain.cpu.as_ref().is_some_and(|c| c.isolate_emulator_thread == Some(true))
    }),
    ("spec.domain.cpu.numa", |s| s.domain.cpu.as_ref().is_some_and(|c| c.numa.is_some())),
    ("spec.domain.cpu.realtime", |s| s.domain.cpu.as_ref().is_some_and(|c| c.realtime.is_some())),
    ("spec.domain.memory.hugepages", |s| s.domain.memory.as_ref().is_some_and(|m| m.hugepages.is_some())),
    ("spec.domain.ioThreadsPolicy supplementalPool", |s| {
        s.domain.io_threads_policy.as_deref() == Some("supplementalPool")
    }),
    ("spec.domain.devices.filesystems", |s| !s.domain.devices.filesystems.is_empty()),
    ("spec.domain.devices.gpus", |s| !s.domain.devices.gpus.is_empty()),
    ("spec.domain.devices.hostDevices", |s| !s.domain.devices.host_devices.is_empty()),
    ("spec.domain.devices.clientPassthrough", |s| s.domain.devices.client_passthrough.is_some()),
    ("spec.domain.devices.downwardMetrics", |s| s.domain.devices.downward_metrics.is_some()),
    ("spec.domain.devices.autoattachVSOCK", |s| s.domain.devices.autoattach_vsock == Some(true)),
    ("spec.domain.devices.tpm", |s| s.domain.devices.tpm.as_ref().is_some_and(|tpm| tpm.enabled != Some(false))),
    ("spec.domain.devices.watchdog.diag288", |s| {
        s.domain.devices.watchdog.as_ref().is_some_and(|w| w.diag288.is_some())
    }),
    ("spec.domain.devices.disks[].lun", |s| s.domain.devices.disks.iter().any(|disk| disk.lun.is_some())),
    ("spec.domain.devices.disks[].blockSize.matchVolume", |s| {
        let size = |disk: &holdfast_api::kubevirt::Disk| disk.block_size.clone();
        s.domain.devices.disks.iter().filter_map(size).any(|size| size.match_volume.is_some())
    }),
    ("spec.domain.devices.interfaces[].sriov", |s| s.domain.devices.interfaces.iter().any(|nic| nic.sriov.is_some())),
];

/// Refuses the first field of the spec that is not carried out.
pub(super) fn check(vmi: &VirtualMachineInstance) -> Result<(), Refused> {
    match RULES.iter().find(|(_, uses)| uses(&vmi.spec)) {
        Some((field, _)) => Err(Refused::new(*field, "not supported by this version")),
        None => Ok(()),
    }
}
