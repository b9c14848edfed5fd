//! The configuration of the installation, from its KubeVirt object, followed as it changes.
//!
//! An object that cannot be decoded changes nothing: what was in force stays so.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use holdfast_api::config::ClusterConfig;
use holdfast_api::kubevirt::KubeVirt;
use kube::api::{ApiResource, DynamicObject};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as follow};
use kube::{Api, Client, ResourceExt};
use tokio::sync::watch;
use tokio::time::timeout;

/// How long the first answer is waited for.
const FIRST: Duration = Duration::from_secs(30);

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refuses.
    #[error("failed to list KubeVirt objects in namespace `{0}`")]
    List(String, #[source] Box<watcher::Error>),
    /// The API server does not answer.
    #[error("failed to list KubeVirt objects in namespace `{0}`: no answer in time")]
    NoAnswer(String),
}

/// What is set for the whole installation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// What defaulting and validation read.
    pub cluster: ClusterConfig,
    /// Whether VMs may run without hardware virtualisation.
    pub emulation: bool,
    /// The whole object; an empty one where there is none.
    pub kubevirt: KubeVirt,
}

impl Settings {
    fn of(kubevirt: KubeVirt) -> Self {
        let cluster = ClusterConfig::of(&kubevirt.spec);
        Self { emulation: cluster.emulation, cluster, kubevirt }
    }
}

/// Follows the KubeVirt object of `namespace` for as long as there is a receiver. The first settings are there at
/// once: the defaults where there is no object, or not even its kind.
///
/// # Errors
/// Where the first list fails.
pub async fn watch(client: Client, namespace: &str) -> Result<watch::Receiver<Arc<Settings>>, Error> {
    // Decoded here and not by the watcher, which would stop at an object that it cannot decode.
    let resource = ApiResource::erase::<KubeVirt>(&());
    let api = Api::<DynamicObject>::namespaced_with(client, namespace, &resource);
    let mut stream = follow(api, watcher::Config::default()).default_backoff().boxed();
    let mut objects = Objects::default();
    let first = async {
        while let Some(event) = stream.next().await {
            match event {
                Ok(event) => {
                    if objects.take(event) {
                        break;
                    }
                }
                Err(error) if is_missing(&error) => break,
                Err(error) => return Err(Error::List(namespace.to_owned(), Box::new(error))),
            }
        }
        Ok(())
    };
    timeout(FIRST, first).await.map_err(|_| Error::NoAnswer(namespace.to_owned()))??;
    let (sender, receiver) = watch::channel(Arc::new(objects.settings()));
    tokio::spawn(run(stream, objects, sender));
    Ok(receiver)
}

async fn run(
    mut stream: impl Stream<Item = watcher::Result<Event<DynamicObject>>> + Unpin,
    mut objects: Objects,
    sender: watch::Sender<Arc<Settings>>,
) {
    loop {
        let event = tokio::select! {
            () = sender.closed() => return,
            event = stream.next() => event,
        };
        match event {
            Some(Ok(event)) => {
                if objects.take(event) {
                    let settings = objects.settings();
                    sender.send_if_modified(|current| {
                        let changed = **current != settings;
                        if changed {
                            *current = Arc::new(settings);
                        }
                        changed
                    });
                }
            }
            Some(Err(error)) if is_missing(&error) => {}
            Some(Err(error)) => tracing::warn!(error = crate::chain(&error), "lost sight of the KubeVirt object"),
            None => return,
        }
    }
}

/// The KubeVirt objects of the namespace, by their names. The operator refuses a second one; should there be one, the
/// older counts.
#[derive(Default)]
struct Objects {
    known: BTreeMap<String, KubeVirt>,
    /// Those of a list that is not complete yet.
    listed: Option<BTreeMap<String, KubeVirt>>,
}

