//! The NICs of a VMI: which network each is on, and which addresses it holds there.
//!
//! Leases are taken here, before there is anything that could speak. They belong to the VM where there is one, so
//! that they stay through stop and start.

use std::collections::BTreeMap;
use std::net::IpAddr;

use holdfast_api::kubevirt::{Interface, Network, VirtualMachine, VirtualMachineInstance};
use holdfast_api::lease::Claim;
use holdfast_api::nad::NetworkAttachmentDefinition;
use holdfast_api::underlay::UnderlayNetwork;
use holdfast_ipam::leases::{AllocateError, Request, allocate};
use holdfast_ipam::network::resolve;
use holdfast_net::model::{IfName, MacAddr};
use ipnetwork::IpNetwork;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::pods::NicLease;
use super::{Nic, SetupError};
use crate::cni::{NetworkList, interface_name};
use crate::host::Host;
use crate::manifests::FileErrors;
use crate::store::{Key, Kind};

/// Annotation of a VM or its template: the addresses that it asks for, as JSON by network name.
pub const ADDRESSES_ANNOTATION: &str = "holdfast.io/ip-addresses";

/// A NIC with the network that it is to join.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The NIC.
    pub nic: Nic,
    /// Configuration of its network.
    pub list: NetworkList,
    /// What the network is asked for, by capability.
    pub capabilities: Value,
}

/// Plans the NICs of a VMI in the order of its interfaces, and takes their leases. A lease that was taken stays
/// taken when a later one fails: it is the VM's, and the next attempt finds it.
pub async fn plan(host: &Host, vmi: &VirtualMachineInstance) -> Result<Vec<Planned>, SetupError> {
    let owner = owner(vmi);
    let vm = owner.as_ref().and_then(|name| host.store.read::<VirtualMachine>(namespace(vmi), name));
    let requested = requested_addresses(vm.as_ref(), vmi)?;
    let networks = &vmi.spec.networks;
    if let Some(stranger) = requested.keys().find(|name| networks.iter().all(|network| network.name != **name)) {
        let known: Vec<&str> = networks.iter().map(|network| network.name.as_str()).collect();
        let message = format!(
            "annotation {ADDRESSES_ANNOTATION} names network `{stranger}`; the networks of the VM are {}",
            known.join(", ")
        );
        return Err(SetupError::new("AddressInvalid", message));
    }
    let mut planned = Vec::new();
    for interface in &vmi.spec.domain.devices.interfaces {
        if interface.state.as_deref() == Some("absent") {
            continue;
        }
        let network = networks.iter().find(|network| network.name == interface.name);
        let Some(network) = network else { continue };
        let ips = requested.get(&network.name).map(Vec::as_slice).unwrap_or_default();
        planned.push(one(host, vmi, vm.as_ref(), interface, network, ips).await?);
    }
    Ok(planned)
}

async fn one(
    host: &Host,
    vmi: &VirtualMachineInstance,
    vm: Option<&VirtualMachine>,
    interface: &Interface,
    network: &Network,
    ips: &[IpAddr],
) -> Result<Planned, SetupError> {
    let primary = network.pod.is_some() || network.multus.as_ref().is_some_and(|m| m.default == Some(true));
    let invalid = |error: &dyn std::error::Error| SetupError::of("FailedAttachNetwork", error);
    let ifname: IfName = interface_name(&network.name, primary).parse().map_err(|error| invalid(&error))?;
    let mac = interface.mac_address.as_deref().map(|text| unicast(text, &interface.name)).transpose()?;
    let mut nic = Nic { interface: interface.name.clone(), network: network.name.clone(), ifname, lease: None };
    // The pod network is any network to us: with one of ours, a VM's addresses on it stay as well.
    let (list, source, capabilities) = match &network.multus {
        Some(multus) => {
            let (list, nad) = definition(host, namespace(vmi), &multus.network_name)?;
            (list, format!("NetworkAttachmentDefinition `{nad}`"), capabilities(mac, ips))
        }
        None => (host.pod_network.clone(), "the pod network".to_owned(), json!({})),
    };
    host.cni
        .check(&list)
        .map_err(|error| SetupError::new("FailedAttachNetwork", format!("{source}: {}", crate::host::chain(&error))))?;
    if let Some(config) = list.ours() {
        let underlay = match config["network"].as_str() {
            Some(name) => match host.store.read::<UnderlayNetwork>("", name) {
                None => {
                    refused(&host.file_errors, &Key::new(Kind::UnderlayNetwork, "", name))?;
                    None
                }
                found => found,
            },
            None => None,
        };
        let config = resolve(&config, underlay.as_ref(), &host.node_labels)
            .map_err(|error| SetupError::new("FailedAttachNetwork", format!("{source}: {error}")))?;
        let claim = claim(vmi, vm, &network.name);
        let request = Request { network: &config, claim: &claim, mac, ips, labels: &[] };
        let allocation = allocate(&*host.leases, &request).await.map_err(|error| taken(&error))?;
        let delivery = config.delivery(&allocation.addresses);
        let vm_owned = interface.bridge.is_some();
        nic.lease = Some(NicLease { claim, mac: allocation.mac, addresses: allocation.addresses, delivery, vm_owned });
    } else if !ips.is_empty() && !list.plugins.iter().any(|p| p["capabilities"]["ips"] == json!(true)) {
        let message = format!(
            "{source} takes no addresses: annotation {ADDRESSES_ANNOTATION} needs a network \
             of type `holdfast`, or a plugin with the capability `ips`"
        );
        return Err(SetupError::new("AddressInvalid", message));
    }
    Ok(Planned { nic, list, capabilities })
}

