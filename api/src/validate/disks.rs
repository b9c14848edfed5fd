//! Rules on disks.

use super::names::{is_pci_address, label_errors};
use super::{Causes, Context, Rule};
use crate::kubevirt::{BlockSize, Disk};

pub(super) const RULES: &[Rule] =
    &[unique_names, names, targets, buses, pci_addresses, boot_orders, serials, modes, block_sizes, image_paths];

/// Rules on disks and the volumes that they show, which may come later to a template.
pub(super) const VOLUME_RULES: &[Rule] = &[lun_volumes, volume_for_each];

const BUSES: [&str; 4] = ["virtio", "scsi", "sata", "usb"];
const CACHES: [&str; 3] = ["none", "writethrough", "writeback"];
const ERROR_POLICIES: [&str; 4] = ["stop", "ignore", "report", "enospace"];
const MAX_SERIAL: usize = 256;
const MIN_BLOCK: i32 = 512;
const MAX_BLOCK: i32 = 2 << 20;

/// Calls `rule` for each disk with its index, its path and itself.
fn each(context: &Context, mut rule: impl FnMut(usize, String, &Disk)) {
    for (index, disk) in context.spec.domain.devices.disks.iter().enumerate() {
        rule(index, context.path(format_args!("domain.devices.disks[{index}]")), disk);
    }
}

fn unique_names(context: &Context, causes: &mut Causes) {
    let disks = &context.spec.domain.devices.disks;
    each(context, |index, at, disk| {
        if let Some(other) = disks[..index].iter().position(|other| other.name == disk.name) {
            let other = context.path(format_args!("domain.devices.disks[{other}]"));
            causes.invalid(format!("{at}.name"), format!("{at} and {other} must not have the same Name."));
        }
    });
}

fn names(context: &Context, causes: &mut Causes) {
    each(context, |index, _, disk| {
        let field = context.path(format_args!("domain.devices.disks.domain.devices.disks[{index}].name"));
        for error in label_errors(&disk.name) {
            causes.invalid(field.clone(), error);
        }
    });
}

fn targets(context: &Context, causes: &mut Causes) {
    each(context, |_, at, disk| {
        let set = [disk.disk.is_some(), disk.cdrom.is_some(), disk.lun.is_some()];
        if set.into_iter().filter(|set| *set).count() > 1 {
            let message = format!("{at} can only have a single target type defined");
            causes.invalid(at, message);
        }
    });
}

fn buses(context: &Context, causes: &mut Causes) {
    each(context, |_, at, disk| {
        let [target, cdrom, lun] = [
            disk.disk.as_ref().and_then(|t| t.bus.as_deref()),
            disk.cdrom.as_ref().and_then(|t| t.bus.as_deref()),
            disk.lun.as_ref().and_then(|t| t.bus.as_deref()),
        ];
        for (kind, bus) in [("disk", target), ("cdrom", cdrom), ("lun", lun)] {
            let Some(bus) = bus.filter(|bus| !BUSES.contains(bus)) else { continue };
            let known = BUSES.join(" ");
            let message = format!("{at} is set with an unrecognized bus {bus}, must be one of: [{known}]");
            causes.invalid(format!("{at}.{kind}.bus"), message);
        }
        if cdrom == Some("virtio") {
            causes.invalid(format!("{at}.cdrom.bus"), "Bus type virtio is invalid for CD-ROM device");
        }
    });
}

fn pci_addresses(context: &Context, causes: &mut Causes) {
    each(context, |index, _, disk| {
        let Some(target) = &disk.disk else { return };
        let Some(pci) = target.pci_address.as_deref() else { return };
        let at = context.path(format_args!("domain.devices.disks.domain.devices.disks.disk[{index}]"));
        if target.bus.as_deref() != Some("virtio") {
            let message = format!("disk {at}.name - setting a PCI address is only possible with bus type virtio.");
            causes.invalid(format!("{at}.pciAddress"), message);
        }
        if !is_pci_address(pci) {
            let message = format!("disk {at}.name has malformed PCI address ({pci}).");
            causes.invalid(format!("{at}.pciAddress"), message);
        }
    });
}

fn boot_orders(context: &Context, causes: &mut Causes) {
    each(context, |_, at, disk| {
        if disk.boot_order.is_some_and(|order| order < 1) {
            causes.invalid(format!("{at}.bootOrder"), format!("{at} must have a boot order > 0, if supplied"));
        }
    });
}

