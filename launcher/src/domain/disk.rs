//! Disks and CD-ROMs: an image in a file, a bus, a target name.

use std::path::PathBuf;

use holdfast_api::kubevirt;
use serde::Serialize;

use super::address::{self, Address, Alias, virtio_model};
use super::{DomainError, Input, Refused, iothreads, pci};

/// Format of an image, always told and never left to be guessed from what a guest may have written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The disk's bytes as they are.
    Raw,
    /// QEMU's copy-on-write format.
    Qcow2,
}

impl Format {
    /// QEMU's name of the format.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }
}

/// A prepared image of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskImage {
    /// Name of the volume in the spec.
    pub volume: String,
    /// The file that the guest writes to.
    pub path: PathBuf,
    /// Its format.
    pub format: Format,
    /// What lies under it, for an overlay.
    pub backing: Option<Backing>,
    /// Whether the page cache can be bypassed on its file system.
    pub direct_io: bool,
}

/// The read-only image under an overlay; it has none below itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backing {
    /// The file.
    pub path: PathBuf,
    /// Its format.
    pub format: Format,
}

/// `<disk>`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Disk {
    #[serde(rename = "@type")]
    kind: &'static str,
    #[serde(rename = "@device")]
    device: &'static str,
    #[serde(rename = "@model", skip_serializing_if = "Option::is_none")]
    model: Option<&'static str>,
    driver: Driver,
    source: Source,
    #[serde(rename = "backingStore")]
    backing: BackingStore,
    target: Target,
    #[serde(skip_serializing_if = "Option::is_none")]
    blockio: Option<BlockIo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    serial: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    readonly: Option<Empty>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shareable: Option<Empty>,
    #[serde(skip_serializing_if = "Option::is_none")]
    boot: Option<Boot>,
    alias: Alias,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<Address>,
    #[serde(skip)]
    volume: String,
}

#[derive(Clone, Debug, Serialize)]
struct Empty {}

#[derive(Clone, Debug, Serialize)]
struct Driver {
    #[serde(rename = "@name")]
    name: &'static str,
    #[serde(rename = "@type")]
    format: &'static str,
    #[serde(rename = "@cache")]
    cache: String,
    #[serde(rename = "@error_policy")]
    error_policy: String,
    #[serde(rename = "@io", skip_serializing_if = "Option::is_none")]
    io: Option<String>,
    #[serde(rename = "@discard")]
    discard: &'static str,
    #[serde(rename = "@iothread", skip_serializing_if = "Option::is_none")]
    iothread: Option<u32>,
    #[serde(rename = "@queues", skip_serializing_if = "Option::is_none")]
    queues: Option<u32>,
}

#[derive(Clone, Debug, Serialize)]
struct Source {
    #[serde(rename = "@file")]
    file: String,
}

/// `<backingStore>`: empty at the end of the chain, which keeps libvirt from looking into the image for more.
#[derive(Clone, Debug, Default, Serialize)]
struct BackingStore {
    #[serde(rename = "@type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<BackingFormat>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<Source>,
    #[serde(rename = "backingStore", skip_serializing_if = "Option::is_none")]
    next: Option<Empty>,
}

#[derive(Clone, Debug, Serialize)]
struct BackingFormat {
    #[serde(rename = "@type")]
    kind: &'static str,
}

#[derive(Clone, Debug, Serialize)]
struct Target {
    #[serde(rename = "@dev")]
    dev: String,
    #[serde(rename = "@bus")]
    bus: String,
    #[serde(rename = "@tray", skip_serializing_if = "Option::is_none")]
    tray: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
struct BlockIo {
    #[serde(rename = "@logical_block_size")]
    logical: i32,
    #[serde(rename = "@physical_block_size")]
    physical: i32,
}

/// `<boot>`, also of NICs.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Boot {
    #[serde(rename = "@order")]
    pub order: i32,
}

impl Disk {
    pub(super) fn target(&self) -> (String, String) {
        (self.volume.clone(), self.target.dev.clone())
    }
}

/// The bus of a disk; SATA where the spec names none, as its defaulting does.
pub(super) fn bus(disk: &kubevirt::Disk) -> &str {
    let bus = match (&disk.disk, &disk.cdrom) {
        (Some(target), _) => target.bus.as_deref(),
        (None, Some(target)) => target.bus.as_deref(),
        (None, None) => None,
    };
    bus.filter(|bus| !bus.is_empty()).unwrap_or("sata")
}

/// `vda`, ..., `vdz`, `vdaa`: the n-th name of a bus, from 0.
fn target_name(prefix: &str, nth: usize) -> String {
    let mut letters = String::new();
    let mut rest = nth + 1;
    while rest > 0 {
        rest -= 1;
        letters.insert(0, char::from(b'a' + (rest % 26) as u8));
        rest /= 26;
    }
    format!("{prefix}{letters}")
}

