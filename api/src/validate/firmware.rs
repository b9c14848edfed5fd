//! Rules on firmware and what is booted.

use super::{Causes, Context, Rule};
use crate::kubevirt::{Bootloader, Firmware};

pub(super) const RULES: &[Rule] = &[one_bootloader, secure_boot, kernel_boot, acpi_tables, memory_encryption];

fn firmware<'a>(context: &'a Context) -> Option<&'a Firmware> {
    context.spec.domain.firmware.as_ref()
}

fn bootloader<'a>(context: &'a Context) -> Option<&'a Bootloader> {
    firmware(context)?.bootloader.as_ref()
}

fn one_bootloader(context: &Context, causes: &mut Causes) {
    if bootloader(context).is_some_and(|loader| loader.efi.is_some() && loader.bios.is_some()) {
        let field = context.path("domain.firmware.bootloader");
        let message = format!("{field} has both EFI and BIOS configured, but they are mutually exclusive.");
        causes.invalid(field, message);
    }
}

fn secure_boot(context: &Context, causes: &mut Causes) {
    let Some(efi) = bootloader(context).and_then(|loader| loader.efi.as_ref()) else { return };
    let smm = context.spec.domain.features.as_ref().and_then(|features| features.smm.as_ref());
    if efi.secure_boot != Some(false) && smm.is_none_or(|smm| smm.enabled == Some(false)) {
        let field = context.path("domain.firmware.bootloader");
        let message =
            format!("{field} has EFI SecureBoot enabled. SecureBoot requires SMM, which is currently disabled.");
        causes.invalid(field, message);
    }
}

fn kernel_boot(context: &Context, causes: &mut Causes) {
    let Some(boot) = firmware(context).and_then(|firmware| firmware.kernel_boot.as_ref()) else { return };
    let at = context.path("domain.firmware.kernelBoot");
    let filled = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
    let container = boot.container.as_ref();
    let kernel = container.is_some_and(|container| filled(&container.kernel_path));
    if filled(&boot.kernel_args) && !kernel {
        causes.invalid(format!("{at}.kernelArgs"), "kernel arguments cannot be provided without an external kernel");
    }
    let Some(container) = container else { return };
    let at = format!("{at}.container");
    if container.image.is_empty() {
        causes.required(format!("{at}.image"), format!("{at} must be defined with an image"));
    }
    if !kernel && !filled(&container.initrd_path) {
        let message = format!("{at} must be defined with at least one of the following: kernelPath, initrdPath");
        causes.required(at, message);
    }
}

/// ACPI tables come from Secret volumes of the VM. The path is not where the field is, but known so.
fn acpi_tables(context: &Context, causes: &mut Causes) {
    let Some(acpi) = firmware(context).and_then(|firmware| firmware.acpi.as_ref()) else { return };
    let at = context.path("acpi");
    for (field, name) in [("slicNameRef", &acpi.slic_name_ref), ("msdmNameRef", &acpi.msdm_name_ref)] {
        let Some(name) = name.as_deref().filter(|name| !name.is_empty()) else { continue };
        match context.spec.volumes.iter().find(|volume| volume.name == name) {
            None => causes.invalid(format!("{at}.{field}"), format!("{at} does not have a matching Volume.")),
            Some(volume) if volume.secret.is_none() => {
                causes.invalid(format!("{at}.{field}"), format!("{at} Volume of unsupported type."));
            }
            Some(_) => {}
        }
    }
}

fn memory_encryption(context: &Context, causes: &mut Causes) {
    let Some(security) = &context.spec.domain.launch_security else { return };
    let kinds = [(security.sev.is_some(), "SEV"), (security.snp.is_some(), "SEV-SNP"), (security.tdx.is_some(), "TDX")];
    let efi = bootloader(context).and_then(|loader| loader.efi.as_ref());
    let field = context.path("launchSecurity");
    for (_, kind) in kinds.into_iter().filter(|(set, _)| *set) {
        match efi {
            None => causes.invalid(field.clone(), format!("{kind} requires OVMF (UEFI)")),
            Some(efi) if efi.secure_boot != Some(false) => {
                causes.invalid(field.clone(), format!("{kind} does not work along with SecureBoot"));
            }
            Some(_) => {}
        }
    }
}
