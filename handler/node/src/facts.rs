//! What the parts found out, for the one that tells the cluster.

use std::collections::BTreeMap;

use crate::devices::RESOURCES;

/// The present state of the node's parts; empty until they have begun.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// How each device stands with kubelet, by resource.
    pub devices: BTreeMap<&'static str, DeviceFact>,
    /// Whether our CNI plugin stands behind the primary one; what is in the way where not.
    pub network: Option<Result<(), String>>,
}

impl Facts {
    /// Whether each part has told how it stands.
    pub fn is_complete(&self) -> bool {
        self.network.is_some() && self.devices.len() == RESOURCES.len()
    }
}

/// How a device stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceFact {
    /// Whether it can be used.
    pub healthy: bool,
    /// Whether kubelet knows of it; what is in the way where not.
    pub registered: Result<(), String>,
}
