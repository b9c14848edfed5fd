//! The networks of the cluster: NetworkAttachmentDefinitions and UnderlayNetworks, and the node's labels, which say
//! what of an UnderlayNetwork holds here. In memory, and on disk for while the API server is away.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_api::nad::NetworkAttachmentDefinition;
use holdfast_api::underlay::UnderlayNetwork;
use kube::ResourceExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::disk;
use crate::follow::{Change, Key};

/// A table that is on disk as a whole.
struct Table<T> {
    path: PathBuf,
    rows: BTreeMap<String, T>,
    /// Whether memory and disk differ.
    dirty: bool,
    /// Whether a whole list has been seen since the start.
    listed: bool,
}

impl<T: Serialize + DeserializeOwned + PartialEq> Table<T> {
    fn open(path: PathBuf) -> Self {
        let rows = disk::read(&path).unwrap_or_default();
        Self { path, rows, dirty: false, listed: false }
    }

    fn take<K: ResourceExt>(&mut self, change: Change<K>, value: impl FnOnce(K) -> T) {
        match change {
            Change::Set(object) => {
                let row = row(&(object.namespace().unwrap_or_default(), object.name_any()));
                let value = value(*object);
                if self.rows.get(&row) != Some(&value) {
                    self.rows.insert(row, value);
                    self.dirty = true;
                }
            }
            Change::Gone(key) => self.dirty |= self.rows.remove(&row(&key)).is_some(),
            Change::Only(keys) => {
                let before = self.rows.len();
                let keys: std::collections::BTreeSet<_> = keys.iter().map(row).collect();
                self.rows.retain(|row, _| keys.contains(row));
                self.dirty |= self.rows.len() != before;
                self.listed = true;
            }
        }
        // A list that is under way is written at its end.
        if self.dirty && self.listed {
            match tokio::task::block_in_place(|| disk::write(&self.path, &self.rows)) {
                Ok(()) => self.dirty = false,
                Err(error) => {
                    tracing::error!(error = holdfast_kubernetes::chain(&error), "networks cannot be written down");
                }
            }
        }
    }
}

fn row((namespace, name): &Key) -> String {
    if namespace.is_empty() { name.clone() } else { format!("{namespace}/{name}") }
}

/// The NetworkAttachmentDefinitions: the configuration of each. Cheap to clone.
#[derive(Clone)]
pub struct Definitions(Arc<Mutex<Table<String>>>);

impl Definitions {
    /// Those that the disk knows.
    pub fn open(state: &Path) -> Self {
        Self(Arc::new(Mutex::new(Table::open(state.join("networks/definitions.json")))))
    }

    fn table(&self) -> MutexGuard<'_, Table<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what a watch tells.
    pub fn take(&self, change: Change<NetworkAttachmentDefinition>) {
        self.table().take(change, |nad| nad.spec.config);
    }

    /// The configuration of a network.
    pub fn config(&self, namespace: &str, name: &str) -> Option<String> {
        self.table().rows.get(&row(&(namespace.to_owned(), name.to_owned()))).cloned()
    }
}

/// The UnderlayNetworks, followed by the agent.
pub struct Underlays {
    table: Table<UnderlayNetwork>,
    sender: watch::Sender<Arc<BTreeMap<String, UnderlayNetwork>>>,
}

impl Underlays {
    /// Those that the disk knows, with the receiver that the agent goes by.
    pub fn open(state: &Path) -> (Self, watch::Receiver<Arc<BTreeMap<String, UnderlayNetwork>>>) {
        let table = Table::<UnderlayNetwork>::open(state.join("networks/underlays.json"));
        let (sender, receiver) = watch::channel(Arc::new(table.rows.clone()));
        (Self { table, sender }, receiver)
    }

    /// Takes what a watch tells. How much of an address pool is in use is nobody's business here.
    pub fn take(&mut self, change: Change<UnderlayNetwork>) {
        self.table.take(change, |mut network| {
            network.status = None;
            network.metadata.resource_version = None;
            network.metadata.managed_fields = None;
            network
        });
        self.sender.send_if_modified(|known| {
            let changed = **known != self.table.rows;
            if changed {
                *known = Arc::new(self.table.rows.clone());
            }
            changed
        });
    }
}

/// The node's labels as the disk has them.
pub fn read_labels(state: &Path) -> BTreeMap<String, String> {
    disk::read(&labels_path(state)).unwrap_or_default()
}

/// Writes the node's labels down.
pub fn write_labels(state: &Path, labels: &BTreeMap<String, String>) {
    if let Err(error) = tokio::task::block_in_place(|| disk::write(&labels_path(state), labels)) {
        tracing::error!(error = holdfast_kubernetes::chain(&error), "the node's labels cannot be written down");
    }
}

fn labels_path(state: &Path) -> PathBuf {
    state.join("networks/node-labels.json")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use holdfast_api::nad::NetworkAttachmentDefinitionSpec;

    use super::*;

    fn nad(name: &str, config: &str) -> Change<NetworkAttachmentDefinition> {
        let spec = NetworkAttachmentDefinitionSpec { config: config.to_owned() };
        let mut nad = NetworkAttachmentDefinition::new(name, spec);
        nad.metadata.namespace = Some("lab".to_owned());
        Change::Set(Box::new(nad))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn definitions_outlive_the_process_once_they_are_whole() {
        let state = tempfile::tempdir().unwrap();
        let definitions = Definitions::open(state.path());
        definitions.take(nad("a", "{}"));
        definitions.take(nad("b", "[]"));
        assert_eq!(definitions.config("lab", "a").as_deref(), Some("{}"));
        assert_eq!(Definitions::open(state.path()).config("lab", "a"), None, "half a list replaces nothing");
        definitions.take(Change::Only([("lab".to_owned(), "a".to_owned())].into()));
        let again = Definitions::open(state.path());
        assert_eq!((again.config("lab", "a").as_deref(), again.config("lab", "b")), (Some("{}"), None));
        definitions.take(Change::Gone(("lab".to_owned(), "a".to_owned())));
        assert_eq!(Definitions::open(state.path()).config("lab", "a"), None);
    }
}