fn taken(error: &AllocateError) -> SetupError {
    SetupError::of(error.reason(), error)
}

fn capabilities(mac: Option<MacAddr>, ips: &[IpAddr]) -> Value {
    let mut asked = Map::new();
    if let Some(mac) = mac {
        asked.insert("mac".into(), json!(mac));
    }
    if !ips.is_empty() {
        asked.insert("ips".into(), json!(ips));
    }
    Value::Object(asked)
}

/// The NetworkAttachmentDefinition that `[NAMESPACE/]NAME` means, as a list of plugins, and its full name.
fn definition(host: &Host, own: &str, name: &str) -> Result<(NetworkList, String), SetupError> {
    let (namespace, name) = name.split_once('/').unwrap_or((own, name));
    let full = format!("{namespace}/{name}");
    let Some(nad) = host.store.read::<NetworkAttachmentDefinition>(namespace, name) else {
        refused(&host.file_errors, &Key::new(Kind::NetworkAttachmentDefinition, namespace, name))?;
        let message = format!("NetworkAttachmentDefinition `{full}` does not exist: put it into the manifests folder");
        return Err(SetupError::new("FailedAttachNetwork", message));
    };
    let list = NetworkList::parse(&nad.spec.config, name).map_err(|error| {
        let message = format!("NetworkAttachmentDefinition `{full}`: {}", crate::host::chain(&error));
        SetupError::new("FailedAttachNetwork", message)
    })?;
    Ok((list.with_agent_socket(&host.run.join("cni.sock")), full))
}

/// An error where an object is missing because its document was refused.
fn refused(errors: &FileErrors, key: &Key) -> Result<(), SetupError> {
    let Some((file, text)) = errors.of(key) else { return Ok(()) };
    let full = match key.namespace.as_str() {
        "" => key.name.clone(),
        namespace => format!("{namespace}/{}", key.name),
    };
    let message = format!("{} `{full}` was refused: {text} (in `{file}` of the manifests folder)", key.kind);
    Err(SetupError::new("FailedAttachNetwork", message))
}

/// A MAC address that a NIC can have.
fn unicast(text: &str, interface: &str) -> Result<MacAddr, SetupError> {
    let mac = text.parse::<MacAddr>().ok().filter(|mac| !mac.is_multicast() && mac.octets() != [0; 6]);
    mac.ok_or_else(|| {
        let message = format!(
            "`macAddress` `{text}` of interface `{interface}`: must be a unicast address that is not zero, \
             such as 02:00:00:00:00:01"
        );
        SetupError::new("FailedAttachNetwork", message)
    })
}

/// Who holds the leases of a network: the VM, or the VMI where there is none.
fn claim(vmi: &VirtualMachineInstance, vm: Option<&VirtualMachine>, network: &str) -> Claim {
    let (kind, meta) = match vm {
        Some(vm) => ("VirtualMachine", &vm.metadata),
        None => ("VirtualMachineInstance", &vmi.metadata),
    };
    Claim {
        uid: meta.uid.clone().unwrap_or_default(),
        kind: kind.to_owned(),
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
        network: network.to_owned(),
    }
}

/// Name of the VM that a VMI belongs to.
fn owner(vmi: &VirtualMachineInstance) -> Option<String> {
    let owners = vmi.metadata.owner_references.as_deref().unwrap_or_default();
    owners.iter().find(|owner| owner.controller == Some(true)).map(|owner| owner.name.clone())
}

fn namespace(vmi: &VirtualMachineInstance) -> &str {
    vmi.metadata.namespace.as_deref().unwrap_or_default()
}

/// One address or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum Addresses {
    One(String),
    Several(Vec<String>),
}

