//! Keeps a cache as the API server has it, and tells controllers of changes.
//!
//! Objects are decoded here and not by the watcher, so that one that cannot be decoded is skipped and does not end the
//! watch. A watch that breaks is made anew with a back-off, and its list tells of everything.

use futures::StreamExt;
use holdfast_kubernetes::chain;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ApiResource, DynamicObject};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as follow};
use kube::{Api, Client, Resource};
use tokio::sync::watch;

use super::{Cache, Cached, Key};

/// Follows all objects of kind `K` (those with `labels`, where given), until the process ends. `changed` is told of
/// each object that is put in or goes, with what is known of it; after a list, of each object of the list.
pub async fn follow_all<K, T>(
    client: Client,
    labels: Option<&str>,
    cache: Cache<T>,
    ready: watch::Sender<bool>,
    changed: impl Fn(&Key, &T),
) where
    K: Resource<DynamicType = ()>,
    T: Cached,
{
    let resource = ApiResource::erase::<K>(&());
    let api: Api<DynamicObject> = Api::all_with(client, &resource);
    let mut config = watcher::Config::default();
    if let Some(labels) = labels {
        config = config.labels(labels);
    }
    let mut stream = follow(api, config).default_backoff().boxed();
    while let Some(event) = stream.next().await {
        match event {
            Ok(Event::Init) => cache.list_begins(),
            Ok(Event::InitApply(object)) => {
                if let Some((meta, object)) = decode::<T>(object, &resource.kind) {
                    cache.saw(&meta, object, true);
                }
            }
            Ok(Event::InitDone) => {
                let before = cache.keys();
                let last: Vec<_> = before.iter().filter_map(|key| Some((key, cache.get(key)?))).collect();
                cache.list_ends();
                // Those that went while nobody watched, too.
                for (key, object) in last.iter().filter(|(key, _)| cache.get(key).is_none()) {
                    changed(key, object);
                }
                for key in cache.keys() {
                    if let Some(object) = cache.get(&key) {
                        changed(&key, &object);
                    }
                }
                ready.send_replace(true);
            }
            Ok(Event::Apply(object)) => {
                if let Some((meta, object)) = decode::<T>(object, &resource.kind) {
                    let key = Key::of(&meta);
                    cache.saw(&meta, object, false);
                    if let Some(object) = cache.get(&key) {
                        changed(&key, &object);
                    }
                }
            }
            Ok(Event::Delete(object)) => {
                cache.saw_deletion(&object.metadata);
                if let Some((meta, object)) = decode::<T>(object, &resource.kind) {
                    changed(&Key::of(&meta), &object);
                }
            }
            Err(error) => tracing::warn!(kind = resource.kind, error = chain(&error), "lost the watch; it begins anew"),
        }
    }
}

fn decode<T: Cached>(mut object: DynamicObject, kind: &str) -> Option<(ObjectMeta, T)> {
    object.metadata.managed_fields = None;
    let meta = object.metadata.clone();
    let read = serde_json::to_value(object).and_then(T::read);
    match read {
        Ok(object) => Some((meta, object)),
        Err(error) => {
            tracing::warn!(kind, object = %Key::of(&meta), error = chain(&error), "failed to decode an object");
            None
        }
    }
}