fn serials(context: &Context, causes: &mut Causes) {
    each(context, |_, at, disk| {
        let Some(serial) = disk.serial.as_deref() else { return };
        if !serial.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.+-".contains(&b)) {
            let message = format!("{at} must be made up of the following characters [A-Za-z0-9_.+-], if specified");
            causes.invalid(format!("{at}.serial"), message);
        }
        if serial.len() > MAX_SERIAL {
            let message = format!("{at} must be less than or equal to {MAX_SERIAL} in length, if specified");
            causes.invalid(format!("{at}.serial"), message);
        }
    });
}

fn modes(context: &Context, causes: &mut Causes) {
    each(context, |index, at, disk| {
        for (field, value, known) in [
            ("cache", disk.cache.as_deref(), &CACHES[..]),
            ("errorPolicy", disk.error_policy.as_deref(), &ERROR_POLICIES[..]),
        ] {
            if let Some(value) = value.filter(|value| !value.is_empty() && !known.contains(value)) {
                causes.invalid(format!("{at}.{field}"), format!("{at}.{field} has invalid value {value}"));
            }
        }
        if !matches!(disk.io.as_deref(), None | Some("" | "native" | "threads")) {
            let disks = context.path("domain.devices.disks");
            let message = format!("Disk IO mode for {disks} is not supported. Supported modes are: native, threads.");
            causes.not_supported(format!("{disks}.domain.devices.disks[{index}].io"), message);
        }
    });
}

fn block_sizes(context: &Context, causes: &mut Causes) {
    each(context, |_, at, disk| {
        if let Some(block_size) = &disk.block_size {
            check_block_size(&format!("{at}.blockSize"), block_size, causes);
        }
    });
}

fn check_block_size(at: &str, block_size: &BlockSize, causes: &mut Causes) {
    let matching = block_size.match_volume.as_ref().is_some_and(|state| state.enabled != Some(false));
    let Some(custom) = &block_size.custom else { return };
    if matching {
        causes.invalid(at, "Block size matching can't be enabled together with a custom value");
        return;
    }
    let (logical, physical) = (custom.logical.unwrap_or_default(), custom.physical.unwrap_or_default());
    for (field, size) in [("logical", logical), ("physical", physical)] {
        let field = format!("{at}.custom.{field}");
        if size < MIN_BLOCK {
            let message = format!("Provided size of {size} is less than the supported minimum size of {MIN_BLOCK}");
            causes.invalid(field, message);
        } else if size > MAX_BLOCK {
            let message = format!("Provided size of {size} is greater than the supported maximum size of {MAX_BLOCK}");
            causes.invalid(field, message);
        } else if size.count_ones() != 1 {
            causes.invalid(field, format!("Provided size of {size} is not a power of 2"));
        }
    }
    if logical > physical {
        let message = format!("Logical size {logical} must be the same or less than the physical size of {physical}");
        causes.invalid(format!("{at}.custom.logical"), message);
    }
}

/// The disk's place within a containerDisk's image.
fn image_paths(context: &Context, causes: &mut Causes) {
    for (index, volume) in context.spec.volumes.iter().enumerate() {
        let disk = volume.container_disk.as_ref();
        let Some(path) = disk.and_then(|disk| disk.path.as_deref()).filter(|path| !path.is_empty()) else {
            continue;
        };
        let relative = !path.starts_with('/') || path.split('/').any(|part| part == ".." || part == ".");
        if relative || path.ends_with('/') {
            let field = context.path(format_args!("volumes[{index}].containerDisk"));
            let message = format!("{field} must be an absolute path to a file without relative components");
            causes.invalid(field, message);
        }
    }
}

fn lun_volumes(context: &Context, causes: &mut Causes) {
    each(context, |_, at, disk| {
        let volume = context.spec.volumes.iter().find(|volume| volume.name == disk.name);
        let fits = |v: &crate::kubevirt::Volume| v.data_volume.is_some() || v.persistent_volume_claim.is_some();
        if disk.lun.is_some() && volume.is_some_and(|volume| !fits(volume)) {
            let field = format!("{at}.lun");
            let message = format!("{field} can only be mapped to a DataVolume or PersistentVolumeClaim volume.");
            causes.invalid(field, message);
        }
    });
}

fn volume_for_each(context: &Context, causes: &mut Causes) {
    each(context, |_, at, disk| {
        let name = &disk.name;
        if !context.spec.volumes.iter().any(|volume| volume.name == *name) {
            causes.invalid(format!("{at}.name"), format!("{at}.Name '{name}' not found."));
        }
    });
}
