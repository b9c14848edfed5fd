//! Controllers, and the slots that devices take on them.
//!
//! The layout is the one that libvirt gave to upstream's domains: root ports behind slot 2 of the root bus
//! (slot 1 belongs to the graphics adapter), eight to a slot, numbered in the order in which devices ask; at the end
//! one more free port. All conventional devices share one PCI bridge. libvirt looks twice: its first look finds that
//! a bridge is needed, and when, which decides on the bridge's number; in the second look the bridge, being there
//! from the start, takes the first port. So a machine with a bridge is to be placed twice here too.

use std::collections::BTreeSet;

use holdfast_api::kubevirt::Devices;
use serde::Serialize;

use super::address::{self, Address, Pci, virtio_model};

/// `<controller>`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Controller {
    #[serde(rename = "@type")]
    kind: &'static str,
    #[serde(rename = "@index")]
    index: u16,
    #[serde(rename = "@model", skip_serializing_if = "Option::is_none")]
    model: Option<&'static str>,
    #[serde(rename = "model", skip_serializing_if = "Option::is_none")]
    device: Option<Model>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<Target>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<Address>,
}

#[derive(Clone, Debug, Serialize)]
struct Model {
    #[serde(rename = "@name")]
    name: &'static str,
}

#[derive(Clone, Debug, Serialize)]
struct Target {
    #[serde(rename = "@chassis")]
    chassis: u16,
    #[serde(rename = "@port")]
    port: String,
}

