//! One attachment: an interface of a pod on a network, from the pod's namespace to the backend's port.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use serde::{Deserialize, Serialize};

use super::{Bandwidth, IfName, MacAddr, PortSecurity, StaticRoute, Vlan};

/// What names an attachment: CNI's own key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AttachmentId {
    /// CNI_CONTAINERID: the sandbox.
    pub container_id: String,
    /// CNI_IFNAME: the interface in the sandbox.
    pub ifname: IfName,
}

/// A text that is not the key of an attachment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the key of an attachment: container id, `/`, interface name")]
pub struct AttachmentIdError(String);

impl fmt::Display for AttachmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.container_id, self.ifname)
    }
}

impl FromStr for AttachmentId {
    type Err = AttachmentIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || AttachmentIdError(text.to_owned());
        let (container_id, ifname) = text.rsplit_once('/').filter(|(id, _)| !id.is_empty()).ok_or_else(bad)?;
        Ok(Self { container_id: container_id.to_owned(), ifname: ifname.parse().map_err(|_| bad())? })
    }
}

/// An attachment as it shall be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// Its key.
    pub id: AttachmentId,
    /// Path of the pod's network namespace.
    pub netns: PathBuf,
    /// What its host end is plugged into.
    pub backend: Backend,
    /// Ethernet address of the pod's interface.
    pub mac: MacAddr,
    /// MTU of the pod's interface and of its host end, in bytes.
    pub mtu: u32,
    /// Addresses to configure on the pod's interface; none where a guest owns them.
    pub addresses: Vec<IpNetwork>,
    /// Routes to configure in the pod.
    pub routes: Vec<StaticRoute>,
    /// For people: `namespace/pod/network`. Written on the OVS port, where there is one.
    pub owner: String,
    /// What the pod may say of itself; none: anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security: Option<PortSecurity>,
    /// How much it may carry. Not on a macvtap, which has no host end.
    #[serde(default)]
    pub bandwidth: Bandwidth,
}

/// What a host end is plugged into.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Backend {
    /// A port of an Open vSwitch bridge that exists.
    Ovs {
        /// Name of the bridge.
        bridge: String,
        /// VLAN of the port.
        vlan: Vlan,
    },
    /// A port of a Linux bridge.
    LinuxBridge {
        /// Name of the bridge.
        bridge: IfName,
        /// VLAN of the port.
        #[serde(default, skip_serializing_if = "Vlan::is_untagged")]
        vlan: Vlan,
        /// Where set, the bridge is ours: made when it is missing, with this as the pods' gateway.
        gateway: Option<BridgeGateway>,
    },
    /// A link of the host itself: the pod's interface is a macvlan on it, or a macvtap. There is no host end.
    Macvtap {
        /// Name of the link.
        uplink: IfName,
        /// Whom it may talk to on the same link.
        mode: MacvlanMode,
        /// Whether it is a macvtap, whose frames a guest takes and not the pod.
        guest: bool,
    },
}

/// What the macvlans and macvtaps on one link are to each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MacvlanMode {
    /// They reach each other directly.
    #[default]
    Bridge,
    /// They do not reach each other, not even by way of the wire.
    Private,
}

/// A Linux bridge that is the gateway of its pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BridgeGateway {
    /// The bridge's own addresses.
    pub addresses: Vec<IpNetwork>,
    /// Whether what leaves the node from these prefixes is masqueraded.
    pub masquerade: bool,
}

/// A pod interface as its CNI plugin left it: read once, before it is bound to a VM, and recorded, for after
/// that it cannot be read back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodInterface {
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Its addresses, link-local ones left out.
    pub addresses: Vec<IpNetwork>,
    /// Routes through it, the kernel's own left out.
    pub routes: Vec<StaticRoute>,
}

/// One VM interface, bound to a pod interface, as it shall be in the pod's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Binding {
    /// Name of the interface in the VM's spec.
    pub nic: String,
    /// Path of the pod's network namespace.
    pub netns: PathBuf,
    /// The pod interface's name as CNI gave it.
    pub pod_interface: IfName,
    /// The pod interface before it was bound.
    pub pod: PodInterface,
    /// How the guest reaches the pod interface.
    pub method: BindingMethod,
    /// The guest's Ethernet address.
    pub guest_mac: MacAddr,
    /// User and group that may open the tap.
    pub tap_owner: (u32, u32),
    /// Queue pairs of the tap, at least 1.
    pub queues: u32,
    /// Whether the NIC's carrier is up (`state: up`).
    pub link_up: bool,
    /// What to deliver by DHCPv4 instead of what the pod interface itself says.
    pub delivery: Option<Delivery>,
    /// Host name for the guest (DHCP option 12).
    pub hostname: String,
}

/// The ways of binding a VM interface to a pod interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BindingMethod {
    /// NAT behind the pod's address.
    Masquerade {
        /// The network between guest and pod; its first address is the gateway, the second the guest's.
        cidr: Ipv4Network,
        /// The same of IPv6, for a pod with an IPv6 address.
        #[serde(rename = "cidrV6")]
        cidr_v6: Ipv6Network,
        /// Ports that reach the guest; all where empty.
        ports: Vec<ForwardedPort>,
    },
    /// The guest sits on the pod's segment itself.
    Bridge,
    /// The pod interface is a macvtap, and the guest's.
    Macvtap,
}

/// A port that masquerade forwards to the guest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ForwardedPort {
    /// Protocol.
    pub protocol: Protocol,
    /// Port, 1-65535, the same on both sides.
    pub port: u16,
}

/// A transport protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// What a network delivers to a guest that owns its address: the lease and the network's settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// The guest's addresses with their prefix; empty where the network's own server answers it.
    pub addresses: Vec<IpNetwork>,
    /// Default gateways, at most one per family.
    pub gateways: Vec<std::net::IpAddr>,
    /// Resolvers.
    pub dns: Vec<std::net::IpAddr>,
    /// Search list.
    pub search: Vec<String>,
    /// Further routes.
    pub routes: Vec<StaticRoute>,
    /// Whether we answer DHCPv4 for the guest (and keep its requests off the segment).
    pub dhcp_v4: bool,
}
