//! UnderlayNetwork (holdfast.io/v1alpha1): a network of the data centre that VMs join with a NIC.
//!
//! Cluster-scoped. It says how a node reaches the network (bridge, uplink, VLAN), which addresses
//! may be given out on it, and how guests learn them. Leases are named after its segment, so
//! networks that share a segment share one space of addresses.

mod bandwidth;
mod conflict;
mod pairs;
mod read;
mod rules;
mod subnets;

pub use bandwidth::{Way, bandwidth_problem, unshaped, ways, within};
pub use conflict::conflict;
pub use pairs::{AddressPair, MOST_PAIRS, refusal as pairs_refusal};
pub use read::read;
pub use rules::{problems, problems_of, unserved};

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::nad::Bandwidth;

/// What an underlay network is: where it runs, and what addresses it has.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "holdfast.io",
    version = "v1alpha1",
    kind = "UnderlayNetwork",
    plural = "underlaynetworks",
    shortname = "unet",
    shortname = "unets",
    category = "holdfast",
    status = "UnderlayNetworkStatus",
    doc = "A network of the data centre that virtual machines join with a NIC of their own.",
    printcolumn(name = "Segment", type_ = "string", json_path = ".spec.segment"),
    printcolumn(name = "Backend", type_ = "string", json_path = ".spec.backend"),
    printcolumn(name = "Used", type_ = "integer", json_path = ".status.addresses.used"),
    printcolumn(name = "Total", type_ = "integer", json_path = ".status.addresses.total"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    derive = "Default",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct UnderlayNetworkSpec {
    /// Layer 2 segment. Networks of one segment share its addresses: none is given out twice on
    /// it. A DNS subdomain; the name of the network where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segment: Option<String>,
    /// What carries the network on a node: `ovs` (an Open vSwitch bridge), `linux-bridge` (a bridge
    /// of the Linux kernel) or `macvtap` (a macvtap on the uplink, without a bridge).
    pub backend: Backend,
    /// Bridge that VMs are plugged into, unless an entry of `nodes` says otherwise. It must exist.
    /// Needed for `ovs` and `linux-bridge`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
    /// Link that leads to the physical network, unless an entry of `nodes` says otherwise. Needed
    /// for `macvtap`; for the bridges it only tells where the wire is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uplink: Option<String>,
    /// What the guests on one uplink are to each other, for the backend `macvtap`: `bridge` (they reach each other; the
    /// default) or `private` (they do not). None of them reaches its own node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<MacvtapMode>,
    /// What is different on some nodes. The first entry that matches a node counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodeOverride>,
    /// VLAN of the VMs' ports; untagged where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<Vlan>,
    /// MTU that guests are told to use, 68 to 65535, and no more than the uplink has and the ports
    /// that others put on the bridge; the smallest of those, or that of the bridge, where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 68, max = 65535))]
    pub mtu: Option<u32>,
    /// Which data path an `ovs` bridge has: `system` (the kernel's openvswitch module; the default)
    /// or `netdev` (user space, for kernels without that module).
    #[serde(default)]
    pub datapath: Datapath,
    /// Address ranges of the network. Without any, guests get no address from Holdfast.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subnets: Vec<Subnet>,
    /// Whether a NIC may send from its own MAC and addresses only, and may not play DHCP server
    /// or router; `true` where not given. Addresses are checked in the families of `subnets`; on
    /// a trunk, MACs alone are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_security: Option<bool>,
    /// Addresses and prefixes beside their own that NICs may use where their VM or pod asks for it, as for VRRP or for a VM
    /// that routes; none that the network gives out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_address_pairs: Vec<AddressPair>,
    /// How much each NIC may carry, in bits per second and bits, toward it (ingress) and from it (egress); a VM or a pod may
    /// ask for less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Bandwidth>,
    /// How guests are told their addresses.
    #[serde(default)]
    pub dhcp: Dhcp,
}

impl UnderlayNetworkSpec {
    /// The segment of the network with this spec and the name `network`.
    pub fn segment<'a>(&'a self, network: &'a str) -> &'a str {
        self.segment.as_deref().unwrap_or(network)
    }

    /// What of it can differ by node, on a node with these labels.
    pub fn on_node(&self, labels: &BTreeMap<String, String>) -> OnNode<'_> {
        let node =
            self.nodes.iter().find(|node| node.node_selector.iter().all(|(key, value)| labels.get(key) == Some(value)));
        OnNode {
            bridge: node.and_then(|node| node.bridge.as_deref()).or(self.bridge.as_deref()),
            uplink: node.and_then(|node| node.uplink.as_deref()).or(self.uplink.as_deref()),
            mtu: node.and_then(|node| node.mtu).or(self.mtu),
            datapath: node.and_then(|node| node.datapath).unwrap_or(self.datapath),
        }
    }
}

/// What of an underlay network can differ by node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnNode<'a> {
    /// Bridge.
    pub bridge: Option<&'a str>,
    /// Uplink.
    pub uplink: Option<&'a str>,
    /// MTU in bytes.
    pub mtu: Option<u32>,
    /// Data path of an `ovs` bridge.
    pub datapath: Datapath,
}

