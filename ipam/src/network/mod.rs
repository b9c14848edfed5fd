//! What a network is, on this node: a CNI configuration and the UnderlayNetwork that it names, made one.
//!
//! Pure. Everything that can be known to be wrong is refused here, before anything is touched, with the key and
//! the value in the message.

mod bandwidth;
mod check;
mod conf;
mod folder;
mod list;
mod neighbours;
mod security;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use holdfast_api::nad::Bandwidth;
use holdfast_api::underlay::{
    AddressPair, Backend as BackendKind, Datapath, Dhcp, MacvtapMode, OnNode, Subnet, TunnelProtocol as TunnelTag,
    UnderlayNetwork, UnderlayNetworkSpec, conflict,
};
use holdfast_net::model::{Backend, BridgeGateway, Delivery, IfName, MacvlanMode, StaticRoute, TunnelProtocol, Vlan};
use ipnetwork::IpNetwork;
use tokio::sync::watch;

pub use bandwidth::BandwidthError;
pub use conf::{BridgeGatewayConf, NetConf, RuntimeConfig};
pub use folder::{FolderError, read_folder};
pub use list::{ConfigError, NetworkList};
pub use neighbours::Neighbour;
pub(crate) use neighbours::{neighbours, pool};
pub use security::PairsError;

/// The UnderlayNetworks by name, as they are now.
pub type Networks = watch::Receiver<Arc<BTreeMap<String, UnderlayNetwork>>>;

/// CNI type of our plugin.
pub const PLUGIN_TYPE: &str = "holdfast";

/// What of a network is the same on all nodes: who has which address on it. To know it, no bridge is needed.
#[derive(Clone, Debug, PartialEq)]
pub struct Addressing {
    /// `name` of the CNI configuration.
    pub name: String,
    /// Name of the UnderlayNetwork; none for an inline configuration.
    pub underlay: Option<String>,
    /// Segment that its leases are named after.
    pub segment: String,
    /// Where its addresses come from; none where the network's own server gives them.
    pub subnets: Vec<Subnet>,
    /// How guests are told their addresses.
    pub dhcp: Dhcp,
    /// Whether its UnderlayNetwork is being deleted: who holds nothing there gets nothing.
    pub deleting: bool,
    /// Whether its guests are on macvtaps.
    pub macvtap: bool,
    /// What its NICs may ask to use beside their own addresses.
    pub allowed_address_pairs: Vec<AddressPair>,
    /// How much its NICs may carry.
    pub bandwidth: Option<Bandwidth>,
    /// The other UnderlayNetworks of the segment, as far as [`NetConf::beside`] was told of them.
    pub neighbours: Vec<Neighbour>,
}

/// A network on this node.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkConfig {
    /// Its name, segment and addresses.
    pub addressing: Addressing,
    /// Which bridge, which VLAN.
    pub backend: Backend,
    /// What names the bridge, for people.
    pub bridge_field: String,
    /// The link that leads to the wire, where it was named.
    pub uplink: Option<String>,
    /// MTU in bytes; that of the bridge where none is given.
    pub mtu: Option<u32>,
    /// The data path that an `ovs` bridge has.
    pub datapath: Datapath,
    /// Whether a plain pod's default route leads here.
    pub default_route: bool,
    /// Whether who is behind a port may speak for itself alone.
    pub port_security: bool,
}

impl Addressing {
    /// The subnet that `address` is in.
    pub fn subnet_of(&self, address: std::net::IpAddr) -> Option<&Subnet> {
        self.subnets.iter().find(|subnet| subnet.cidr.contains(address))
    }

