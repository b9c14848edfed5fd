//! What Open vSwitch tells: of its database, of our flows, and of its end and its return.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::broadcast::Sender;
use tokio_util::task::AbortOnDropHandle;

use super::Place;
use crate::kernel::ovsdb::Ovs;

/// Between two attempts to reach a bridge whose switch has ended: how long its ports may be without our flows.
const RETRY: Duration = Duration::from_millis(50);

/// Follows the database, and each bridge that has flows of ours.
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
        // Without anybody who listens there is nothing to do.
        let _ = heard.send(Place::Switch);
    }
}

async fn follow_bridge(ovs: Ovs, name: String, heard: Sender<Place>) {
    loop {
        if let Ok(mut bridge) = ovs.connect(&name).await
            && bridge.monitor().await.is_ok()
        {
            // Whatever happened before.
            let _ = heard.send(Place::Switch);
            while bridge.changed().await.is_ok() {
                let _ = heard.send(Place::Switch);
            }
            let _ = heard.send(Place::Switch);
        }
        tokio::time::sleep(RETRY).await;
    }
}