/// What carries an underlay network on a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// An Open vSwitch bridge.
    #[default]
    Ovs,
    /// A bridge of the Linux kernel.
    LinuxBridge,
    /// A macvtap on the uplink, without a bridge.
    Macvtap,
}

/// What the guests on one uplink are to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MacvtapMode {
    /// They reach each other.
    Bridge,
    /// They do not.
    Private,
}

/// Data path of an Open vSwitch bridge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Datapath {
    /// The openvswitch module of the kernel.
    #[default]
    System,
    /// User space, for kernels without that module.
    Netdev,
}

/// What is different on the nodes that a selector matches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeOverride {
    /// Labels that a node must have, all of them.
    pub node_selector: BTreeMap<String, String>,
    /// Bridge on these nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
    /// Uplink on these nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uplink: Option<String>,
    /// MTU on these nodes, 68 to 65535. What has a larger one elsewhere does not reach a guest here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 68, max = 65535))]
    pub mtu: Option<u32>,
    /// Data path of the `ovs` bridge on these nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datapath: Option<Datapath>,
}

/// VLANs of a port: either one that the guest does not see (`access`), or several that it sees
/// tagged (`trunk`), or one that carries whatever the guest tags (`tunnel`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Vlan {
    /// VLAN id, 1 to 4094. Frames of the guest are untagged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4094))]
    pub access: Option<u16>,
    /// VLAN ids that the guest may send and receive tagged, each 1 to 4094. Excludes `access`. With
    /// `tunnel`, the VLANs of the guest's own that pass, and nothing untagged then does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(range(min = 1, max = 4094)), extend("x-kubernetes-list-type" = "set"))]
    pub trunk: Vec<u16>,
    /// VLAN id of a trunk's untagged frames, 1 to 4094. Without it they are dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4094))]
    pub native: Option<u16>,
    /// VLAN id, 1 to 4094, inside of which all that the guest sends travels, with the tags that the
    /// guest gave it (QinQ, IEEE 802.1ad). For the backend `ovs`; Open vSwitch must be told to look at
    /// two tags (`other_config:vlan-limit` of 2). Excludes `access` and `native`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4094))]
    pub tunnel: Option<u16>,
    /// Ethernet type of a tunnel's own tag: `802.1ad` (0x88a8; the default) or `802.1q` (0x8100).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel_protocol: Option<TunnelProtocol>,
}

/// Ethernet type of the outer one of two VLAN tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TunnelProtocol {
    /// 0x88a8.
    #[serde(rename = "802.1ad")]
    Ieee8021ad,
    /// 0x8100.
    #[serde(rename = "802.1q")]
    Ieee8021q,
}

/// One IP subnet, and which of its addresses VMs may get.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Subnet {
    /// The subnet, such as `192.0.2.0/24` or `2001:db8::/64`.
    #[schemars(with = "String")]
    pub cidr: IpNetwork,
    /// Default gateway; it is never given out. Without it guests get no default route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Ranges to give out; the whole subnet where none is given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<AddressRange>,
    /// Addresses and prefixes that are never given out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub exclude: Vec<IpNetwork>,
    /// Name resolution that guests are told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<Dns>,
    /// Routes besides the default one that guests are told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
}

/// Addresses from `start` to `end`, both included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AddressRange {
    /// First address.
    pub start: IpAddr,
    /// Last address; not below the first.
    pub end: IpAddr,
}

/// Name resolution of a subnet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Dns {
    /// Name servers, in order of preference.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<IpAddr>,
    /// Domains that short names are looked up in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
}

/// A route that guests are told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// Where it leads, as a prefix.
    #[schemars(with = "String")]
    pub dst: IpNetwork,
    /// Next hop within the subnet; never given out. The subnet's gateway where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
}

/// Which protocols Holdfast tells guests their addresses by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Dhcp {
    /// Whether to answer DHCPv4.
    #[serde(default = "yes")]
    pub v4: bool,
    /// Whether to answer DHCPv6.
    #[serde(default)]
    pub v6: bool,
    /// Whether to send IPv6 router advertisements.
    #[serde(default)]
    pub ra: bool,
}

impl Default for Dhcp {
    fn default() -> Self {
        Self { v4: true, v6: false, ra: false }
    }
}

/// What is known about an underlay network. Derived from its leases, never authoritative.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UnderlayNetworkStatus {
    /// How many addresses there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addresses: Option<AddressUsage>,
    /// Whether the network can be used, and why not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend(
        "x-kubernetes-list-type" = "map",
        "x-kubernetes-list-map-keys" = ["type"]
    ))]
    pub conditions: Vec<Condition>,
}

/// Count of a network's addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AddressUsage {
    /// How many may be given out, at most the largest number of 63 bits.
    pub total: i64,
    /// How many are given out.
    pub used: i64,
}

fn yes() -> bool {
    true
}
