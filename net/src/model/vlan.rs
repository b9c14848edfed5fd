//! VLANs of a port: what an attachment asks for, and what that is on a Linux bridge.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// VLAN membership of a port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Vlan {
    /// Whatever the bridge does with untagged traffic.
    #[default]
    Untagged,
    /// Member of one VLAN (1-4094); the pod sees untagged frames.
    Access(u16),
    /// Tagged frames of these VLANs, and untagged ones as the native VLAN where there is one.
    Trunk {
        /// VLANs that pass, 1-4094.
        tags: Vec<u16>,
        /// VLAN of untagged frames.
        native: Option<u16>,
    },
    /// All that the pod sends, tagged or not, travels inside of one VLAN (IEEE 802.1ad, QinQ).
    Tunnel {
        /// The outer VLAN, 1-4094, which the pod does not see.
        outer: u16,
        /// VLANs of the pod's own that pass, 1-4094; all where empty.
        customers: Vec<u16>,
        /// Ethernet type of the outer tag.
        protocol: TunnelProtocol,
    },
}

/// Ethernet type of the outer one of two tags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TunnelProtocol {
    /// 0x88a8, the standard's.
    #[default]
    #[serde(rename = "802.1ad")]
    Ieee8021ad,
    /// 0x8100, as of an ordinary tag.
    #[serde(rename = "802.1q")]
    Ieee8021q,
}

impl TunnelProtocol {
    /// Its name, as Open vSwitch and people say it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ieee8021ad => "802.1ad",
            Self::Ieee8021q => "802.1q",
        }
    }
}

/// The VLANs that a port of a Linux bridge is a member of.
pub type PortVlans = BTreeMap<u16, VlanFlags>;

/// How a port of a Linux bridge is a member of a VLAN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VlanFlags {
    /// Whether untagged frames that come in are of it.
    pub pvid: bool,
    /// Whether its frames leave untagged.
    pub untagged: bool,
}

impl Vlan {
    /// Whether it is left to the bridge.
    pub fn is_untagged(&self) -> bool {
        *self == Self::Untagged
    }

    /// Whether the pod may send tagged frames.
    pub fn takes_tags(&self) -> bool {
        match self {
            Self::Untagged | Self::Access(_) => false,
            Self::Trunk { .. } | Self::Tunnel { .. } => true,
        }
    }

    /// All VLAN ids that it names.
    pub fn ids(&self) -> Vec<u16> {
        match self {
            Self::Untagged => Vec::new(),
            Self::Access(id) => vec![*id],
            Self::Trunk { tags, native } => tags.iter().chain(native).copied().collect(),
            Self::Tunnel { outer, customers, .. } => customers.iter().chain([outer]).copied().collect(),
        }
    }

    /// What it is on a Linux bridge; none where that is left to the bridge, or where Linux bridges have no such thing.
    pub fn on_linux_bridge(&self) -> Option<PortVlans> {
        const NATIVE: VlanFlags = VlanFlags { pvid: true, untagged: true };
        match self {
            Self::Untagged | Self::Tunnel { .. } => None,
            Self::Access(id) => Some(PortVlans::from([(*id, NATIVE)])),
            Self::Trunk { tags, native } => {
                let tagged = tags.iter().map(|tag| (*tag, VlanFlags::default()));
                Some(tagged.chain(native.map(|tag| (tag, NATIVE))).collect())
            }
        }
    }
}

impl fmt::Display for Vlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Untagged => f.write_str("untagged"),
            Self::Access(tag) => write!(f, "access {tag}"),
            Self::Trunk { tags, native } => {
                f.write_str("trunk")?;
                tags.iter().try_for_each(|tag| write!(f, " {tag}"))?;
                native.map_or(Ok(()), |tag| write!(f, " native {tag}"))
            }
            Self::Tunnel { outer, customers, protocol } => {
                write!(f, "tunnel {outer} ({})", protocol.name())?;
                customers.iter().try_for_each(|tag| write!(f, " {tag}"))
            }
        }
    }
}
