//! What Open vSwitch tells of our flows, and of its end and its return. Of its database the connection to that tells.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use tokio::sync::broadcast::Sender;
use tokio_util::task::AbortOnDropHandle;

use super::Place;
use crate::kernel::openflow::Told;
use crate::kernel::ovsdb::Ovs;

/// Between two attempts to reach a bridge whose switch has ended: how long its ports may be without our flows.
const RETRY: Duration = Duration::from_millis(50);

/// From a change of the database to the look at which bridges are to be followed: changes come in groups, and each look is
/// at all ports.
const GATHER: Duration = Duration::from_millis(50);

/// Follows each bridge that has flows of ours.
pub(super) async fn follow(ovs: Ovs, heard: Sender<Place>) {
    let mut version = ovs.version();
    let mut bridges = HashMap::new();
    loop {
        version.mark_unchanged();
        let secured = ovs.secured_bridges();
        bridges.retain(|name, _| secured.contains(name));
        for name in secured {
            bridges.entry(name).or_insert_with_key(|name| {
                AbortOnDropHandle::new(tokio::spawn(follow_bridge(ovs.clone(), name.clone(), heard.clone())))
            });
        }
        if version.changed().await.is_err() {
            return;
        }
        tokio::time::sleep(GATHER).await;
    }
}

async fn follow_bridge(ovs: Ovs, name: String, heard: Sender<Place>) {
    loop {
        if let Ok(mut bridge) = ovs.connect(&name).await
            && bridge.monitor().await.is_ok()
        {
            // Whatever happened before. Without anybody who listens there is nothing to do, here and below.
            let _ = heard.send(Place::Switch);
            while let Ok(told) = bridge.changed().await {
                for place in places(&ovs, &name, told) {
                    let _ = heard.send(place);
                }
            }
            let _ = heard.send(Place::Switch);
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Where flows are that are told of. Those that went with their port are nowhere.
fn places(ovs: &Ovs, bridge: &str, told: Option<Vec<Told>>) -> BTreeSet<Place> {
    let Some(told) = told else { return [Place::Switch].into() };
    let numbers: BTreeMap<Option<u32>, bool> = told.into_iter().map(|told| (told.port, told.deleted)).collect();
    let place = |(number, deleted): (Option<u32>, bool)| {
        let port = number.and_then(|number| ovs.port_of(bridge, number)).and_then(|port| port.parse().ok());
        port.map(Place::Link).or((!deleted).then_some(Place::Switch))
    };
    numbers.into_iter().filter_map(place).collect()
}
