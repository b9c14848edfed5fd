//! The NICs of a VMI: which interface of its pod each is, whose its addresses are, and which it holds.
//!
//! [`wanted`] reads the VMI; whoever can look objects up finds the network of each and asks [`Wanted::lease`] for its
//! addresses, before there is anything that could speak. Leases belong to the VM where there is one, so that they
//! stay through stop and start.

mod addresses;

use std::net::IpAddr;

use holdfast_api::addresses::{ADDRESSES_ANNOTATION, BANDWIDTH_ANNOTATION, PAIRS_ANNOTATION};
use holdfast_api::kubevirt::{Interface, Network, VirtualMachineInstance};
use holdfast_api::lease::Claim;
use holdfast_api::nad::{Bandwidth, network_name};
use holdfast_api::underlay::AddressPair;
use holdfast_net::model::{Delivery, IfName, MacAddr};
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::leases::{LeaseStore, Request, allocate};
use crate::network::{Addressing, NetworkList};

/// Annotation of a launcher's pod: its NICs, as JSON of a list of [`Nic`]. A hint: who reads it asks the store of
/// leases whether the claim holds what it says.
pub const NICS_ANNOTATION: &str = "holdfast.io/nics";

/// The network binding of `interfaces[].binding` that is built in.
const MACVTAP: &str = "macvtap";

/// A NIC of a VMI in its pod or sandbox; remembered with it, so that a VM that runs needs nothing else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Nic {
    /// `spec.domain.devices.interfaces[].name`.
    pub interface: String,
    /// `spec.networks[].name`.
    pub network: String,
    /// The pod's interface.
    pub ifname: IfName,
    /// Its leases, on a network of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<NicLease>,
}

/// The addresses of a NIC on a network of ours.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NicLease {
    /// Who holds them.
    pub claim: Claim,
    /// Ethernet address.
    pub mac: MacAddr,
    /// IP addresses.
    pub addresses: Vec<IpNetwork>,
    /// What the guest is told.
    pub delivery: Delivery,
    /// Whether the guest carries them itself.
    pub vm_owned: bool,
    /// What it uses beside them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pairs: Vec<AddressPair>,
    /// How much it asks to carry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Bandwidth>,
}

/// Why a NIC cannot have its network or its addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct NicError {
    /// CamelCase word for conditions and events.
    pub reason: &'static str,
    /// The sentence for people, with all causes.
    pub message: String,
}

impl NicError {
    /// The network cannot be joined.
    pub fn network(message: impl Into<String>) -> Self {
        Self { reason: "FailedAttachNetwork", message: message.into() }
    }

    fn addresses(message: impl Into<String>) -> Self {
        Self { reason: "AddressInvalid", message: message.into() }
    }
}

/// A NIC as the VMI asks for it, before its network is known.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// `spec.domain.devices.interfaces[].name`.
    pub interface: String,
    /// The network of the spec.
    pub network: Network,
    /// Namespace and name of its NetworkAttachmentDefinition; see [`Self::definition`].
    definition: Option<(String, String)>,
    /// The pod's interface.
    pub ifname: IfName,
    /// The Ethernet address asked for.
    pub mac: Option<MacAddr>,
    /// The IP addresses asked for.
    pub ips: Vec<IpAddr>,
    /// What it asks to use beside its own addresses.
    pub pairs: Vec<AddressPair>,
    /// How much it asks to carry.
    pub bandwidth: Option<Bandwidth>,
    /// Whether the guest carries its addresses itself.
    pub vm_owned: bool,
    /// Whether its binding is a macvtap.
    macvtap: bool,
    /// An interface before it with the same Ethernet address and the same NetworkAttachmentDefinition.
    twin: Option<String>,
}