/// The addresses asked for, by network. What the template says comes before what the VM says.
fn requested_addresses(
    vm: Option<&VirtualMachine>,
    vmi: &VirtualMachineInstance,
) -> Result<BTreeMap<String, Vec<IpAddr>>, SetupError> {
    let mut requested = BTreeMap::new();
    for meta in vm.map(|vm| &vm.metadata).into_iter().chain([&vmi.metadata]) {
        let text = meta.annotations.as_ref().and_then(|annotations| annotations.get(ADDRESSES_ANNOTATION));
        if let Some(text) = text {
            requested.extend(parse_addresses(text)?);
        }
    }
    Ok(requested)
}

fn parse_addresses(text: &str) -> Result<BTreeMap<String, Vec<IpAddr>>, SetupError> {
    let wrong = |what: String| {
        let example = r#"valid is JSON by network name, such as {"lan": "192.0.2.10"} or {"lan": ["192.0.2.10", "2001:db8::10"]}"#;
        SetupError::new("AddressInvalid", format!("annotation {ADDRESSES_ANNOTATION} {what}; {example}"))
    };
    let parsed: BTreeMap<String, Addresses> =
        serde_json::from_str(text).map_err(|error| wrong(format!("cannot be read ({error})")))?;
    let mut requested = BTreeMap::new();
    for (network, addresses) in parsed {
        let texts = match addresses {
            Addresses::One(text) => vec![text],
            Addresses::Several(texts) => texts,
        };
        let address = |text: &String| {
            let plain = text.parse::<IpAddr>().ok().or_else(|| text.parse::<IpNetwork>().ok().map(|n| n.ip()));
            plain.ok_or_else(|| wrong(format!("gives `{text}` for network `{network}`, which is no IP address")))
        };
        let addresses: Result<Vec<IpAddr>, SetupError> = texts.iter().map(address).collect();
        requested.insert(network.clone(), addresses?);
    }
    Ok(requested)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_from_the_annotation() {
        let parsed = parse_addresses(r#"{"lan":"192.0.2.10","six":["192.0.2.11/24","2001:db8::1"]}"#).unwrap();
        assert_eq!(parsed["lan"], ["192.0.2.10".parse::<IpAddr>().unwrap()]);
        assert_eq!(parsed["six"].len(), 2);
        for (text, word) in [("x", "cannot be read"), (r#"{"lan":"a"}"#, "`a` for network `lan`"), ("[1]", "cannot")] {
            let error = parse_addresses(text).unwrap_err();
            assert!(error.message.contains(word) && error.message.contains("valid is JSON"), "{error}");
        }
    }

    #[test]
    fn only_addresses_that_a_nic_can_have_are_taken() {
        assert!(unicast("02-00-00-00-00-01", "lan").is_ok());
        for text in ["01:00:5e:00:00:01", "00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "02:00"] {
            let message = unicast(text, "lan").unwrap_err().message;
            assert!(message.starts_with(&format!("`macAddress` `{text}` of interface `lan`: must be a")), "{message}");
        }
    }

    #[test]
    fn a_refused_network_is_named_with_the_reason() {
        let errors = FileErrors::default();
        let key = Key::new(Kind::NetworkAttachmentDefinition, "default", "broken");
        assert!(refused(&errors, &key).is_ok());
        errors.add("n.yaml", &format!("{key}: spec.config: no"));
        let expected = "NetworkAttachmentDefinition `default/broken` was refused: spec.config: no \
                        (in `n.yaml` of the manifests folder)";
        assert_eq!(refused(&errors, &key).unwrap_err().message, expected);
        let key = Key::new(Kind::UnderlayNetwork, "", "lan");
        errors.add("u.yaml", &format!("{key}: spec.bridge: no"));
        let message = refused(&errors, &key).unwrap_err().message;
        assert!(message.starts_with("UnderlayNetwork `lan` was refused: spec.bridge: no"), "{message}");
    }

    #[test]
    fn the_templates_wish_comes_first() {
        let annotated = |text: &str| Some([(ADDRESSES_ANNOTATION.to_owned(), text.to_owned())].into());
        let mut vm = VirtualMachine::default();
        vm.metadata.annotations = annotated(r#"{"a":"192.0.2.1","b":"192.0.2.2"}"#);
        let mut vmi = VirtualMachineInstance::default();
        vmi.metadata.annotations = annotated(r#"{"b":"192.0.2.3"}"#);
        let requested = requested_addresses(Some(&vm), &vmi).unwrap();
        assert_eq!(requested["a"], ["192.0.2.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(requested["b"], ["192.0.2.3".parse::<IpAddr>().unwrap()]);
    }
}