    /// What a guest with these addresses is told about the network.
    pub fn delivery(&self, addresses: &[IpNetwork]) -> Delivery {
        let mut delivery = Delivery {
            addresses: addresses.to_vec(),
            dhcp_v4: self.dhcp.v4 && addresses.iter().any(IpNetwork::is_ipv4),
            ..Delivery::default()
        };
        for subnet in addresses.iter().filter_map(|address| self.subnet_of(address.ip())) {
            delivery.gateways.extend(subnet.gateway);
            delivery.routes.extend(routes(subnet));
            if let Some(dns) = &subnet.dns {
                delivery.dns.extend(&dns.servers);
                delivery
                    .search
                    .extend(dns.search.iter().filter(|s| !delivery.search.contains(s)).cloned().collect::<Vec<_>>());
            }
        }
        delivery
    }
}

/// The further routes of a subnet; one without a next hop goes by the subnet's gateway.
pub fn routes(subnet: &Subnet) -> Vec<StaticRoute> {
    let route = |route: &holdfast_api::underlay::Route| StaticRoute {
        destination: route.dst,
        gateway: route.gw.or(subnet.gateway),
    };
    subnet.routes.iter().map(route).collect()
}

/// The network of a CNI configuration of type `holdfast` (a NetworkAttachmentDefinition's `spec.config`, or one
/// plugin of a list) on a node with these labels. `underlay` is the UnderlayNetwork that the configuration
/// names by `network`, if there is one of that name.
///
/// # Errors
/// [`NetworkError`] names the key that is wrong and what would be right.
pub fn resolve(
    config: &serde_json::Value,
    underlay: Option<&UnderlayNetwork>,
    node_labels: &BTreeMap<String, String>,
) -> Result<NetworkConfig, NetworkError> {
    NetConf::parse(config)?.resolve(underlay, node_labels)
}

impl NetConf {
    /// See [`resolve`].
    ///
    /// # Errors
    /// [`NetworkError`].
    pub fn resolve(
        &self,
        underlay: Option<&UnderlayNetwork>,
        node_labels: &BTreeMap<String, String>,
    ) -> Result<NetworkConfig, NetworkError> {
        let addressing = self.addressing(underlay)?;
        let spec = self.spec(underlay)?;
        let OnNode { bridge, uplink, mtu, datapath } = spec.on_node(node_labels);
        let field = if bridge == spec.bridge.as_deref() { "bridge" } else { "nodes[].bridge" };
        let bridge_field = match &self.network {
            Some(name) => format!("`spec.{field}` of UnderlayNetwork `{name}`"),
            None => format!("`{field}` of network `{}`", self.name),
        };
        Ok(NetworkConfig {
            addressing,
            bridge_field,
            backend: backend(spec, bridge, uplink, self.bridge_gateway.as_ref())?,
            uplink: uplink.map(str::to_owned),
            mtu,
            datapath,
            default_route: self.default_route,
            port_security: spec.port_security.unwrap_or(true),
        })
    }

    /// The part of [`Self::resolve`] that no node is needed for.
    ///
    /// # Errors
    /// [`NetworkError`].
    pub fn addressing(&self, underlay: Option<&UnderlayNetwork>) -> Result<Addressing, NetworkError> {
        let spec = self.spec(underlay)?;
        let (default, at) = match &self.network {
            Some(network) => (network.clone(), "spec"),
            None => (wire(spec), ""),
        };
        check::spec(&default, spec, at)?;
        Ok(Addressing {
            name: self.name.clone(),
            underlay: self.network.clone(),
            segment: spec.segment(&default).to_owned(),
            subnets: spec.subnets.clone(),
            dhcp: spec.dhcp.clone(),
            deleting: self.network.is_some()
                && underlay.is_some_and(|underlay| underlay.metadata.deletion_timestamp.is_some()),
            macvtap: spec.backend == BackendKind::Macvtap,
            allowed_address_pairs: spec.allowed_address_pairs.clone(),
            bandwidth: spec.bandwidth.clone(),
            neighbours: Vec::new(),
        })
    }

