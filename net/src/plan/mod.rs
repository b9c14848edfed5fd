//! From what is to what shall be: pure, synchronous, deterministic.
//!
//! Invariants: planning the state that a plan leads to gives an empty plan; nothing without our mark is deleted, and of
//! a link that somebody else made only that is changed which the desired state says about it.

mod diff;
mod guard;
mod links;
mod order;
mod ovs;

use std::fmt;

use crate::desired::{DesiredState, Netns};
use crate::error::ErrorClass;
use crate::model::IfName;
use crate::observed::ObservedState;
pub use crate::op::Op;

/// Steps in the order in which they are to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The steps.
    pub ops: Vec<Op>,
}

impl Plan {
    /// Whether all is as it shall be.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ops.iter().try_for_each(|op| writeln!(f, "{op}"))
    }
}

/// Why there is no way from what is to what shall be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The namespace does not exist.
    #[error("failed to find network namespace `{0}`")]
    MissingNetns(Netns),
    /// A link that somebody else has to make does not exist.
    #[error("failed to find interface `{name}` in network namespace `{netns}`")]
    MissingLink {
        /// Where it should be.
        netns: Netns,
        /// Its name.
        name: IfName,
    },
    /// The Linux bridge does not exist.
    #[error("failed to find Linux bridge `{name}` in network namespace `{netns}`")]
    MissingBridge {
        /// Where it should be.
        netns: Netns,
        /// Its name.
        name: IfName,
    },
    /// The link that should be a bridge is something else.
    #[error("failed to use link `{name}` in network namespace `{netns}` as a bridge: it is none")]
    NotABridge {
        /// Where it is.
        netns: Netns,
        /// Its name.
        name: IfName,
    },
    /// The Linux bridge does not keep VLANs apart.
    #[error(
        "failed to put a port of Linux bridge `{name}` in network namespace `{netns}` into a VLAN: `vlan_filtering` of \
         the bridge is 0; `ip link set {name} type bridge vlan_filtering 1` sets it, and puts the bridge's ports into \
         its default VLAN"
    )]
    NoVlanFiltering {
        /// Where it is.
        netns: Netns,
        /// Its name.
        name: IfName,
    },
    /// Open vSwitch looks at one VLAN tag only.
    #[error(
        "failed to tunnel VLANs through OVS bridge `{0}`: `other_config:vlan-limit` of Open_vSwitch is 1, or not set, \
         so that it looks at one tag of a frame; `ovs-vsctl set Open_vSwitch . other_config:vlan-limit=2` lets it look \
         at two"
    )]
    VlanLimit(String),
    /// The link of the host that a macvlan or macvtap is to be on does not exist.
    #[error("failed to find uplink `{0}` on the node")]
    MissingUplink(IfName),
    /// The OVS bridge does not exist.
    #[error("failed to find OVS bridge `{0}`")]
    MissingOvsBridge(String),
    /// Open vSwitch is not there, or not configured.
    #[error("failed to reach Open vSwitch, which port `{0}` is wanted on")]
    NoOvs(String),
    /// Somebody else has a link of this name.
    #[error("failed to make link `{name}` in network namespace `{netns}`: somebody else has one of this name")]
    ForeignLink {
        /// Where it is.
        netns: Netns,
        /// Its name.
        name: IfName,
    },
    /// Somebody else has an OVS port of this name.
    #[error("failed to add OVS port `{0}`: somebody else has one of this name")]
    ForeignPort(String),
    /// A desired veth has no other end in the desired state, or the reverse.
    #[error("failed to plan veth `{0}`: its other end is not desired")]
    LoneVeth(IfName),
}

impl PlanError {
    /// What to do about it.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::MissingNetns(_) | Self::MissingLink { .. } | Self::NoOvs(_) => ErrorClass::Retry,
            Self::MissingBridge { .. }
            | Self::MissingOvsBridge(_)
            | Self::MissingUplink(_)
            | Self::NotABridge { .. }
            | Self::NoVlanFiltering { .. }
            | Self::VlanLimit(_) => ErrorClass::Invalid,
            Self::ForeignLink { .. } | Self::ForeignPort(_) => ErrorClass::Conflict,
            Self::LoneVeth(_) => ErrorClass::Bug,
        }
    }

    /// A word for conditions and events.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::MissingNetns(_) => "NetnsNotFound",
            Self::MissingLink { .. } => "InterfaceNotFound",
            Self::MissingBridge { .. } | Self::MissingOvsBridge(_) => "BridgeNotFound",
            Self::MissingUplink(_) => "UplinkNotFound",
            Self::NotABridge { .. } => "NotABridge",
            Self::NoVlanFiltering { .. } => "VlanFilteringOff",
            Self::VlanLimit(_) => "VlanLimitTooLow",
            Self::NoOvs(_) => "OpenVSwitchUnavailable",
            Self::ForeignLink { .. } | Self::ForeignPort(_) => "NameTaken",
            Self::LoneVeth(_) => "InternalError",
        }
    }
}

/// The steps from `observed` to `desired`.
///
/// # Errors
/// When no steps lead there: something is missing that is not ours to make, or in the way and not ours to remove.
pub fn plan(desired: &DesiredState, observed: &ObservedState) -> Result<Plan, PlanError> {
    let mut ops = Vec::new();
    let fresh = links::plan(desired, observed, &mut ops)?;
    guard::plan(desired, observed, &mut ops);
    ovs::plan(desired, observed, &fresh, &mut ops)?;
    order::sort(&mut ops);
    Ok(Plan { ops })
}
