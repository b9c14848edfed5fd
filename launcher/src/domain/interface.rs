//! NICs: each a tap that the agent made, with a model, a MAC and an MTU.
//!
//! libvirt opens a tap by its name. A macvtap it fetches from the launcher, as it would a port of a bridge (see
//! [`crate::taps`]); to such a NIC it would set the MTU, which it may not, so QEMU is told by an [`Override`].

use std::collections::BTreeSet;

use holdfast_api::kubevirt;
use serde::Serialize;

use super::address::{self, Address, Alias, virtio_model};
use super::disk::Boot;
use super::{DomainError, Input, Refused, pci};

/// `<interface>`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename = "interface")]
pub(super) struct Interface {
    #[serde(rename = "@type")]
    kind: &'static str,
    mac: Mac,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<Source>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<Target>,
    model: Model,
    #[serde(skip_serializing_if = "Option::is_none")]
    driver: Option<Driver>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu: Option<Mtu>,
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<Link>,
    #[serde(skip_serializing_if = "Option::is_none")]
    boot: Option<Boot>,
    #[serde(skip_serializing_if = "Option::is_none")]
    acpi: Option<Acpi>,
    alias: Alias,
    #[serde(skip_serializing_if = "Option::is_none")]
    rom: Option<Rom>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<Address>,
}

#[derive(Clone, Debug, Serialize)]
struct Mac {
    #[serde(rename = "@address")]
    address: String,
}

#[derive(Clone, Debug, Serialize)]
struct Source {
    #[serde(rename = "@bridge")]
    bridge: String,
}

#[derive(Clone, Debug, Serialize)]
struct Target {
    #[serde(rename = "@dev")]
    dev: String,
    #[serde(rename = "@managed")]
    managed: &'static str,
}

#[derive(Clone, Debug, Serialize)]
struct Model {
    #[serde(rename = "@type")]
    kind: String,
}

#[derive(Clone, Debug, Serialize)]
struct Driver {
    #[serde(rename = "@queues")]
    queues: u32,
}

#[derive(Clone, Debug, Serialize)]
struct Mtu {
    #[serde(rename = "@size")]
    size: u32,
}

#[derive(Clone, Debug, Serialize)]
struct Link {
    #[serde(rename = "@state")]
    state: &'static str,
}

#[derive(Clone, Debug, Serialize)]
struct Acpi {
    #[serde(rename = "@index")]
    index: i32,
}

#[derive(Clone, Debug, Serialize)]
struct Rom {
    #[serde(rename = "@enabled")]
    enabled: &'static str,
}

/// `<qemu:override>`: properties of QEMU's devices beside those that libvirt gives them.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Override {
    #[serde(rename = "qemu:device")]
    devices: Vec<Device>,
}

#[derive(Clone, Debug, Serialize)]
struct Device {
    #[serde(rename = "@alias")]
    alias: String,
    #[serde(rename = "qemu:frontend")]
    frontend: Frontend,
}

#[derive(Clone, Debug, Serialize)]
struct Frontend {
    #[serde(rename = "qemu:property")]
    property: Property,
}

#[derive(Clone, Debug, Serialize)]
struct Property {
    #[serde(rename = "@name")]
    name: &'static str,
    #[serde(rename = "@type")]
    kind: &'static str,
    #[serde(rename = "@value")]
    value: u32,
}

/// What QEMU has to be told of the NICs that libvirt cannot tell it; none where all are told.
pub(super) fn overrides(input: &Input<'_>) -> Option<Override> {
    let interfaces = &input.vmi.spec.domain.devices.interfaces;
    // Other models know no MTU of their host's.
    let virtio = |name: &str| interfaces.iter().any(|interface| interface.name == name && model(interface) == "virtio");
    let device = |nic: &holdfast_net::model::GuestNic| Device {
        alias: Alias::of(&nic.name).name,
        frontend: Frontend { property: Property { name: "host_mtu", kind: "unsigned", value: nic.mtu } },
    };
    let devices: Vec<Device> = input.nics.iter().filter(|nic| nic.macvtap && virtio(&nic.name)).map(device).collect();
    (!devices.is_empty()).then_some(Override { devices })
}

fn model(interface: &kubevirt::Interface) -> &str {
    interface.model.as_deref().filter(|model| !model.is_empty()).unwrap_or("virtio")
}

/// All NICs that the spec does not mark absent, in its order.
pub(super) fn build(input: &Input<'_>, slots: &mut pci::Slots) -> Result<Vec<Interface>, DomainError> {
    let interfaces = &input.vmi.spec.domain.devices.interfaces;
    let present = interfaces.iter().filter(|interface| interface.state.as_deref() != Some("absent"));
    present.map(|interface| one(input, interface, slots)).collect()
}

/// A NIC for a machine that runs: libvirt knows which ports are free now, so it chooses, unless the spec does.
pub(super) fn to_plug(input: &Input<'_>, interface: &kubevirt::Interface) -> Result<Interface, DomainError> {
    let mut slots = pci::Slots::new(false, BTreeSet::new(), None);
    let nic = one(input, interface, &mut slots)?;
    let address = nic.address.filter(|_| interface.pci_address.is_some());
    Ok(Interface { address, ..nic })
}

fn one(input: &Input<'_>, interface: &kubevirt::Interface, slots: &mut pci::Slots) -> Result<Interface, DomainError> {
    let devices = &input.vmi.spec.domain.devices;
    let nic = input.nics.iter().find(|nic| nic.name == interface.name);
    let nic = nic.ok_or_else(|| DomainError::NotWired(interface.name.clone()))?;
    let model = model(interface);
    let address = match &interface.pci_address {
        Some(text) => address::parse(text).ok_or_else(|| {
            let field = format!("spec.domain.devices.interfaces[name={}].pciAddress", interface.name);
            Refused::new(field, format!("`{text}`: valid is an address such as 0000:81:01.0"))
        })?,
        None => match model {
            "virtio" => slots.virtio(devices),
            "e1000e" | "igb" => slots.port(),
            _ => slots.conventional(),
        },
    };
    Ok(Interface {
        kind: if nic.macvtap { "bridge" } else { "ethernet" },
        mac: Mac { address: nic.mac.to_string() },
        source: nic.macvtap.then(|| Source { bridge: nic.tap.to_string() }),
        target: (!nic.macvtap).then(|| Target { dev: nic.tap.to_string(), managed: "no" }),
        model: Model { kind: if model == "virtio" { virtio_model(devices) } else { model }.to_owned() },
        driver: (model == "virtio" && nic.queues > 1).then_some(Driver { queues: nic.queues }),
        mtu: (!nic.macvtap).then_some(Mtu { size: nic.mtu }),
        link: (interface.state.as_deref() == Some("down")).then_some(Link { state: "down" }),
        boot: interface.boot_order.map(|order| Boot { order }),
        acpi: interface.acpi_index.map(|index| Acpi { index }),
        alias: Alias::of(&interface.name),
        // A NIC that is not booted from needs no boot ROM: that saves the guest's firmware time.
        rom: interface.boot_order.is_none().then_some(Rom { enabled: "no" }),
        address: Some(address.into()),
    })
}
