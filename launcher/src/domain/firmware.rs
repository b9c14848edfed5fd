//! What the firmware tells the guest about the machine: SMBIOS, machine type, boot console.

use holdfast_api::kubevirt::{DomainSpec, VirtualMachineInstance};
use serde::Serialize;

/// `<sysinfo>`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct SysInfo {
    #[serde(rename = "@type")]
    kind: &'static str,
    system: Entries,
    #[serde(skip_serializing_if = "Option::is_none")]
    chassis: Option<Entries>,
}

#[derive(Clone, Debug, Serialize)]
struct Entries {
    #[serde(rename = "entry")]
    entries: Vec<Entry>,
}

#[derive(Clone, Debug, Serialize)]
struct Entry {
    #[serde(rename = "@name")]
    name: &'static str,
    #[serde(rename = "$text")]
    value: String,
}

/// `<os>`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Os {
    #[serde(rename = "type")]
    kind: OsType,
    smbios: SmBios,
    #[serde(skip_serializing_if = "Option::is_none")]
    bios: Option<Bios>,
}

#[derive(Clone, Debug, Serialize)]
struct OsType {
    #[serde(rename = "@arch")]
    arch: &'static str,
    #[serde(rename = "@machine")]
    machine: String,
    #[serde(rename = "$text")]
    kind: &'static str,
}

#[derive(Clone, Debug, Serialize)]
struct SmBios {
    #[serde(rename = "@mode")]
    mode: &'static str,
}

#[derive(Clone, Debug, Serialize)]
struct Bios {
    #[serde(rename = "@useserial")]
    use_serial: &'static str,
}

/// The machine's UUID: the spec's, else that of the object, so that it never changes during its life.
pub(super) fn uuid(vmi: &VirtualMachineInstance) -> String {
    let firmware = vmi.spec.domain.firmware.as_ref();
    firmware.and_then(|firmware| firmware.uuid.clone()).or_else(|| vmi.metadata.uid.clone()).unwrap_or_default()
}

/// SMBIOS as guests (and licences bound to it) have seen it.
pub(super) fn sysinfo(spec: &DomainSpec, uuid: &str) -> SysInfo {
    let entry = |name, value: &str| Entry { name, value: value.to_owned() };
    let mut system = vec![
        entry("manufacturer", "KubeVirt"),
        entry("product", "None"),
        entry("uuid", uuid),
        entry("family", "KubeVirt"),
    ];
    if let Some(serial) = spec.firmware.as_ref().and_then(|firmware| firmware.serial.as_deref()) {
        system.insert(2, entry("serial", serial));
    }
    let chassis = spec.chassis.as_ref().map(|chassis| {
        let fields = [
            ("manufacturer", &chassis.manufacturer),
            ("version", &chassis.version),
            ("serial", &chassis.serial),
            ("asset", &chassis.asset),
            ("sku", &chassis.sku),
        ];
        let entries = fields.into_iter().filter_map(|(name, value)| value.as_deref().map(|value| entry(name, value)));
        Entries { entries: entries.collect() }
    });
    let chassis = chassis.filter(|chassis| !chassis.entries.is_empty());
    SysInfo { kind: "smbios", system: Entries { entries: system }, chassis }
}

/// q35 unless the spec names another machine type; SeaBIOS writes to the serial console where it asks for that.
pub(super) fn os(spec: &DomainSpec) -> Os {
    let machine = spec.machine.as_ref().and_then(|machine| machine.r#type.clone());
    let bios = spec.firmware.as_ref().and_then(|firmware| firmware.bootloader.as_ref()?.bios.as_ref());
    Os {
        kind: OsType {
            arch: "x86_64",
            machine: machine.filter(|machine| !machine.is_empty()).unwrap_or_else(|| "q35".to_owned()),
            kind: "hvm",
        },
        smbios: SmBios { mode: "sysinfo" },
        bios: bios.filter(|bios| bios.use_serial == Some(true)).map(|_| Bios { use_serial: "yes" }),
    }
}
