//! Which attachments a change may concern.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use holdfast_net::attachment::host_ifname;
use holdfast_net::kernel::{Place, Wiring};
use holdfast_net::model::{Attachment, Backend};

use super::{Entry, Key, Registry};

/// Who is where. Kept beside the registry, for there are many changes and few that concern anybody.
#[derive(Debug, Default)]
pub(super) struct Scope {
    /// The registry's version that it is of.
    version: Option<u64>,
    /// Where each attachment is. What is known of a namespace holds for as long as it is there.
    places: HashMap<Key, Vec<Place>>,
    concerned: BTreeMap<Place, BTreeSet<Key>>,
}

impl Scope {
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
        self.follow(wiring, registry).await;
        let keys: BTreeSet<&Key> = places.iter().filter_map(|place| self.concerned.get(place)).flatten().collect();
        if keys.is_empty() { Vec::new() } else { registry.entries_at_rest_of(&keys) }
    }

    /// Follows the registry.
    async fn follow(&mut self, wiring: &Wiring, registry: &Registry) {
        let since = self.version.map(|version| registry.touched_since(version));
        let (version, touched) = match since {
            Some((version, Some(touched))) => (version, touched),
            _ => {
                *self = Self::default();
                (registry.touched_since(0).0, registry.keys())
            }
        };
        if touched.is_empty() {
            self.version = Some(version);
            return;
        }
        let there: Vec<_> = touched.iter().filter_map(|key| registry.get(key)).map(|entry| entry.record).collect();
        let namespaces = there.iter().map(|record| record.attachment.netns.clone()).collect();
        let pods = match wiring.places_of(namespaces).await {
            Ok(pods) => pods,
            Err(error) => {
                tracing::warn!(error = crate::chain(&error), "changes of attachments are found at the next round only");
                return;
            }
        };
        touched.iter().for_each(|key| self.forget(key));
        for (record, pod) in there.into_iter().zip(pods) {
            let places: Vec<Place> = links(&record.attachment).into_iter().chain(pod).collect();
            for place in &places {
                self.concerned.entry(place.clone()).or_default().insert(record.key.clone());
            }
            self.places.insert(record.key, places);
        }
        self.version = Some(version);
    }

    fn forget(&mut self, key: &Key) {
        for place in self.places.remove(key).into_iter().flatten() {
            if let Some(keys) = self.concerned.get_mut(&place) {
                keys.remove(key);
                if keys.is_empty() {
                    self.concerned.remove(&place);
                }
            }
        }
    }
}

/// The links of the host that an attachment depends on: its own end, and what that is a port of.
fn links(attachment: &Attachment) -> Vec<Place> {
    let beneath = match &attachment.backend {
        Backend::Ovs { bridge, .. } => bridge.parse().ok(),
        Backend::LinuxBridge { bridge, .. } => Some(bridge.clone()),
        Backend::Macvtap { uplink, .. } => Some(uplink.clone()),
    };
    [host_ifname(&attachment.id)].into_iter().chain(beneath).map(Place::Link).collect()
}
