//! What is there: names, versions and marks of the objects that bear our label. Their contents are never kept, for
//! those would be many times what the operator needs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use kube::api::{DynamicObject, ObjectMeta, PartialObjectMeta};
use kube::runtime::watcher::{Config, Event};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::object::{APPLIED, Id, resource};

/// The kinds that an installation is made of, and whether they are in a namespace. In the order in which the last of
/// them are taken away.
pub const KINDS: [(&str, &str, bool); 15] = [
    ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", false),
    ("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", false),
    ("apiregistration.k8s.io/v1", "APIService", false),
    ("apps/v1", "Deployment", true),
    ("apps/v1", "DaemonSet", true),
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition", false),
    ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding", false),
    ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy", false),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", false),
    ("rbac.authorization.k8s.io/v1", "ClusterRole", false),
    ("rbac.authorization.k8s.io/v1", "RoleBinding", true),
    ("rbac.authorization.k8s.io/v1", "Role", true),
    ("v1", "Service", true),
    ("v1", "ServiceAccount", true),
    ("v1", "ConfigMap", true),
];

const LABEL: &str = "app.kubernetes.io/managed-by=virt-operator";
/// Definitions come with hundreds of kilobytes of metadata each; a few at a time are enough.
const PAGE: u32 = 4;

/// What is known of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    /// The hash of what was applied; none where it is not ours.
    pub hash: Option<String>,
    /// Its generation where its kind has one, else its resource version. It changes with the content.
    pub version: i64,
    /// Whether that is a generation.
    pub has_generation: bool,
    /// Whether its deletion has begun.
    pub deleting: bool,
    /// Versions of one object can be told apart by age.
    resource_version: u64,
}

impl Live {
    fn of(metadata: &ObjectMeta) -> Self {
        let text = metadata.resource_version.as_deref().unwrap_or_default();
        let resource_version: u64 = text.parse().unwrap_or_default();
        let generation = metadata.generation.filter(|generation| *generation > 0);
        Self {
            hash: metadata.annotations.as_ref().and_then(|annotations| annotations.get(APPLIED).cloned()),
            version: generation.unwrap_or_else(|| i64::try_from(resource_version).unwrap_or_default()),
            has_generation: generation.is_some(),
            deleting: metadata.deletion_timestamp.is_some(),
            resource_version,
        }
    }
}

/// What is there, as far as watches tell.
#[derive(Debug, Default)]
pub struct Watched {
    objects: Mutex<BTreeMap<Id, Live>>,
    /// Kinds of which not everything is known yet.
    missing: Mutex<BTreeSet<&'static str>>,
    /// Told of each change.
    pub changed: Notify,
}

impl Watched {
    /// One object.
    pub fn get(&self, id: &Id) -> Option<Live> {
        self.lock().get(id).cloned()
    }

    /// All objects that are ours.
    pub fn ours(&self) -> Vec<(Id, Live)> {
        self.lock()
            .iter()
            .filter(|(_, live)| live.hash.is_some())
            .map(|(id, live)| (id.clone(), live.clone()))
            .collect()
    }

    /// Notes what an object is now. What a watch tells late does not take the place of what is known better.
    pub fn learn(&self, id: &Id, metadata: &ObjectMeta) -> Live {
        let live = Live::of(metadata);
        let mut objects = self.lock();
        let older = objects.get(id).is_some_and(|known| known.resource_version > live.resource_version);
        if !older {
            objects.insert(id.clone(), live.clone());
        }
        live
    }