    /// The network among all UnderlayNetworks: it gives out nothing that another one of its segment keeps back, and an
    /// inline configuration is refused that would give out addresses of one of them once more.
    ///
    /// # Errors
    /// [`NetworkError`] names the UnderlayNetwork, and what to set.
    pub fn beside<'a>(
        &self,
        mut addressing: Addressing,
        underlays: impl IntoIterator<Item = &'a UnderlayNetwork>,
    ) -> Result<Addressing, NetworkError> {
        let underlays: Vec<_> = underlays.into_iter().collect();
        addressing.neighbours = neighbours(addressing.underlay.as_deref(), &addressing.segment, &underlays);
        if self.network.is_some() {
            return Ok(addressing);
        }
        let spec = UnderlayNetworkSpec { segment: Some(addressing.segment.clone()), ..self.inline.clone() };
        // Without a name: that of a NetworkAttachmentDefinition may be an UnderlayNetwork's, and is not its earlier state.
        match conflict(&UnderlayNetwork::new("", spec), underlays) {
            Some(cause) => {
                let message = cause.message.unwrap_or_default();
                Err(NetworkError::Decode { path: "segment".to_owned(), message })
            }
            None => Ok(addressing),
        }
    }

    /// The UnderlayNetwork's spec, or what stands in its place.
    fn spec<'a>(&'a self, underlay: Option<&'a UnderlayNetwork>) -> Result<&'a UnderlayNetworkSpec, NetworkError> {
        match (&self.network, underlay) {
            (Some(_), Some(underlay)) => Ok(&underlay.spec),
            (Some(name), None) => Err(NetworkError::Missing(name.clone())),
            (None, _) => Ok(&self.inline),
        }
    }
}

/// The segment of an inline configuration that gives none: the wire that it leads to, so that all networks there give
/// out an address once. Empty where nodes differ in their bridge.
fn wire(spec: &UnderlayNetworkSpec) -> String {
    let links: Vec<&Option<String>> = match spec.backend {
        BackendKind::Macvtap => spec.nodes.iter().map(|node| &node.uplink).chain([&spec.uplink]).collect(),
        BackendKind::Ovs | BackendKind::LinuxBridge => {
            spec.nodes.iter().map(|node| &node.bridge).chain([&spec.bridge]).collect()
        }
    };
    let bridges: BTreeSet<&str> = links.into_iter().flatten().map(String::as_str).collect();
    let Some(bridge) = bridges.first().filter(|_| bridges.len() == 1) else { return String::new() };
    match spec.vlan.as_ref().and_then(|vlan| vlan.access.or(vlan.tunnel)) {
        Some(id) => format!("{bridge}.vlan{id}"),
        None => (*bridge).to_owned(),
    }
}

fn backend(
    spec: &UnderlayNetworkSpec,
    bridge: Option<&str>,
    uplink: Option<&str>,
    gateway: Option<&BridgeGatewayConf>,
) -> Result<Backend, NetworkError> {
    if spec.backend == BackendKind::Macvtap {
        return macvtap(spec, uplink, gateway);
    }
    let bridge = bridge.ok_or(NetworkError::NoBridge)?;
    let ifname = || {
        bridge
            .parse::<IfName>()
            .map_err(|_| NetworkError::value("bridge", bridge, "an interface name of at most 15 characters"))
    };
    match spec.backend {
        BackendKind::Ovs if gateway.is_some() => {
            Err(NetworkError::unsupported("bridgeGateway", "needs the backend `linux-bridge`"))
        }
        BackendKind::Ovs => Ok(Backend::Ovs { bridge: ifname()?.into(), vlan: vlan(spec) }),
        BackendKind::LinuxBridge if gateway.is_some() && spec.vlan.is_some() => {
            Err(NetworkError::unsupported("bridgeGateway", "is not of a VLAN: leave `vlan` out"))
        }
        BackendKind::LinuxBridge => {
            let gateway = gateway.map(|conf| bridge_gateway(spec, conf));
            Ok(Backend::LinuxBridge { bridge: ifname()?, vlan: vlan(spec), gateway })
        }
        BackendKind::Macvtap => macvtap(spec, uplink, gateway),
    }
}

