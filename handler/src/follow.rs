//! A watch of one kind of object that never ends.
//!
//! Invariants: an object that cannot be decoded is logged and changes nothing; an API server that is away is asked
//! again, after at most some seconds; what was told before stays true until a whole list says otherwise.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::time::Duration;

use futures::StreamExt;
use kube::api::{ApiResource, DynamicObject};
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{Config, Event};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use rand::Rng;
use serde::de::DeserializeOwned;

/// Waits between two tries: the first and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// Namespace and name of an object.
pub type Key = (String, String);

/// What a watch tells.
pub enum Change<K> {
    /// An object is there, or is another than before.
    Set(Box<K>),
    /// An object is gone.
    Gone(Key),
    /// These are all that there are.
    Only(BTreeSet<Key>),
}

/// Follows the objects of a kind for ever.
pub async fn follow<K>(client: Client, config: Config, mut tell: impl FnMut(Change<K>))
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug,
{
    let resource = ApiResource::erase::<K>(&());
    let kind = resource.kind.clone();
    let api = Api::<DynamicObject>::all_with(client, &resource);
    let mut stream = watcher(api, config).backoff(Pace::default()).boxed();
    let mut listed = BTreeSet::new();
    let mut lost = false;
    while let Some(event) = stream.next().await {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                // Said once: it is tried again many times.
                if !lost {
                    tracing::warn!(kind, error = holdfast_kubernetes::chain(&error), "lost sight of objects");
                }
                lost = true;
                continue;
            }
        };
        // A list that begins anew has not been answered yet.
        if lost && !matches!(event, Event::Init) {
            tracing::info!(kind, "objects are in sight again");
            lost = false;
        }
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(object) => {
                listed.insert(key(&object));
                tell_decoded(&kind, object, &mut tell);
            }
            Event::InitDone => tell(Change::Only(std::mem::take(&mut listed))),
            Event::Apply(object) => tell_decoded(&kind, object, &mut tell),
            Event::Delete(object) => tell(Change::Gone(key(&object))),
        }
    }
}

fn key(object: &DynamicObject) -> Key {
    (object.metadata.namespace.clone().unwrap_or_default(), object.metadata.name.clone().unwrap_or_default())
}

fn tell_decoded<K: Resource<DynamicType = ()> + DeserializeOwned>(
    kind: &str,
    object: DynamicObject,
    tell: &mut impl FnMut(Change<K>),
) {
    let (namespace, name) = key(&object);
    match object.try_parse() {
        Ok(object) => tell(Change::Set(Box::new(object))),
        Err(error) => {
            tracing::error!(kind, namespace, name, error = holdfast_kubernetes::chain(&error), "cannot read an object");
        }
    }
}

/// How long to wait between two tries.
#[derive(Default)]
struct Pace(u32);

impl Iterator for Pace {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = PAUSE.0.saturating_mul(1 << self.0.min(8)).min(PAUSE.1);
        self.0 += 1;
        // So that the nodes of a cluster do not come back all at once.
        Some(pause.mul_f64(rand::rng().random_range(0.5..1.0)))
    }
}

impl Backoff for Pace {
    fn reset(&mut self) {
        self.0 = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_come_at_a_bounded_pace() {
        let mut pace = Pace::default();
        assert!(pace.next() < Some(PAUSE.0));
        assert!((0..40).filter_map(|_| pace.next()).all(|pause| pause <= PAUSE.1));
        pace.reset();
        assert!(pace.next() < Some(PAUSE.0));
    }
}