/// The NICs that a VMI asks for, in the order of its interfaces.
///
/// # Errors
/// [`NicError`] where an address or the name of a network cannot be one.
pub fn wanted(vmi: &VirtualMachineInstance) -> Result<Vec<Wanted>, NicError> {
    let networks = &vmi.spec.networks;
    let own = vmi.metadata.namespace.as_deref().unwrap_or_default();
    let mut requested = addresses::requested(&vmi.metadata, networks)?;
    let mut pairs = addresses::pairs(&vmi.metadata, networks)?;
    let mut bandwidths = addresses::bandwidths(&vmi.metadata, networks)?;
    let mut all: Vec<Wanted> = Vec::new();
    for interface in &vmi.spec.domain.devices.interfaces {
        let network = networks.iter().find(|network| network.name == interface.name);
        let Some(network) = network.filter(|_| interface.state.as_deref() != Some("absent")) else { continue };
        let primary = network.pod.is_some() || network.multus.as_ref().is_some_and(|m| m.default == Some(true));
        let ifname = interface_name(&network.name, primary);
        let definition = network.multus.as_ref().map(|multus| network_name(&multus.network_name, own)).transpose();
        let definition = definition
            .map_err(|error| NicError::network(format!("`networkName` of network `{}`: {error}", network.name)))?;
        let definition = definition.map(|(namespace, name)| (namespace.to_owned(), name.to_owned()));
        let mac = interface.mac_address.as_deref().map(|text| addresses::unicast(text, &interface.name)).transpose()?;
        let twin = all.iter().find(|nic| mac.is_some() && nic.mac == mac && nic.definition == definition);
        all.push(Wanted {
            interface: interface.name.clone(),
            network: network.clone(),
            twin: twin.map(|nic| nic.interface.clone()),
            definition,
            ifname: ifname.parse().map_err(|_| NicError::network(format!("`{ifname}` can name no interface")))?,
            mac,
            ips: requested.remove(&network.name).unwrap_or_default(),
            pairs: pairs.remove(&network.name).unwrap_or_default(),
            bandwidth: bandwidths.remove(&network.name),
            vm_owned: interface.bridge.is_some() || is_macvtap(interface),
            macvtap: is_macvtap(interface),
        });
    }
    Ok(all)
}

impl Wanted {
    /// Namespace and name of its NetworkAttachmentDefinition, fit for a URL; none on the pod network.
    pub fn definition(&self) -> Option<(&str, &str)> {
        self.definition.as_ref().map(|(namespace, name)| (namespace.as_str(), name.as_str()))
    }

    /// What its network is asked for, by CNI capability.
    pub fn capabilities(&self) -> Value {
        let mut asked = Map::new();
        if let Some(mac) = self.mac {
            asked.insert("mac".into(), json!(mac));
        }
        if !self.ips.is_empty() {
            asked.insert("ips".into(), json!(self.ips));
        }
        Value::Object(asked)
    }

    /// The NIC with its addresses on a network of ours. They are the VM's from here on, whatever follows: the next
    /// attempt finds them.
    ///
    /// # Errors
    /// [`NicError`] names who holds what was asked for, or what is wrong with it.
    pub async fn lease(&self, store: &dyn LeaseStore, network: &Addressing, claim: Claim) -> Result<Nic, NicError> {
        if let (Some(twin), Some(mac)) = (&self.twin, self.mac) {
            return Err(NicError::addresses(format!(
                "`macAddress` `{mac}` of interface `{}` is that of interface `{twin}`, which is on the same network: \
                 give each its own, or none",
                self.interface
            )));
        }
        if let (Some(address), true) = (self.ips.first(), network.subnets.is_empty()) {
            return Err(NicError::addresses(format!(
                "network `{}` has no subnets to take the address {address} from: give it `subnets`, or do not ask for \
                 addresses there by annotation {ADDRESSES_ANNOTATION}",
                network.name
            )));
        }
        let Addressing { name, macvtap, .. } = network;
        if self.vm_owned && self.macvtap != *macvtap {
            let (has, needs) = match macvtap {
                true => ("`macvtap`, which the guest joins by", "`binding: {name: macvtap}`"),
                false => ("a bridge, which the guest joins by", "`bridge: {}`"),
            };
            let interface = &self.interface;
            return Err(NicError::network(format!(
                "the backend of network `{name}` is {has} {needs}: give interface `{interface}` that binding"
            )));
        }
        let pairs = network.check_pairs(&self.pairs);
        pairs.map_err(|error| NicError::addresses(format!("annotation {PAIRS_ANNOTATION}: {error}")))?;
        let bandwidth = network.bandwidth(self.bandwidth.as_ref());
        bandwidth.map_err(|error| NicError::network(format!("annotation {BANDWIDTH_ANNOTATION}: {error}")))?;
        let request = Request { network, claim: &claim, mac: self.mac, ips: &self.ips, labels: &[] };
        let allocation = allocate(store, &request).await.map_err(|error| {
            let causes = std::iter::successors(std::error::Error::source(&error), |cause| cause.source());
            let message = causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"));
            NicError { reason: error.reason(), message }
        })?;
        let delivery = network.delivery(&allocation.addresses);
        let (mac, addresses, pairs) = (allocation.mac, allocation.addresses, self.pairs.clone());
        let (vm_owned, bandwidth) = (self.vm_owned, self.bandwidth.clone());
        let lease = NicLease { claim, mac, addresses, delivery, vm_owned, pairs, bandwidth };
        Ok(Nic { lease: Some(lease), ..self.bare() })
    }

