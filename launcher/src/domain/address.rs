//! Where a device sits, and the alias that names it.

use serde::Serialize;

/// A PCI address within domain 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pci {
    pub bus: u8,
    pub slot: u8,
    pub function: u8,
}

/// An `<address>` element.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Address {
    #[serde(rename = "@type")]
    kind: &'static str,
    #[serde(rename = "@domain")]
    domain: String,
    #[serde(rename = "@bus")]
    bus: String,
    #[serde(rename = "@slot")]
    slot: String,
    #[serde(rename = "@function")]
    function: String,
    #[serde(rename = "@multifunction", skip_serializing_if = "Option::is_none")]
    multifunction: Option<&'static str>,
}

impl From<Pci> for Address {
    fn from(pci: Pci) -> Self {
        Self {
            kind: "pci",
            domain: "0x0000".to_owned(),
            bus: format!("{:#04x}", pci.bus),
            slot: format!("{:#04x}", pci.slot),
            function: format!("{:#x}", pci.function),
            multifunction: None,
        }
    }
}

impl Address {
    /// The same address, as the first of several functions of its slot.
    pub(super) fn multifunction(self) -> Self {
        Self { multifunction: Some("on"), ..self }
    }
}

/// More buses than there is room for root ports.
const BUSES: u8 = 200;

/// Reads `0000:81:01.0`, the form of the spec's `pciAddress`; none for what no machine of ours has.
pub(super) fn parse(text: &str) -> Option<Pci> {
    let (domain, rest) = text.split_once(':')?;
    let (bus, rest) = rest.split_once(':')?;
    let (slot, function) = rest.split_once('.')?;
    let hex = |digits: &str| u8::from_str_radix(digits, 16).ok();
    let pci = Pci { bus: hex(bus)?, slot: hex(slot)?, function: hex(function)? };
    (domain == "0000" && pci.bus < BUSES && pci.slot < 32 && pci.function < 8).then_some(pci)
}

/// An `<alias>` that the user chose by naming the device: `ua-<name>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Alias {
    #[serde(rename = "@name")]
    pub name: String,
}

impl Alias {
    pub(super) fn of(device: &str) -> Self {
        Self { name: format!("ua-{device}") }
    }
}

/// The model of a virtio device: without the legacy interface unless the spec asks for it.
pub(super) fn virtio_model(devices: &holdfast_api::kubevirt::Devices) -> &'static str {
    if devices.use_virtio_transitional == Some(true) { "virtio-transitional" } else { "virtio-non-transitional" }
}
