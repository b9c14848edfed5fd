//! NICs, and the networks that they are on.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ClaimRequest;

/// It is on the network of the same name in `spec.networks`, and exactly one binding says how: `masquerade`,
/// `bridge`, `sriov`, `passtBinding`, or `binding` for a plugin.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Interface {
    /// Name of the NIC, and of the entry of `spec.networks` that it is on.
    pub name: String,
    /// The guest has a private address behind that of the pod, and the node translates between the two, so that it
    /// is reached at the pod's address, like any pod. For the pod network alone. Has no fields: `masquerade: {}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub masquerade: Option<InterfaceMasquerade>,
    /// The guest is on the network itself, and takes over MAC and IP address of the pod's interface there; on an
    /// underlay network these are the machine's own and stay the same from start to start. Has no fields:
    /// `bridge: {}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<InterfaceBridge>,
    /// The guest drives a virtual function of the node's NIC itself, without the node in between. Has no fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sriov: Option<InterfaceSRIOV>,
    /// A process in user space makes the guest's connections in the pod's name. For the pod network alone. Has no
    /// fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passt_binding: Option<InterfacePasstBinding>,
    /// A binding by a plugin that the KubeVirt object names under `configuration.network.binding`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<PluginBinding>,
    /// Discontinued since v1.3, and refused; `masquerade`, `bridge` and `passtBinding` are what is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slirp: Option<DeprecatedInterfaceSlirp>,
    /// Discontinued since v1.3, and refused; `masquerade`, `bridge` and `passtBinding` are what is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub macvtap: Option<DeprecatedInterfaceMacvtap>,
    /// Discontinued since v1.3, and refused; `masquerade`, `bridge` and `passtBinding` are what is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passt: Option<DeprecatedInterfacePasst>,
    /// Model of the card that the guest sees: `virtio` (the default, and the fastest by far), or for guests without
    /// a driver for it `e1000e`, `e1000`, `igb`, `rtl8139`, `ne2k_pci` or `pcnet`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// MAC address that the guest sees, such as `02:1a:2b:3c:4d:5e`. Where not given it is the one of the machine's
    /// lease on an underlay network, and that of the pod's interface elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac_address: Option<String>,
    /// State of the link: `up` (the default), `down` (the card is there, its cable is not), or `absent` (the card
    /// is taken out of a running guest).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Ports of a masqueraded guest that can be reached from outside, as with the ports of a container. All of them
    /// where none is given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
    /// Ranges of ports, with the meaning of `ports`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub port_ranges: Vec<PortRange>,
    /// Place in the order in which the firmware tries to boot from disks and NICs; 1 comes first. No two devices
    /// have the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_order: Option<i32>,
    /// What DHCP tells the guest besides address, routes and name servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dhcp_options: Option<DHCPOptions>,
    /// PCI address of the card in the guest, such as `0000:81:01.0`; the next one that is free where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pci_address: Option<String>,
    /// Number that the firmware gives the card, after which guests name it whatever its PCI address is: with 3, it
    /// is `eno3` in Linux.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acpi_index: Option<i32>,
    /// A word for programs in the guest: they find it beside the card's MAC and PCI address in the metadata of the
    /// configuration drive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
}

/// An address behind that of the pod. Has no fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InterfaceMasquerade {}

/// On the pod's network by a bridge. Has no fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InterfaceBridge {}

/// A virtual function of the node's NIC. Has no fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InterfaceSRIOV {}

/// Connections made by a process in user space. Has no fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InterfacePasstBinding {}

/// A binding of the cluster's configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PluginBinding {
    /// Name of the binding there.
    pub name: String,
}

/// Discontinued. Has no fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeprecatedInterfaceSlirp {}

/// Discontinued. Has no fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeprecatedInterfaceMacvtap {}

/// Discontinued. Has no fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeprecatedInterfacePasst {}

/// A port that the guest can be reached at.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    /// Name of the port; no two of a NIC have the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Number of the port, 1 to 65535.
    pub port: i32,
    /// `TCP` (the default) or `UDP`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
}

/// A range of ports that the guest can be reached at.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PortRange {
    /// First port.
    pub start: i32,
    /// Last port; not below the first.
    pub end: i32,
    /// `TCP` or `UDP`.
    pub protocol: String,
}

/// What the guest is told by DHCP besides its address.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DHCPOptions {
    /// Option 67: file to boot from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_file_name: Option<String>,
    /// Option 66: server that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tftp_server_name: Option<String>,
    /// Option 42: time servers, as IPv4 addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ntp_servers: Vec<String>,
    /// Options 224 to 254.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub private_options: Vec<DHCPPrivateOptions>,
}

/// An option of private use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DHCPPrivateOptions {
    /// Number, 224 to 254.
    pub option: i32,
    /// Text of the option.
    pub value: String,
}

/// A network; one of the three is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Network {
    /// Name by which an entry of `domain.devices.interfaces` uses it.
    pub name: String,
    /// The network that every pod is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodNetwork>,
    /// Another network, such as an underlay network, by the name of its NetworkAttachmentDefinition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multus: Option<MultusNetwork>,
    /// A device by dynamic resource allocation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_claim: Option<ClaimRequest>,
}

/// A network that a NetworkAttachmentDefinition names.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MultusNetwork {
    /// `[<namespace>/]<name>` of it; the instance's own namespace where not given.
    pub network_name: String,
    /// Whether it stands in for the pod network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<bool>,
}

/// The cluster's own network.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodNetwork {
    /// IPv4 network of a masqueraded guest; `10.0.2.0/24` where not given.
    #[serde(rename = "vmNetworkCIDR", default, skip_serializing_if = "Option::is_none")]
    pub vm_network_cidr: Option<String>,
    /// IPv6 network of a masqueraded guest; `fd10:0:2::/120` where not given.
    #[serde(rename = "vmIPv6NetworkCIDR", default, skip_serializing_if = "Option::is_none")]
    pub vm_i_pv6_network_cidr: Option<String>,
}