impl Controller {
    fn new(kind: &'static str, model: Option<&'static str>, at: Option<Pci>) -> Self {
        Self { kind, index: 0, model, device: None, target: None, address: at.map(Address::from) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bus {
    /// A root port, the n-th of all.
    Port(u8),
    /// The bridge for conventional devices, behind the root port with this bus number.
    Bridge { behind: u8, taken: u8 },
}

/// The slots of a machine while devices are placed. Bus 0 is the root; bus n is `buses[n - 1]`.
#[derive(Clone, Debug)]
pub(super) struct Slots {
    first_slot: u8,
    buses: Vec<Bus>,
    kept_free: BTreeSet<u8>,
    /// Buses on which the spec has put devices by itself.
    reserved: BTreeSet<u8>,
    /// The bridge's number, where an earlier placement has found it.
    bridge: Option<u8>,
}

impl Slots {
    /// An empty machine, with or without a graphics adapter in slot 1; `bridge` is what [`Slots::bridge`] said after
    /// the same devices were placed before. Nothing else is placed on the buses of `reserved`.
    pub(super) fn new(graphics: bool, reserved: BTreeSet<u8>, bridge: Option<u8>) -> Self {
        let first_slot = if graphics { 2 } else { 1 };
        let mut slots = Self { first_slot, buses: Vec::new(), kept_free: BTreeSet::new(), reserved, bridge };
        if bridge.is_some() {
            slots.add_port();
        }
        slots
    }

    /// Adds ports up to one on which the spec has put nothing by itself, and returns that one's bus.
    fn add_port(&mut self) -> u8 {
        loop {
            let bus = self.add_bus();
            if !self.reserved.contains(&bus) {
                return bus;
            }
        }
    }

    fn add_bus(&mut self) -> u8 {
        self.add_bridge_where_it_belongs();
        let ports = self.buses.iter().filter(|bus| matches!(bus, Bus::Port(_))).count();
        self.buses.push(Bus::Port(ports as u8));
        self.buses.len() as u8
    }

    fn add_bridge_where_it_belongs(&mut self) {
        if self.bridge == Some(self.buses.len() as u8 + 1) {
            self.buses.push(Bus::Bridge { behind: 1, taken: 0 });
        }
    }

    /// The bridge's number, if there is one.
    pub(super) fn bridge(&self) -> Option<u8> {
        let found = self.buses.iter().position(|bus| matches!(bus, Bus::Bridge { .. }));
        found.map(|index| index as u8 + 1)
    }

    /// A root port of its own for a PCI Express (or hot-pluggable virtio) device.
    pub(super) fn port(&mut self) -> Pci {
        Pci { bus: self.add_port(), slot: 0, function: 0 }
    }

    /// A slot on the bridge for a conventional device; the first one brings the bridge.
    pub(super) fn conventional(&mut self) -> Pci {
        self.add_bridge_where_it_belongs();
        if self.bridge().is_none() {
            let behind = self.add_port();
            self.buses.push(Bus::Bridge { behind, taken: 0 });
        }
        let mut at = Pci { bus: 0, slot: 0, function: 0 };
        for (bus, number) in self.buses.iter_mut().zip(1u16..) {
            if let Bus::Bridge { taken, .. } = bus {
                *taken += 1;
                at = Pci { bus: number as u8, slot: *taken, function: 0 };
            }
        }
        at
    }

    /// A slot for a virtio device: a port, or the bridge for a transitional one.
    pub(super) fn virtio(&mut self, devices: &Devices) -> Pci {
        if devices.use_virtio_transitional == Some(true) { self.conventional() } else { self.port() }
    }

    /// Adds ports that stay free for devices to come.
    pub(super) fn keep_free(&mut self, count: usize) {
        for _ in 0..count {
            let bus = self.add_port();
            self.kept_free.insert(bus);
        }
    }

    /// How many ports carry something.
    pub(super) fn used(&self) -> usize {
        self.buses.iter().filter(|bus| matches!(bus, Bus::Port(_))).count() - self.kept_free.len()
    }

    /// The root, its ports and the bridge, and one more free port.
    pub(super) fn controllers(mut self) -> Vec<Controller> {
        while self.reserved.last().is_some_and(|last| usize::from(*last) > self.buses.len()) {
            self.add_bus();
        }
        self.add_port();
        let mut controllers = vec![Controller::new("pci", Some("pcie-root"), None)];
        let ports = self.buses.iter().filter(|bus| matches!(bus, Bus::Port(_))).count() as u8;
        for (bus, index) in self.buses.iter().zip(1u16..) {
            let controller = match *bus {
                Bus::Port(nth) => self.root_port(nth, index, ports),
                Bus::Bridge { behind, .. } => Controller {
                    index,
                    device: Some(Model { name: "pcie-pci-bridge" }),
                    ..Controller::new(
                        "pci",
                        Some("pcie-to-pci-bridge"),
                        Some(Pci { bus: behind, slot: 0, function: 0 }),
                    )
                },
            };
            controllers.push(controller);
        }
        controllers
    }

    fn root_port(&self, nth: u8, index: u16, ports: u8) -> Controller {
        let (slot, function) = (self.first_slot + nth / 8, nth % 8);
        let address = Address::from(Pci { bus: 0, slot, function });
        let shared = function == 0 && nth + 1 < ports;
        Controller {
            kind: "pci",
            index,
            model: Some("pcie-root-port"),
            device: Some(Model { name: "pcie-root-port" }),
            target: Some(Target { chassis: index, port: format!("{:#x}", slot * 8 + function) }),
            address: Some(if shared { address.multifunction() } else { address }),
        }
    }
}

/// The buses behind root ports on which the spec puts devices by itself.
pub(super) fn reserved(devices: &Devices) -> BTreeSet<u8> {
    let disks = devices.disks.iter().filter_map(|disk| disk.disk.as_ref()?.pci_address.as_deref());
    let interfaces = devices.interfaces.iter().filter_map(|interface| interface.pci_address.as_deref());
    disks.chain(interfaces).filter_map(address::parse).map(|pci| pci.bus).filter(|bus| *bus > 0).collect()
}

/// Whether the VM has something on USB.
fn usb(devices: &Devices) -> bool {
    let disk = |disk: &holdfast_api::kubevirt::Disk| {
        let bus = disk.disk.as_ref().and_then(|target| target.bus.as_deref());
        bus.or(disk.cdrom.as_ref().and_then(|target| target.bus.as_deref())) == Some("usb")
    };
    let input = |input: &holdfast_api::kubevirt::Input| input.bus.as_deref() != Some("virtio");
    devices.disks.iter().any(disk) || devices.inputs.iter().any(input)
}

/// USB (or its absence), SCSI, virtio-serial and SATA. SCSI is there for hot-plug even without a disk on it.
pub(super) fn controllers(devices: &Devices, slots: &mut Slots) -> Vec<Controller> {
    let virtio = Some(virtio_model(devices));
    let mut controllers = vec![if usb(devices) {
        Controller::new("usb", Some("qemu-xhci"), Some(slots.port()))
    } else {
        Controller::new("usb", Some("none"), None)
    }];
    let on_scsi = |disk: &holdfast_api::kubevirt::Disk| super::disk::bus(disk) == "scsi";
    if devices.disable_hotplug != Some(true) || devices.disks.iter().any(on_scsi) {
        controllers.push(Controller::new("scsi", virtio, Some(slots.virtio(devices))));
    }
    controllers.push(Controller::new("virtio-serial", virtio, Some(slots.virtio(devices))));
    controllers.push(Controller::new("sata", None, Some(Pci { bus: 0, slot: 0x1f, function: 2 })));
    controllers
}
