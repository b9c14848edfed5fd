//! What a launcher must know of a wired NIC: the agent's result, the domain's input.

use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::{IpNetwork, Ipv4Network};
use serde::{Deserialize, Serialize};

use super::{IfName, MacAddr};

/// One NIC of a VM, wired up to a tap in the pod's network namespace and ready for a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GuestNic {
    /// Name of the interface in the VM's spec (`spec.domain.devices.interfaces[].name`).
    pub name: String,
    /// The interface of the pod that carries this NIC's traffic.
    pub pod_interface: IfName,
    /// The tap to hand to the hypervisor; it exists and is owned by the launcher's user.
    pub tap: IfName,
    /// The guest's own Ethernet address.
    pub mac: MacAddr,
    /// Bytes of the largest IP packet, the same from uplink to guest.
    pub mtu: u32,
    /// Queue pairs of the tap, 1 where it is not multi-queue.
    pub queues: u32,
    /// Whether the tap is a macvtap, which the agent opens: its device has no node in the launcher's /dev.
    #[serde(default)]
    pub macvtap: bool,
    /// What to answer the guest by DHCPv4; none where the network's own server answers.
    pub dhcp_v4: Option<DhcpV4>,
    /// The addresses that the guest owns on this network, for the status; with their prefix.
    pub addresses: Vec<IpNetwork>,
}

/// The one DHCPv4 lease of a NIC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DhcpV4 {
    /// The guest's address with its prefix.
    pub address: Ipv4Network,
    /// The server's identifier (option 54); a gateway, or any address on the link that the guest need not reach.
    pub server: Ipv4Addr,
    /// Default gateway (option 3).
    pub router: Option<Ipv4Addr>,
    /// Resolvers (option 6).
    pub dns: Vec<Ipv4Addr>,
    /// Search list (option 119); its first entry is the domain name (option 15).
    pub search: Vec<String>,
    /// Further routes (option 121).
    pub routes: Vec<StaticRoute>,
    /// Host name (option 12).
    pub hostname: Option<String>,
    /// Lease time in seconds (option 51).
    pub lease_seconds: u32,
}

/// A route beside the default one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StaticRoute {
    /// Destination prefix.
    pub destination: IpNetwork,
    /// Next hop; none for a destination on the link.
    pub gateway: Option<IpAddr>,
}