fn macvtap(
    spec: &UnderlayNetworkSpec,
    uplink: Option<&str>,
    gateway: Option<&BridgeGatewayConf>,
) -> Result<Backend, NetworkError> {
    if gateway.is_some() {
        return Err(NetworkError::unsupported("bridgeGateway", "needs the backend `linux-bridge`"));
    }
    let uplink = uplink.ok_or(NetworkError::NoUplink)?;
    let valid = "an interface name of at most 15 characters";
    let uplink = uplink.parse().map_err(|_| NetworkError::value("uplink", uplink, valid))?;
    let mode = match spec.mode {
        None | Some(MacvtapMode::Bridge) => MacvlanMode::Bridge,
        Some(MacvtapMode::Private) => MacvlanMode::Private,
    };
    // Whether it is a guest's is known when something is attached.
    Ok(Backend::Macvtap { uplink, mode, guest: false })
}

fn vlan(spec: &UnderlayNetworkSpec) -> Vlan {
    match &spec.vlan {
        None => Vlan::Untagged,
        Some(vlan) => match (vlan.access, vlan.tunnel) {
            (_, Some(outer)) => {
                let protocol = match vlan.tunnel_protocol {
                    None | Some(TunnelTag::Ieee8021ad) => TunnelProtocol::Ieee8021ad,
                    Some(TunnelTag::Ieee8021q) => TunnelProtocol::Ieee8021q,
                };
                Vlan::Tunnel { outer, customers: vlan.trunk.clone(), protocol }
            }
            (Some(id), None) => Vlan::Access(id),
            (None, None) => Vlan::Trunk { tags: vlan.trunk.clone(), native: vlan.native },
        },
    }
}

/// The bridge's own addresses: each subnet's gateway with the subnet's prefix.
fn bridge_gateway(spec: &UnderlayNetworkSpec, conf: &BridgeGatewayConf) -> BridgeGateway {
    let address = |subnet: &Subnet| IpNetwork::new(subnet.gateway?, subnet.cidr.prefix()).ok();
    BridgeGateway { addresses: spec.subnets.iter().filter_map(address).collect(), masquerade: conf.masquerade }
}

/// Why a configuration is not a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// A key that nobody knows.
    #[error("`{0}` is not a key of a `holdfast` network configuration")]
    Unknown(String),
    /// A value of the wrong type, or a key that is missing.
    #[error("`{path}`: {message}")]
    Decode {
        /// Path of the key.
        path: String,
        /// What is wrong with it.
        message: String,
    },
    /// A value that is not allowed.
    #[error("`{key}` is `{value}`: it must be {valid}")]
    Value {
        /// Path of the key.
        key: String,
        /// Its value.
        value: String,
        /// What would be right.
        valid: String,
    },
    /// A key that is known, but not served (here).
    #[error("`{key}` {why}")]
    Unsupported {
        /// The key.
        key: String,
        /// What holds.
        why: String,
    },
    /// Nothing says which network.
    #[error("no network is given: give `network`, the name of an UnderlayNetwork, or `backend` and `bridge`")]
    NoNetwork,
    /// Nothing says which bridge.
    #[error("no bridge is given for this node: set `bridge`, or an entry of `nodes` that matches the node")]
    NoBridge,
    /// Nothing says which uplink.
    #[error("no uplink is given for this node: set `uplink`, or an entry of `nodes` that matches the node")]
    NoUplink,
    /// There is no UnderlayNetwork of that name.
    #[error("UnderlayNetwork `{0}` does not exist")]
    Missing(String),
}

impl NetworkError {
    fn value(key: &str, value: impl ToString, valid: &str) -> Self {
        Self::Value { key: key.to_owned(), value: value.to_string(), valid: valid.to_owned() }
    }

    fn unsupported(key: &str, why: &str) -> Self {
        Self::Unsupported { key: key.to_owned(), why: why.to_owned() }
    }
}

#[cfg(test)]
mod tests;
