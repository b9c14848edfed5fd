//! The libvirt domain of a VM: its spec, wired NICs and prepared disk images in, typed XML out.
//!
//! Pure: nothing here looks at the machine. What the guest can see (slots, models, SMBIOS, serials, boot order)
//! is a promise to guests that were installed elsewhere, so every PCI address is written out and none is left
//! to libvirt. A field of the spec that is not carried out is refused by name ([`refused`]), never dropped.

mod address;
mod clock;
mod console;
mod cpu;
mod disk;
mod display;
mod features;
mod firmware;
mod interface;
mod iothreads;
mod memory;
mod pci;
mod peripherals;
mod refused;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use holdfast_api::kubevirt::{Interface, VirtualMachineInstance};
use holdfast_net::model::GuestNic;
use serde::Serialize;

pub use disk::{Backing, DiskImage, Format};
pub use refused::Refused;

/// Why a domain cannot be described.
#[derive(Debug, thiserror::Error)]
pub enum DomainError {
    /// The spec asks for something that this version does not carry out.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// A disk names a volume for which no image was prepared.
    #[error("disk `{0}` has no volume of that name that can be a disk")]
    NoImage(String),
    /// An interface of the spec was not wired.
    #[error("interface `{0}` was not wired: no tap came with it")]
    NotWired(String),
    /// A quantity cannot be read.
    #[error("{field} `{value}` is no quantity")]
    Quantity {
        /// Path of the field in the spec.
        field: &'static str,
        /// What is written there.
        value: String,
        /// What is wrong with it.
        #[source]
        source: holdfast_api::quantity::QuantityError,
    },
    /// The description cannot be written as XML.
    #[error("failed to write the domain as XML")]
    Xml(#[from] quick_xml::SeError),
}

/// Everything that decides on a domain.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The VM, defaulted and valid.
    pub vmi: &'a VirtualMachineInstance,
    /// Its wired NICs; matched to the spec's interfaces by name.
    pub nics: &'a [GuestNic],
    /// The prepared image of each volume that is a disk.
    pub images: &'a [DiskImage],
    /// Whether the CPU is emulated (TCG) instead of KVM.
    pub emulation: bool,
    /// Folder of this VM's sockets and console log.
    pub sockets: &'a Path,
}

impl Input<'_> {
    /// The serial console's socket.
    #[must_use]
    pub fn serial_socket(&self) -> PathBuf {
        self.sockets.join("virt-serial0")
    }
}

/// A domain, in the order in which libvirt prints it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename = "domain")]
pub struct Domain {
    #[serde(rename = "@type")]
    kind: &'static str,
    /// Declares the prefix of `overrides`.
    #[serde(rename = "@xmlns:qemu", skip_serializing_if = "Option::is_none")]
    qemu: Option<&'static str>,
    name: String,
    uuid: String,
    memory: memory::Memory,
    vcpu: cpu::VcpuCount,
    #[serde(skip_serializing_if = "Option::is_none")]
    vcpus: Option<cpu::Vcpus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iothreads: Option<u32>,
    sysinfo: firmware::SysInfo,
    os: firmware::Os,
    features: features::Features,
    cpu: cpu::Cpu,
    clock: clock::Clock,
    on_poweroff: &'static str,
    on_reboot: &'static str,
    on_crash: &'static str,
    devices: Devices,
    #[serde(rename = "qemu:override", skip_serializing_if = "Option::is_none")]
    overrides: Option<interface::Override>,
}

#[derive(Clone, Debug, Serialize)]
struct Devices {
    #[serde(rename = "disk")]
    disks: Vec<disk::Disk>,
    #[serde(rename = "controller")]
    controllers: Vec<pci::Controller>,
    #[serde(rename = "interface")]
    interfaces: Vec<interface::Interface>,
    #[serde(rename = "serial", skip_serializing_if = "Option::is_none")]
    serial: Option<console::Serial>,
    #[serde(rename = "channel")]
    channel: console::Channel,
    #[serde(rename = "input")]
    inputs: Vec<peripherals::Input>,
    #[serde(skip_serializing_if = "Option::is_none")]
    graphics: Option<display::Graphics>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sound: Option<peripherals::Sound>,
    #[serde(skip_serializing_if = "Option::is_none")]
    video: Option<display::Video>,
    #[serde(skip_serializing_if = "Option::is_none")]
    watchdog: Option<peripherals::Watchdog>,
    memballoon: peripherals::MemBalloon,
    #[serde(skip_serializing_if = "Option::is_none")]
    rng: Option<peripherals::Rng>,
    #[serde(rename = "panic")]
    panics: Vec<peripherals::Panic>,
}

