//! The VMIs that run here, for the verbs and streams that virt-api asks for.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_agent::vmi::VmiTask;
use k8s_openapi::api::core::v1::ObjectReference;

use crate::follow::Key;

/// A VMI that runs here.
#[derive(Clone)]
pub struct Entry {
    /// The VMI, for events about it.
    pub about: ObjectReference,
    /// Its UID.
    pub uid: String,
    /// Its task.
    pub task: Arc<VmiTask>,
    /// What its launcher sees as /var/run/kubevirt-private.
    pub private: PathBuf,
}

/// All of them. Cheap to clone.
#[derive(Clone, Default)]
pub struct Running(Arc<Mutex<BTreeMap<Key, Entry>>>);

/// A VMI's entry, until this is dropped.
pub struct Entered {
    running: Running,
    key: Key,
    uid: String,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut rows = self.running.rows();
        // A younger one of that name may have taken its place.
        if rows.get(&self.key).is_some_and(|entry| entry.uid == self.uid) {
            rows.remove(&self.key);
        }
    }
}

impl Running {
    fn rows(&self) -> MutexGuard<'_, BTreeMap<Key, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The VMI of that name.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Entry> {
        self.rows().get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// Enters a VMI.
    pub fn enter(&self, namespace: &str, name: &str, entry: Entry) -> Entered {
        let key = (namespace.to_owned(), name.to_owned());
        let uid = entry.uid.clone();
        self.rows().insert(key.clone(), entry);
        Entered { running: self.clone(), key, uid }
    }
}