/// All disks, each with its target named in the order of the spec.
pub(super) fn build(input: &Input<'_>, vcpus: u32, slots: &mut pci::Slots) -> Result<Vec<Disk>, DomainError> {
    let spec = &input.vmi.spec.domain;
    let mut threads = iothreads::plan(spec, vcpus);
    let (mut virtio, mut others) = (0, 0);
    let mut disks = Vec::new();
    for disk in &spec.devices.disks {
        let (prefix, counter) = if bus(disk) == "virtio" { ("vd", &mut virtio) } else { ("sd", &mut others) };
        let dev = target_name(prefix, *counter);
        *counter += 1;
        let queues = spec.devices.block_multi_queue.filter(|wanted| *wanted && bus(disk) == "virtio").map(|_| vcpus);
        disks.push(one(input, disk, dev, (threads.next(disk), queues), slots)?);
    }
    Ok(disks)
}

fn one(
    input: &Input<'_>,
    disk: &kubevirt::Disk,
    dev: String,
    (iothread, queues): (Option<u32>, Option<u32>),
    slots: &mut pci::Slots,
) -> Result<Disk, DomainError> {
    let devices = &input.vmi.spec.domain.devices;
    let image = input.images.iter().find(|image| image.volume == disk.name);
    let image = image.ok_or_else(|| DomainError::NoImage(disk.name.clone()))?;
    let on_virtio = bus(disk) == "virtio";
    let cdrom = disk.cdrom.as_ref();
    let plain = disk.disk.as_ref();
    let readonly =
        cdrom.map_or(plain.and_then(|disk| disk.readonly) == Some(true), |cdrom| cdrom.readonly != Some(false));
    let tray = cdrom.and_then(|cdrom| cdrom.tray.clone()).filter(|tray| tray == "open");
    Ok(Disk {
        kind: "file",
        device: if cdrom.is_some() { "cdrom" } else { "disk" },
        model: on_virtio.then(|| virtio_model(devices)),
        driver: Driver {
            name: "qemu",
            format: image.format.name(),
            cache: cache(disk, image)?,
            error_policy: disk.error_policy.clone().unwrap_or_else(|| "stop".to_owned()),
            io: disk.io.clone(),
            discard: "unmap",
            iothread,
            queues,
        },
        source: Source { file: image.path.to_string_lossy().into_owned() },
        backing: image.backing.as_ref().map(backing_store).unwrap_or_default(),
        target: Target { dev, bus: bus(disk).to_owned(), tray },
        blockio: block_io(disk),
        serial: disk.serial.clone().filter(|serial| !serial.is_empty()),
        readonly: readonly.then_some(Empty {}),
        shareable: (disk.shareable == Some(true)).then_some(Empty {}),
        boot: disk.boot_order.map(|order| Boot { order }),
        alias: Alias::of(&disk.name),
        address: pci_address(disk, on_virtio, devices, slots)?,
        volume: disk.name.clone(),
    })
}

/// `none` where the file system lets the page cache be bypassed, unless the spec says otherwise.
fn cache(disk: &kubevirt::Disk, image: &DiskImage) -> Result<String, DomainError> {
    match disk.cache.as_deref() {
        Some("none") if !image.direct_io => Err(Refused::new(
            format!("spec.domain.devices.disks[name={}].cache", disk.name),
            "none: the file system of its image has no direct I/O; valid here: writethrough, writeback",
        )
        .into()),
        Some(cache) if !cache.is_empty() => Ok(cache.to_owned()),
        _ => Ok(if image.direct_io { "none" } else { "writethrough" }.to_owned()),
    }
}

fn backing_store(backing: &Backing) -> BackingStore {
    BackingStore {
        kind: Some("file"),
        format: Some(BackingFormat { kind: backing.format.name() }),
        source: Some(Source { file: backing.path.to_string_lossy().into_owned() }),
        next: Some(Empty {}),
    }
}

fn block_io(disk: &kubevirt::Disk) -> Option<BlockIo> {
    let custom = disk.block_size.as_ref()?.custom.as_ref()?;
    Some(BlockIo { logical: custom.logical?, physical: custom.physical? })
}

fn pci_address(
    disk: &kubevirt::Disk,
    on_virtio: bool,
    devices: &kubevirt::Devices,
    slots: &mut pci::Slots,
) -> Result<Option<Address>, DomainError> {
    if !on_virtio {
        return Ok(None);
    }
    let Some(text) = disk.disk.as_ref().and_then(|disk| disk.pci_address.as_deref()) else {
        return Ok(Some(slots.virtio(devices).into()));
    };
    let pci = address::parse(text).ok_or_else(|| {
        let field = format!("spec.domain.devices.disks[name={}].disk.pciAddress", disk.name);
        Refused::new(field, format!("`{text}`: valid is an address such as 0000:81:01.0"))
    })?;
    Ok(Some(pci.into()))
}
