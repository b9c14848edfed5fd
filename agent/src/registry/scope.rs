//! Which attachments a change may concern.

use std::collections::{BTreeSet, HashMap};

use holdfast_net::attachment::host_ifname;
use holdfast_net::kernel::{Place, Wiring};
use holdfast_net::model::{Attachment, Backend};

use super::{Entry, Key, Record, Registry};
use crate::netns::NetnsId;

/// Where the pods' ends of the attachments are. What is known of a namespace holds for as long as it is there.
#[derive(Debug, Default)]
pub(super) struct Pods(HashMap<Key, (NetnsId, Option<Place>)>);

impl Pods {
    /// The attachments, of those that nobody works on, that changes in these places may concern.
    pub(super) async fn concerned(
        &mut self,
        wiring: &Wiring,
        registry: &Registry,
        places: &BTreeSet<Place>,
    ) -> Vec<Entry> {
        if places.iter().any(|place| matches!(place, Place::Host | Place::Switch | Place::Anywhere)) {
            return registry.entries_at_rest();
        }
        let known = |place: &Place| self.0.values().any(|(_, of)| of.as_ref() == Some(place));
        if places.iter().any(|place| matches!(place, Place::Namespace(_)) && !known(place)) {
            self.look(wiring, registry).await;
        }
        registry.entries_at_rest_of(|record| {
            let pod = self.0.get(&record.key).filter(|(netns, _)| *netns == record.netns);
            let in_pod = pod.and_then(|(_, place)| place.as_ref()).is_some_and(|place| places.contains(place));
            in_pod || names(&record.attachment).into_iter().any(|name| places.contains(&name))
        })
    }

    /// Finds out of those that are not known yet, and forgets those that are gone.
    async fn look(&mut self, wiring: &Wiring, registry: &Registry) {
        let entries = registry.entries();
        let keys: BTreeSet<&Key> = entries.iter().map(|entry| &entry.record.key).collect();
        self.0.retain(|key, _| keys.contains(key));
        let is_new = |record: &&Record| self.0.get(&record.key).is_none_or(|(netns, _)| *netns != record.netns);
        let new: Vec<&Record> = entries.iter().map(|entry| &entry.record).filter(is_new).collect();
        if new.is_empty() {
            return;
        }
        let namespaces = new.iter().map(|record| record.attachment.netns.clone()).collect();
        match wiring.places_of(namespaces).await {
            Ok(places) => {
                let known = new.into_iter().zip(places);
                self.0.extend(known.map(|(record, place)| (record.key.clone(), (record.netns.clone(), place))));
            }
            Err(error) => {
                tracing::warn!(error = crate::chain(&error), "changes in pods are found at the next round only");
            }
        }
    }
}

/// The links of the host that an attachment depends on: its own end, and what that is a port of.
fn names(attachment: &Attachment) -> Vec<Place> {
    let beneath = match &attachment.backend {
        Backend::Ovs { bridge, .. } => bridge.parse().ok(),
        Backend::LinuxBridge { bridge, .. } => Some(bridge.clone()),
        Backend::Macvtap { uplink, .. } => Some(uplink.clone()),
    };
    [host_ifname(&attachment.id)].into_iter().chain(beneath).map(Place::Link).collect()
}
