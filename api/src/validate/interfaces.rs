//! Rules on NICs.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;

use super::names::{is_pci_address, is_port_name, mac_length};
use super::{Causes, Context, Rule};
use crate::kubevirt::{Interface, Network, Port};
use crate::run_strategy::is_absent;

/// Rules that hold at creation and not for what exists already.
pub(super) const DISCONTINUED_RULES: &[Rule] = &[discontinued_bindings];

pub(super) const RULES: &[Rule] = &[
    binding,
    masquerade_on_pod_network,
    bridge_on_pod_network,
    one_network_each,
    unique_networks,
    network_for_each,
    interface_for_each_network,
    name,
    model,
    mac_address,
    pci_address,
    state,
    ports,
    dhcp_options,
];

/// The rule on boot order is apart: it is not applied twice.
pub(super) const BOOT_ORDER_RULES: &[Rule] = &[boot_order];

const MODELS: [&str; 7] = ["e1000", "e1000e", "igb", "ne2k_pci", "pcnet", "rtl8139", "virtio"];
/// The MAC address of the bridge that a masqueraded guest sees as its gateway.
const GATEWAY_MAC: &str = "02:00:00:00:00:00";

/// Calls `rule` for each NIC with its path and itself.
fn each(context: &Context, mut rule: impl FnMut(String, &Interface)) {
    for (index, interface) in context.spec.domain.devices.interfaces.iter().enumerate() {
        rule(context.path(format_args!("domain.devices.interfaces[{index}]")), interface);
    }
}

fn discontinued_bindings(context: &Context, causes: &mut Causes) {
    each(context, |at, interface| {
        for (set, field, name) in [
            (interface.macvtap.is_some(), "macvtap", "Macvtap"),
            (interface.passt.is_some(), "passt", "Passt"),
            (interface.slirp.is_some(), "slirp", "Slirp"),
        ] {
            if set {
                let message = format!("{name} network binding has been discontinued since v1.3");
                causes.invalid(format!("{at}.{field}"), message);
            }
        }
    });
}

fn binding(context: &Context, causes: &mut Causes) {
    each(context, |at, interface| {
        let Interface { binding, bridge, masquerade, passt_binding, sriov, .. } = interface;
        let set = [binding.is_some(), bridge.is_some(), masquerade.is_some(), passt_binding.is_some(), sriov.is_some()];
        if set.into_iter().filter(|set| *set).count() != 1 {
            let name = &interface.name;
            let message = format!("logical {name} interface must have exactly one binding method or binding plugin");
            causes.invalid(at, message);
        }
    });
}

fn masquerade_on_pod_network(context: &Context, causes: &mut Causes) {
    // Where a name is given twice, the last network counts; that it is twice is another cause.
    let pod: HashMap<&str, bool> =
        context.spec.networks.iter().map(|network| (network.name.as_str(), network.pod.is_some())).collect();
    each(context, |at, interface| {
        if interface.masquerade.is_none() {
            return;
        }
        if pod.get(interface.name.as_str()) != Some(&true) {
            causes.invalid(format!("{at}.name"), "Masquerade interface only implemented with pod network");
        }
        if interface.mac_address.as_deref().is_some_and(|mac| mac.replace('-', ":") == GATEWAY_MAC) {
            let message = "The requested MAC address is reserved for the in-pod bridge. Please choose another one.";
            causes.invalid(format!("{at}.macAddress"), message);
        }
    });
}

fn bridge_on_pod_network(context: &Context, causes: &mut Causes) {
    if context.config.bridge_on_pod_network {
        return;
    }
    each(context, |at, interface| {
        let on_pod = |network: &Network| network.name == interface.name && network.pod.is_some();
        if interface.bridge.is_some() && context.spec.networks.iter().any(on_pod) {
            let message = "Bridge on pod network configuration is not enabled under kubevirt-config";
            causes.invalid(format!("{at}.name"), message);
        }
    });
}

fn one_network_each(context: &Context, causes: &mut Causes) {
    let mut seen = HashSet::new();
    each(context, |at, interface| {
        if !seen.insert(interface.name.clone()) {
            let message = "Only one interface can be connected to one specific network";
            causes.duplicate(format!("{at}.name"), message);
        }
    });
}

fn unique_networks(context: &Context, causes: &mut Causes) {
    let mut seen = HashSet::new();
    for (index, network) in context.spec.networks.iter().enumerate() {
        let name = &network.name;
        if !seen.insert(name) {
            let message = format!("Network with name \"{name}\" already exists, every network must have a unique name");
            causes.duplicate(context.path(format_args!("networks[{index}].name")), message);
        }
    }
}

fn network_for_each(context: &Context, causes: &mut Causes) {
    each(context, |at, interface| {
        let name = &interface.name;
        if !context.spec.networks.iter().any(|network| network.name == *name) {
            causes.invalid(format!("{at}.name"), format!("{at}.name '{name}' not found."));
        }
    });
}

fn interface_for_each_network(context: &Context, causes: &mut Causes) {
    let interfaces = &context.spec.domain.devices.interfaces;
    for (index, network) in context.spec.networks.iter().enumerate() {
        let name = &network.name;
        if !interfaces.iter().any(|interface| interface.name == *name) {
            let field = context.path(format_args!("networks[{index}].name"));
            let message = format!("{field} '{name}' not found.");
            causes.required(field, message);
        }
    }
}

