//! What the wire behind a bridge carries: MTUs of the ports that somebody else put on it.

use std::collections::BTreeMap;
use std::io;

use netlink_packet_route::link::LinkAttribute;

use super::netns::Inside;
use super::{Wiring, WiringError, links, observe, ovs_error};
use crate::desired::Netns;
use crate::mark::{DOOMED_LINK_GROUP, LINK_GROUP};
use crate::model::IfName;

impl Wiring {
    /// The ports of an OVS bridge that are not ours, with their MTUs; without those that have none, such as tunnels, and
    /// the bridge's own, which follows the others. It looks at the copy of the database alone.
    ///
    /// # Errors
    /// [`WiringError::Ovs`] where the switch does not answer.
    pub async fn foreign_ports_of_ovs(&self, bridge: &str) -> Result<BTreeMap<String, u32>, WiringError> {
        match &self.ovs {
            Some(ovs) => ovs.foreign_ports(bridge).await.map_err(|source| ovs_error(ovs, source)),
            None => Ok(BTreeMap::new()),
        }
    }

    /// The ports of a Linux bridge that are not ours, with their MTUs. It reads all links of the node.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn foreign_ports(&self, bridge: &IfName) -> Result<BTreeMap<String, u32>, WiringError> {
        let namespace = self.enter_one(&Netns::Host)?;
        let name = bridge.clone();
        let failed = |source| {
            let what = format!("ports of bridge `{bridge}`");
            WiringError::Observe { netns: Netns::Host, what, source }
        };
        namespace.call(move |inside| ports(inside, &name)).await?.map_err(failed)
    }
}

fn ports(inside: &mut Inside, bridge: &IfName) -> io::Result<BTreeMap<String, u32>> {
    let Some(bridge) = links::get(&mut inside.route, bridge)? else { return Ok(BTreeMap::new()) };
    let mut found = BTreeMap::new();
    for link in observe::dump_links(&mut inside.route)? {
        let ours = matches!(observe::group_and_alias(&link).0, LINK_GROUP | DOOMED_LINK_GROUP);
        let is_port = link.attributes.contains(&LinkAttribute::Controller(bridge.header.index));
        let mtu = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Mtu(mtu) => Some(*mtu),
            _ => None,
        });
        if let Some((name, mtu)) = observe::name_of(&link).zip(mtu)
            && is_port
            && !ours
        {
            found.insert(name.to_string(), mtu);
        }
    }
    Ok(found)
}