    /// Whether everything has been seen once.
    pub fn is_complete(&self) -> bool {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn forget(&self, id: &Id) {
        self.lock().remove(id);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Id, Live>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Watches all kinds until `stop`.
pub fn follow(
    client: &Client,
    namespace: &str,
    watched: &std::sync::Arc<Watched>,
    tracker: &TaskTracker,
    stop: &CancellationToken,
) {
    watched.missing.lock().unwrap_or_else(PoisonError::into_inner).extend(KINDS.iter().map(|(_, kind, _)| *kind));
    for (api_version, kind, namespaced) in KINDS {
        let resource = resource(api_version, kind);
        let api: Api<PartialObjectMeta<DynamicObject>> = match namespaced {
            true => Api::namespaced_with(client.clone(), namespace, &resource),
            false => Api::all_with(client.clone(), &resource),
        };
        let watched = watched.clone();
        tracker.spawn(stop.clone().run_until_cancelled_owned(async move {
            let id = |metadata: &ObjectMeta| Id {
                api_version: api_version.to_owned(),
                kind: kind.to_owned(),
                namespace: metadata.namespace.clone(),
                name: metadata.name.clone().unwrap_or_default(),
            };
            let mut listed = BTreeSet::new();
            let config = Config::default().labels(LABEL).page_size(PAGE);
            let mut events = std::pin::pin!(watcher(api, config).default_backoff());
            while let Some(event) = events.next().await {
                match event {
                    Ok(Event::Init) => listed.clear(),
                    Ok(Event::InitApply(object)) => {
                        let id = id(&object.metadata);
                        watched.learn(&id, &object.metadata);
                        listed.insert(id);
                    }
                    Ok(Event::InitDone) => {
                        watched.lock().retain(|id, _| id.kind != kind || listed.contains(id));
                        watched.missing.lock().unwrap_or_else(PoisonError::into_inner).remove(kind);
                        watched.changed.notify_one();
                    }
                    Ok(Event::Apply(object)) => {
                        watched.learn(&id(&object.metadata), &object.metadata);
                        watched.changed.notify_one();
                    }
                    Ok(Event::Delete(object)) => {
                        tracing::debug!(kind, name = object.name_any(), "deleted");
                        watched.forget(&id(&object.metadata));
                        watched.changed.notify_one();
                    }
                    Err(error) => tell(kind, &error),
                }
            }
        }));
    }
}

fn tell(kind: &str, error: &watcher::Error) {
    tracing::warn!(kind, error = holdfast_kubernetes::chain(error), "lost sight of what is installed");
}

/// Between a change and the look at what follows from it, so that many changes are looked at once.
pub const SETTLE: Duration = Duration::from_millis(100);

/// What is to be done with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is as it is to be.
    Same,
    /// It is to be applied.
    Apply,
    /// Somebody else has changed it.
    Revert,
}

/// Decides about an object that is to have the content `hash` and that we left in the version `written`, if we know.
pub fn verdict(hash: &str, live: Option<&Live>, written: Option<i64>) -> Verdict {
    match live {
        None => Verdict::Apply,
        Some(live) if live.hash.as_deref() != Some(hash) => Verdict::Apply,
        Some(live) if written == Some(live.version) => Verdict::Same,
        Some(_) => Verdict::Revert,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(resource_version: &str, generation: Option<i64>, hash: Option<&str>) -> ObjectMeta {
        ObjectMeta {
            resource_version: Some(resource_version.to_owned()),
            generation,
            annotations: hash.map(|hash| [(APPLIED.to_owned(), hash.to_owned())].into()),
            ..ObjectMeta::default()
        }
    }

    fn id(name: &str) -> Id {
        Id { api_version: "v1".to_owned(), kind: "Service".to_owned(), namespace: None, name: name.to_owned() }
    }

    #[test]
    fn nothing_is_written_where_nothing_has_changed() {
        let live = Live::of(&metadata("70", Some(3), Some("h")));
        assert_eq!(verdict("h", Some(&live), Some(3)), Verdict::Same);
        assert_eq!(verdict("other", Some(&live), Some(3)), Verdict::Apply);
        assert_eq!(verdict("h", Some(&live), Some(2)), Verdict::Revert);
        assert_eq!(verdict("h", Some(&live), None), Verdict::Revert);
        assert_eq!(verdict("h", None, Some(3)), Verdict::Apply);
        let foreign = Live::of(&metadata("70", Some(3), None));
        assert_eq!(verdict("h", Some(&foreign), Some(3)), Verdict::Apply);
    }

    #[test]
    fn kinds_without_generations_go_by_their_resource_version() {
        assert_eq!(Live::of(&metadata("70", None, Some("h"))).version, 70);
        assert_eq!(Live::of(&metadata("70", Some(0), Some("h"))).version, 70);
        assert_eq!(Live::of(&metadata("70", Some(2), Some("h"))).version, 2);
    }

    #[test]
    fn a_watch_that_is_late_changes_nothing() {
        let watched = Watched::default();
        watched.learn(&id("a"), &metadata("100", None, Some("new")));
        watched.learn(&id("a"), &metadata("99", None, Some("old")));
        assert_eq!(watched.get(&id("a")).and_then(|live| live.hash).as_deref(), Some("new"));
    }

    #[test]
    fn only_what_bears_our_mark_is_ours() {
        let watched = Watched::default();
        watched.learn(&id("a"), &metadata("1", None, Some("h")));
        watched.learn(&id("b"), &metadata("2", None, None));
        assert_eq!(watched.ours().len(), 1);
    }
}