impl Objects {
    /// Whether what is known may have changed.
    fn take(&mut self, event: Event<DynamicObject>) -> bool {
        match event {
            Event::Init => self.listed = Some(BTreeMap::new()),
            Event::InitApply(object) => {
                if let Some((name, kubevirt)) = self.decode(object) {
                    self.listed.get_or_insert_default().insert(name, kubevirt);
                }
            }
            Event::InitDone => {
                self.known = self.listed.take().unwrap_or_default();
                return true;
            }
            Event::Apply(object) => {
                if let Some((name, kubevirt)) = self.decode(object) {
                    self.known.insert(name, kubevirt);
                    return true;
                }
            }
            Event::Delete(object) => return self.known.remove(&object.name_any()).is_some(),
        }
        false
    }

    /// The object, or what it was before where it cannot be decoded.
    fn decode(&self, object: DynamicObject) -> Option<(String, KubeVirt)> {
        let name = object.name_any();
        match object.try_parse() {
            Ok(kubevirt) => Some((name, kubevirt)),
            Err(error) => {
                tracing::error!(
                    name,
                    error = crate::chain(&error),
                    "cannot read the KubeVirt object: its change is not in force"
                );
                self.known.get(&name).cloned().map(|kubevirt| (name, kubevirt))
            }
        }
    }

    fn settings(&self) -> Settings {
        let oldest = self.known.values().min_by_key(|kubevirt| (kubevirt.creation_timestamp(), kubevirt.name_any()));
        Settings::of(oldest.cloned().unwrap_or_default())
    }
}

/// Whether the kind itself is not there.
fn is_missing(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code == 404,
        _ => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn object(name: &str, created: &str, spec: Value) -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "kubevirt.io/v1", "kind": "KubeVirt", "spec": spec,
            "metadata": {"name": name, "namespace": "kubevirt", "creationTimestamp": created},
        }))
        .unwrap()
    }

    fn emulated(name: &str, created: &str) -> DynamicObject {
        object(name, created, json!({"configuration": {"developerConfiguration": {"useEmulation": true}}}))
    }

    #[test]
    fn without_an_object_the_defaults_are_in_force() {
        assert_eq!(Objects::default().settings(), Settings::default());
        assert!(!Settings::default().emulation);
    }

    #[test]
    fn a_change_is_taken_and_a_deletion_ends_it() {
        let mut objects = Objects::default();
        assert!(objects.take(Event::Apply(emulated("kubevirt", "2026-01-01T00:00:00Z"))));
        assert!(objects.settings().emulation && objects.settings().cluster.emulation);
        assert!(objects.take(Event::Delete(emulated("kubevirt", "2026-01-01T00:00:00Z"))));
        assert!(!objects.settings().emulation);
    }

    #[test]
    fn what_cannot_be_decoded_changes_nothing() {
        let mut objects = Objects::default();
        objects.take(Event::Apply(emulated("kubevirt", "2026-01-01T00:00:00Z")));
        let broken = object("kubevirt", "2026-01-01T00:00:00Z", json!({"configuration": "none"}));
        objects.take(Event::Apply(broken.clone()));
        assert!(objects.settings().emulation);
        // Nor does it where the watch begins anew.
        for event in [Event::Init, Event::InitApply(broken), Event::InitDone] {
            objects.take(event);
        }
        assert!(objects.settings().emulation);
    }

    #[test]
    fn the_older_of_two_counts() {
        let mut objects = Objects::default();
        objects.take(Event::Apply(object("a", "2026-01-02T00:00:00Z", json!({}))));
        objects.take(Event::Apply(emulated("b", "2026-01-01T00:00:00Z")));
        assert_eq!(objects.settings().kubevirt.name_any(), "b");
    }

    #[test]
    fn a_list_forgets_what_is_gone() {
        let mut objects = Objects::default();
        objects.take(Event::Apply(emulated("kubevirt", "2026-01-01T00:00:00Z")));
        assert!(!objects.take(Event::Init));
        assert!(objects.settings().emulation, "until the list is complete");
        assert!(objects.take(Event::InitDone));
        assert!(!objects.settings().emulation);
    }
}