/// The name by which libvirt knows the domain of a VM.
#[must_use]
pub fn name(namespace: &str, name: &str) -> String {
    format!("{namespace}_{name}")
}

/// Describes the domain of a VM.
///
/// # Errors
/// [`DomainError`]: all but `NotWired` and `Xml` are the spec's fault.
pub fn build(input: &Input<'_>) -> Result<Domain, DomainError> {
    refused::check(input.vmi)?;
    let spec = &input.vmi.spec.domain;
    // How many ports stay free depends on how many are taken, and the bridge's place on where it was first missed.
    let (_, slots) = devices(input, 0, None)?;
    let spare = memory::spare_ports(spec, slots.used())?;
    let (_, slots) = devices(input, spare, None)?;
    let (mut devices, slots) = devices(input, spare, slots.bridge())?;
    devices.controllers.extend(slots.controllers());
    let meta = &input.vmi.metadata;
    let uuid = firmware::uuid(input.vmi);
    let vcpus = cpu::topology(spec);
    let overrides = interface::overrides(input);
    Ok(Domain {
        qemu: overrides.as_ref().map(|_| "http://libvirt.org/schemas/domain/qemu/1.0"),
        kind: if input.emulation { "qemu" } else { "kvm" },
        name: name(meta.namespace.as_deref().unwrap_or("default"), meta.name.as_deref().unwrap_or_default()),
        sysinfo: firmware::sysinfo(spec, &uuid),
        uuid,
        memory: memory::guest(spec)?,
        vcpu: vcpus.count(),
        vcpus: vcpus.slots(),
        iothreads: iothreads::plan(spec, vcpus.current()).count(),
        os: firmware::os(spec),
        features: features::build(spec, input.emulation),
        cpu: cpu::build(spec, &vcpus),
        clock: clock::build(spec),
        on_poweroff: "destroy",
        on_reboot: if spec.reboot_policy.as_deref() == Some("Terminate") { "destroy" } else { "restart" },
        on_crash: "destroy",
        devices,
        overrides,
    })
}

/// All devices with `spare` free ports among them, and the slots that they took.
fn devices(input: &Input<'_>, spare: usize, bridge: Option<u8>) -> Result<(Devices, pci::Slots), DomainError> {
    let spec = &input.vmi.spec.domain.devices;
    let current = cpu::topology(&input.vmi.spec.domain).current();
    let mut slots = pci::Slots::new(display::wanted(spec), pci::reserved(spec), bridge);
    // The order of these calls is the order in which slots are taken: that of libvirt, which upstream leaves it to.
    let interfaces = interface::build(input, &mut slots)?;
    slots.keep_free(spare);
    let sound = peripherals::sound(spec, &mut slots)?;
    let controllers = pci::controllers(spec, &mut slots);
    let disks = disk::build(input, current, &mut slots)?;
    let memballoon = peripherals::memballoon(spec, &mut slots);
    let rng = peripherals::rng(spec, &mut slots);
    let watchdog = peripherals::watchdog(spec, &mut slots);
    let inputs = peripherals::inputs(spec, &mut slots)?;
    let devices = Devices {
        disks,
        controllers,
        interfaces,
        serial: console::serial(input),
        channel: console::guest_agent(),
        inputs,
        graphics: display::graphics(input),
        sound,
        video: display::video(spec),
        watchdog,
        memballoon,
        rng,
        panics: peripherals::panics(spec),
    };
    Ok((devices, slots))
}

/// Describes one of a VM's NICs for a domain that runs, to be plugged into it.
///
/// # Errors
/// [`DomainError`], as of [`build`].
pub fn nic(input: &Input<'_>, interface: &Interface) -> Result<String, DomainError> {
    xml(&interface::to_plug(input, interface)?)
}

/// The alias by which libvirt knows the device that the spec gives this name.
#[must_use]
pub fn alias(name: &str) -> String {
    address::Alias::of(name).name
}

fn xml(element: &impl Serialize) -> Result<String, DomainError> {
    let mut text = String::new();
    let mut writer = quick_xml::se::Serializer::new(&mut text);
    writer.indent(' ', 2);
    element.serialize(writer)?;
    Ok(text)
}

impl Domain {
    /// libvirt's name of the domain.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The domain as libvirt reads it.
    ///
    /// # Errors
    /// [`DomainError::Xml`].
    pub fn to_xml(&self) -> Result<String, DomainError> {
        xml(self)
    }

    /// Volume name -> target (`vda`), in the order of the spec's disks.
    #[must_use]
    pub fn volume_targets(&self) -> Vec<(String, String)> {
        self.devices.disks.iter().map(disk::Disk::target).collect()
    }
}