fn name(context: &Context, causes: &mut Causes) {
    each(context, |at, interface| {
        let name = &interface.name;
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if name.is_empty() || !name.bytes().all(allowed) {
            let message = "Network interface name can only contain alphabetical characters, numbers, dashes (-) or underscores (_)";
            causes.invalid(format!("{at}.name"), message);
        }
    });
}

fn model(context: &Context, causes: &mut Causes) {
    each(context, |at, interface| {
        if let Some(model) = interface.model.as_deref().filter(|model| !MODELS.contains(model)) {
            let message = format!("interface {at}.name uses model {model} that is not supported.");
            causes.not_supported(format!("{at}.model"), message);
        }
    });
}

fn mac_address(context: &Context, causes: &mut Causes) {
    each(context, |at, interface| {
        let Some(mac) = interface.mac_address.as_deref().filter(|mac| !mac.is_empty()) else {
            return;
        };
        let wrong = match mac_length(mac) {
            None => "malformed",
            Some(7..) => "too long",
            Some(_) => return,
        };
        causes.invalid(format!("{at}.macAddress"), format!("interface {at}.name has {wrong} MAC address ({mac})."));
    });
}

fn pci_address(context: &Context, causes: &mut Causes) {
    each(context, |at, interface| {
        if let Some(pci) = interface.pci_address.as_deref().filter(|pci| !is_pci_address(pci)) {
            let message = format!("interface {at}.name has malformed PCI address ({pci}).");
            causes.invalid(format!("{at}.pciAddress"), message);
        }
    });
}

fn state(context: &Context, causes: &mut Causes) {
    each(context, |at, interface| {
        if let Some(state) = interface.state.as_deref().filter(|state| !["", "up", "down", "absent"].contains(state)) {
            let name = &interface.name;
            let message = format!("logical {name} interface state value is unsupported: {state}");
            causes.invalid(format!("{at}.state"), message);
        }
        if !is_absent(interface) {
            return;
        }
        let name = &interface.name;
        if interface.bridge.is_none() && interface.sriov.is_none() {
            let message = format!("\"{name}\" interface's state \"absent\" is supported only for bridge binding");
            causes.invalid(format!("{at}.state"), message);
        }
        let is_default = |network: &Network| {
            network.pod.is_some() || network.multus.as_ref().is_some_and(|multus| multus.default == Some(true))
        };
        if context.spec.networks.iter().any(|network| network.name == *name && is_default(network)) {
            let message = format!("\"{name}\" interface's state \"absent\" is not supported on default networks");
            causes.invalid(format!("{at}.state"), message);
        }
    });
}

fn ports(context: &Context, causes: &mut Causes) {
    each(context, |at, interface| {
        let mut names = HashSet::new();
        for (index, port) in interface.ports.iter().enumerate() {
            let at = format!("{at}.ports[{index}]");
            check_port(&at, port, causes);
            if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
                if !names.insert(name.to_owned()) {
                    causes.duplicate(format!("{at}.name"), format!("Duplicate name of the port: {name}"));
                }
                if !is_port_name(name) {
                    causes.invalid(format!("{at}.name"), format!("Invalid name of the port: {name}"));
                }
            }
        }
    });
}

fn check_port(at: &str, port: &Port, causes: &mut Causes) {
    match port.port {
        0 => causes.required(format!("{at}.port"), "Port field is mandatory."),
        1..=65535 => {}
        _ => causes.invalid(format!("{at}.port"), "Port field must be in range 0 < x < 65536."),
    }
    if !matches!(port.protocol.as_deref(), None | Some("" | "TCP" | "UDP")) {
        causes.invalid(format!("{at}.protocol"), "Unknown protocol, only TCP or UDP allowed");
    }
}

fn dhcp_options(context: &Context, causes: &mut Causes) {
    each(context, |at, interface| {
        let Some(options) = &interface.dhcp_options else { return };
        let mut seen = HashSet::new();
        for private in &options.private_options {
            if !(224..=254).contains(&private.option) {
                let message = "provided DHCPPrivateOptions are out of range, must be in range 224 to 254";
                causes.invalid(context.at, message);
            }
            if !seen.insert(private.option) {
                causes.invalid(context.at, "Found Duplicates: you have provided duplicate DHCPPrivateOptions");
            }
        }
        for (index, server) in options.ntp_servers.iter().enumerate() {
            if server.parse::<Ipv4Addr>().is_err() {
                let field = format!("{at}.dhcpOptions.ntpServers[{index}]");
                causes.invalid(field, "NTP servers must be a list of valid IPv4 addresses.");
            }
        }
    });
}

/// One order over disks and NICs. That a NIC's path lacks its middle is how the message is known.
fn boot_order(context: &Context, causes: &mut Causes) {
    let devices = &context.spec.domain.devices;
    let mut seen = HashSet::new();
    let mut check_unique = |field: String, order: i32, causes: &mut Causes| {
        if !seen.insert(order) {
            let message = format!("Boot order for {field} already set for a different device.");
            causes.invalid(field, message);
        }
    };
    for (index, disk) in devices.disks.iter().enumerate() {
        if let Some(order) = disk.boot_order {
            check_unique(context.path(format_args!("domain.devices.disks[{index}].bootOrder")), order, causes);
        }
    }
    for (index, interface) in devices.interfaces.iter().enumerate() {
        let Some(order) = interface.boot_order else { continue };
        let at = format!("{}[{index}]", context.at);
        if order < 1 {
            let message = format!("{at} must have a boot order > 0, if supplied");
            causes.invalid(format!("{at}.bootOrder"), message);
        } else {
            check_unique(format!("{at}.bootOrder"), order, causes);
        }
    }
}