    /// The NIC on a network of somebody else's. `source` says in messages where `list` comes from.
    ///
    /// # Errors
    /// [`NicError`] where the network takes no guests, or addresses are asked for that it does not take.
    pub fn foreign(&self, list: &NetworkList, source: &str) -> Result<Nic, NicError> {
        if self.bandwidth.is_some() {
            return Err(NicError::network(format!(
                "{source} is not ours to limit: annotation {BANDWIDTH_ANNOTATION} needs a network of type `holdfast`"
            )));
        }
        if !self.pairs.is_empty() {
            return Err(NicError::addresses(format!(
                "{source} has no port security: annotation {PAIRS_ANNOTATION} needs a network of type `holdfast`"
            )));
        }
        if let Some((kind, why)) = list.without_guests().filter(|_| self.vm_owned && !self.macvtap) {
            return Err(NicError::network(format!(
                "{source} is of CNI type `{kind}`, {why}: a VM's NIC needs type `holdfast`, or another whose interface \
                 can be the port of a bridge, such as `bridge`"
            )));
        }
        if self.macvtap && list.plugins.first().is_none_or(|plugin| plugin["type"] != MACVTAP) {
            return Err(NicError::network(format!(
                "{source} makes no macvtap, which interface `{}` is bound by: it needs type `holdfast` with the backend \
                 `macvtap`, or CNI type `macvtap`",
                self.interface
            )));
        }
        if self.ips.is_empty() || list.plugins.iter().any(|plugin| plugin["capabilities"]["ips"] == json!(true)) {
            return Ok(self.bare());
        }
        Err(NicError::addresses(format!(
            "{source} takes no addresses: annotation {ADDRESSES_ANNOTATION} needs a network of type `holdfast`, or a \
             plugin with the capability `ips`"
        )))
    }

    /// The NIC without addresses of ours.
    fn bare(&self) -> Nic {
        Nic {
            interface: self.interface.clone(),
            network: self.network.name.clone(),
            ifname: self.ifname.clone(),
            lease: None,
        }
    }
}

/// Whether the guest of an interface has a macvtap: by the network binding of that name, which needs no registration.
pub fn is_macvtap(interface: &Interface) -> bool {
    interface.binding.as_ref().is_some_and(|binding| binding.name == MACVTAP)
}

/// Who holds the leases of a VMI's network: the VM that controls it, or itself where none does.
pub fn claim(vmi: &VirtualMachineInstance, network: &str) -> Claim {
    let owners = vmi.metadata.owner_references.as_deref().unwrap_or_default();
    let vm = owners.iter().find(|owner| owner.controller == Some(true) && owner.kind == "VirtualMachine");
    let (kind, uid, name) = match vm {
        Some(vm) => (vm.kind.clone(), vm.uid.clone(), vm.name.clone()),
        None => (
            "VirtualMachineInstance".to_owned(),
            vmi.metadata.uid.clone().unwrap_or_default(),
            vmi.metadata.name.clone().unwrap_or_default(),
        ),
    };
    let namespace = vmi.metadata.namespace.clone().unwrap_or_default();
    Claim { uid, kind, namespace, name, network: network.to_owned() }
}

/// The interface that carries a network of the pod's spec: `eth0` for the pod network and for a default one of
/// Multus, else `pod` and eleven digits of a hash of the network's name, as KubeVirt has it.
pub fn interface_name(network: &str, primary: bool) -> String {
    if primary {
        return "eth0".to_owned();
    }
    // Six octets are twelve digits.
    let digits = Sha256::digest(network).iter().take(6).map(|octet| format!("{octet:02x}")).collect::<String>();
    format!("pod{}", &digits[..11])
}

#[cfg(test)]
mod tests;
