//! The MTU of an attachment: what its network says, within what the wire behind the bridge carries; else that.
//!
//! What a guest may send and the wire does not carry is lost without a word, so it is refused before anything is made.

use std::collections::BTreeMap;

use holdfast_agent_api::cni::code;
use holdfast_ipam::network::NetworkConfig;
use holdfast_net::model::{Backend, IfName};

use super::Fault;
use crate::context::Context;
use crate::netns::link_mtu;

/// MTU where neither the network nor a link of the node tells one.
const DEFAULT: u32 = 1500;

/// The MTU of an attachment to this network.
///
/// # Errors
/// [`Fault`] names the network, its MTU, and the link that carries less.
pub(super) async fn settle(context: &Context, network: &NetworkConfig) -> Result<u32, Fault> {
    let mut wire = wire(context, network).await?;
    if let Some(name) = &network.uplink {
        let mtu = name.parse().ok().as_ref().map(of_link).transpose()?.flatten().ok_or_else(|| {
            let network = &network.addressing.name;
            Fault::new(code::NODE, format!("uplink `{name}` of network `{network}` is not on this node"), "")
        })?;
        wire.insert(name.clone(), mtu);
    }
    let narrowest = wire.iter().min_by_key(|(_, mtu)| **mtu);
    match (network.mtu, narrowest) {
        (Some(mtu), Some((link, most))) if mtu > *most => {
            let network = &network.addressing.name;
            let msg = format!("`mtu` of network `{network}` is {mtu}, but `{link}`, which it goes by, has {most}");
            Err(Fault::new(code::CONFIG, msg, format!("lower `mtu`, or raise that of `{link}`")))
        }
        (Some(mtu), _) => Ok(mtu),
        (None, Some((_, mtu))) => Ok(*mtu),
        (None, None) => Ok(bridge(network).as_ref().map(of_link).transpose()?.flatten().unwrap_or(DEFAULT)),
    }
}

/// The links that frames of this network go by beside the named uplink, with their MTUs, as far as they may matter.
///
/// A Linux bridge has the smallest MTU of its ports, ours among them, where nobody has set another: what is within that is
/// within that of each port, and nobody has to read all links of the node to know it.
async fn wire(context: &Context, network: &NetworkConfig) -> Result<BTreeMap<String, u32>, Fault> {
    match &network.backend {
        Backend::Ovs { bridge, .. } => Ok(context.wiring.foreign_ports_of_ovs(bridge).await?),
        Backend::LinuxBridge { bridge, .. } => {
            let wider = match network.mtu {
                Some(wanted) => of_link(bridge)?.is_some_and(|present| wanted > present),
                None => false,
            };
            Ok(if wider { context.wiring.foreign_ports(bridge).await? } else { BTreeMap::new() })
        }
        Backend::Macvtap { .. } => Ok(BTreeMap::new()),
    }
}

fn bridge(network: &NetworkConfig) -> Option<IfName> {
    match &network.backend {
        Backend::Ovs { bridge, .. } => bridge.parse().ok(),
        Backend::LinuxBridge { bridge, .. } => Some(bridge.clone()),
        Backend::Macvtap { uplink, .. } => Some(uplink.clone()),
    }
}

fn of_link(name: &IfName) -> Result<Option<u32>, Fault> {
    link_mtu(name)
        .map_err(|error| Fault::new(code::IO, format!("failed to read the MTU of `{name}`"), error.to_string()))
}
