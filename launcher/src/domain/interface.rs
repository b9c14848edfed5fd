//! NICs: each a tap that the agent made, with a model, a MAC and an MTU.

use holdfast_api::kubevirt;
use serde::Serialize;

use super::address::{self, Address, Alias, virtio_model};
use super::disk::Boot;
use super::{DomainError, Input, Refused, pci};

/// `<interface>`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Interface {
    #[serde(rename = "@type")]
    kind: &'static str,
    mac: Mac,
    target: Target,
    model: Model,
    #[serde(skip_serializing_if = "Option::is_none")]
    driver: Option<Driver>,
    mtu: Mtu,
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<Link>,
    #[serde(skip_serializing_if = "Option::is_none")]
    boot: Option<Boot>,
    #[serde(skip_serializing_if = "Option::is_none")]
    acpi: Option<Acpi>,
    alias: Alias,
    #[serde(skip_serializing_if = "Option::is_none")]
    rom: Option<Rom>,
    address: Address,
}

#[derive(Clone, Debug, Serialize)]
struct Mac {
    #[serde(rename = "@address")]
    address: String,
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

/// All NICs that the spec does not mark absent, in its order.
pub(super) fn build(input: &Input<'_>, slots: &mut pci::Slots) -> Result<Vec<Interface>, DomainError> {
    let interfaces = &input.vmi.spec.domain.devices.interfaces;
    let present = interfaces.iter().filter(|interface| interface.state.as_deref() != Some("absent"));
    present.map(|interface| one(input, interface, slots)).collect()
}

fn one(input: &Input<'_>, interface: &kubevirt::Interface, slots: &mut pci::Slots) -> Result<Interface, DomainError> {
    let devices = &input.vmi.spec.domain.devices;
    let nic = input.nics.iter().find(|nic| nic.name == interface.name);
    let nic = nic.ok_or_else(|| DomainError::NotWired(interface.name.clone()))?;
    let model = interface.model.as_deref().filter(|model| !model.is_empty()).unwrap_or("virtio");
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
        kind: "ethernet",
        mac: Mac { address: nic.mac.to_string() },
        target: Target { dev: nic.tap.to_string(), managed: "no" },
        model: Model { kind: if model == "virtio" { virtio_model(devices) } else { model }.to_owned() },
        driver: (model == "virtio" && nic.queues > 1).then_some(Driver { queues: nic.queues }),
        mtu: Mtu { size: nic.mtu },
        link: (interface.state.as_deref() == Some("down")).then_some(Link { state: "down" }),
        boot: interface.boot_order.map(|order| Boot { order }),
        acpi: interface.acpi_index.map(|index| Acpi { index }),
        alias: Alias::of(&interface.name),
        // A NIC that is not booted from needs no boot ROM: that saves the guest's firmware time.
        rom: interface.boot_order.is_none().then_some(Rom { enabled: "no" }),
        address: address.into(),
    })
}
