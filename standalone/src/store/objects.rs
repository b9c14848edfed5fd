//! The store itself: create, read, modify, delete, and who is told.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::broadcast;
use uuid::Uuid;

use super::disk;
use super::{Key, Kind, Stored};

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is an object of that name already.
    #[error("failed to create {0}: it already exists")]
    Exists(Key),
    /// A name or namespace that no object can have.
    #[error("failed to store {0}: its name and namespace must be DNS subdomains")]
    Name(Key),
    /// The object does not have the shape of its kind.
    #[error("failed to encode {0}")]
    Encode(Key, #[source] serde_json::Error),
    /// The folder cannot be read or written.
    #[error("failed to write {0}")]
    Write(Key, #[source] io::Error),
    /// The folder cannot be read.
    #[error("failed to read the object store `{0}`")]
    Read(PathBuf, #[source] io::Error),
    /// A file of the store is damaged. Nothing is started from half a store: what its VM still runs would be
    /// taken for a leftover.
    #[error("failed to read object file `{0}`: restore it from a backup, or remove it to forget the object")]
    Damaged(PathBuf, #[source] serde_json::Error),
}

/// The store; cloning it is cheap.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    folder: PathBuf,
    state: Mutex<State>,
    changes: broadcast::Sender<Key>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<Key, Arc<Value>>,
    revision: u64,
}

impl Store {
    /// Opens the store in `folder`, which is made where it is missing.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let failed = |error| StoreError::Read(folder.to_owned(), error);
        fs::create_dir_all(folder).map_err(failed)?;
        let mut state = State::default();
        for path in disk::json_files(folder).map_err(failed)? {
            let content = fs::read(&path).map_err(failed)?;
            let value: Value = serde_json::from_slice(&content).map_err(|e| StoreError::Damaged(path.clone(), e))?;
            if let Some(key) = key_of(&value) {
                state.revision = state.revision.max(revision_of(&value));
                state.objects.insert(key, Arc::new(value));
            }
        }
        let (changes, _) = broadcast::channel(4096);
        Ok(Self(Arc::new(Inner { folder: folder.to_owned(), state: Mutex::new(state), changes })))
    }

    /// The keys of objects as they change. A receiver that lags must look at everything again.
    pub fn subscribe(&self) -> broadcast::Receiver<Key> {
        self.0.changes.subscribe()
    }

    /// An object as JSON.
    pub fn get(&self, key: &Key) -> Option<Arc<Value>> {
        self.lock().objects.get(key).cloned()
    }

    /// An object in its type; none where it is not there.
    pub fn read<T: Stored>(&self, namespace: &str, name: &str) -> Option<T> {
        let value = self.get(&Key::new(T::KIND, namespace, name))?;
        serde_json::from_value(Value::clone(&value)).ok()
    }

    /// The objects of a kind, of one namespace or of all, in the order of their names.
    pub fn list(&self, kind: Kind, namespace: Option<&str>) -> Vec<Arc<Value>> {
        let state = self.lock();
        let wanted = |key: &Key| key.kind == kind && namespace.is_none_or(|n| n == key.namespace);
        state.objects.iter().filter(|(key, _)| wanted(key)).map(|(_, value)| Arc::clone(value)).collect()
    }

    /// The keys of a kind.
    pub fn keys(&self, kind: Kind) -> Vec<Key> {
        self.lock().objects.keys().filter(|key| key.kind == kind).cloned().collect()
    }

    /// The revision of the latest change.
    pub fn revision(&self) -> u64 {
        self.lock().revision
    }

    /// Creates an object; `creationTimestamp`, `generation` and `resourceVersion` are the store's, and `uid` where
    /// it has none yet.
    pub fn create<T: Stored>(&self, object: &T) -> Result<T, StoreError> {
        let encode = |error| StoreError::Encode(Key::new(T::KIND, "", "?"), error);
        let mut value = serde_json::to_value(object).map_err(encode)?;
        let meta = &mut value["metadata"];
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let key = Key::new(T::KIND, &text(&meta["namespace"]), &text(&meta["name"]));
        let valid = |name: &str| name.len() <= 253 && name.split('.').all(holdfast_api::names::is_dns_label);
        if !valid(&key.name) || (T::KIND.namespaced() && !valid(&key.namespace)) {
            return Err(StoreError::Name(key));
        }
        let mut state = self.lock();
        if state.objects.contains_key(&key) {
            return Err(StoreError::Exists(key));
        }
        if meta["uid"].is_null() {
            meta["uid"] = json!(Uuid::new_v4());
        }
        meta["creationTimestamp"] = now();
        meta["generation"] = json!(1);
        value["apiVersion"] = json!(T::KIND.api_version());
        value["kind"] = json!(T::KIND.name());
        let stored = self.put(&mut state, &key, value)?;
        serde_json::from_value(Value::clone(&stored)).map_err(|e| StoreError::Encode(key, e))
    }

    /// Changes an object in place, under the store's lock; what `change` leaves is written if it differs.
    /// Returns the object as it is now, or none where it is gone.
    pub fn modify<T: Stored>(
        &self,
        namespace: &str,
        name: &str,
        change: impl FnOnce(&mut T),
    ) -> Result<Option<T>, StoreError> {
        let key = Key::new(T::KIND, namespace, name);
        let encode = |error| StoreError::Encode(key.clone(), error);
        let mut state = self.lock();
        let Some(old) = state.objects.get(&key).cloned() else { return Ok(None) };
        let mut object: T = serde_json::from_value(Value::clone(&old)).map_err(encode)?;
        change(&mut object);
        let mut value = serde_json::to_value(&object).map_err(encode)?;
        keep_identity(&mut value, &old);
        if value == *old {
            return Ok(Some(object));
        }
        let counts = |v: &Value| (v["spec"].clone(), v["data"].clone(), v["stringData"].clone());
        let status_counts = !T::KIND.has_status_subresource() && value["status"] != old["status"];
        let marked = old["metadata"]["deletionTimestamp"].is_null() != value["metadata"]["deletionTimestamp"].is_null();
        if counts(&value) != counts(&old) || status_counts || marked {
            value["metadata"]["generation"] = json!(old["metadata"]["generation"].as_i64().unwrap_or(0) + 1);
        }
        let stored = self.put_or_remove(&mut state, &key, value)?;
        stored.map(|value| serde_json::from_value(Value::clone(&value)).map_err(encode)).transpose()
    }

    /// Deletes an object: at once where nothing holds it, else it is marked, and goes with its last finalizer.
    /// Returns whether it was there.
    pub fn delete(&self, key: &Key) -> Result<bool, StoreError> {
        let mut state = self.lock();
        let Some(old) = state.objects.get(key).cloned() else { return Ok(false) };
        let mut value = Value::clone(&old);
        let meta = &mut value["metadata"];
        if meta["deletionTimestamp"].is_null() {
            meta["deletionTimestamp"] = now();
            meta["deletionGracePeriodSeconds"] = json!(0);
            meta["generation"] = json!(meta["generation"].as_i64().unwrap_or(0) + 1);
            self.put_or_remove(&mut state, key, value)?;
        }
        Ok(true)
    }

    fn put_or_remove(&self, state: &mut State, key: &Key, value: Value) -> Result<Option<Arc<Value>>, StoreError> {
        let meta = &value["metadata"];
        let held = meta["finalizers"].as_array().is_some_and(|f| !f.is_empty());
        if meta["deletionTimestamp"].is_null() || held {
            return self.put(state, key, value).map(Some);
        }
        disk::remove(&self.path(key)).map_err(|e| StoreError::Write(key.clone(), e))?;
        state.objects.remove(key);
        state.revision += 1;
        self.tell(key);
        Ok(None)
    }

    fn put(&self, state: &mut State, key: &Key, mut value: Value) -> Result<Arc<Value>, StoreError> {
        let failed = |error| StoreError::Write(key.clone(), error);
        let revision = state.revision + 1;
        value["metadata"]["resourceVersion"] = json!(revision.to_string());
        let path = self.path(key);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        let content = serde_json::to_vec_pretty(&value).map_err(|e| StoreError::Encode(key.clone(), e))?;
        disk::write_atomically(&path, &content).map_err(failed)?;
        state.revision = revision;
        let value = Arc::new(value);
        state.objects.insert(key.clone(), Arc::clone(&value));
        self.tell(key);
        Ok(value)
    }

    fn tell(&self, key: &Key) {
        // An error means that nobody listens (yet).
        let _ = self.0.changes.send(key.clone());
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.0.folder.join(key.kind.plural()).join(&key.namespace).join(format!("{}.json", key.name))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic in a `change` leaves the state as it was: it is only written by put and put_or_remove.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Key of an object by its own fields; none for what is no object of ours.
fn key_of(value: &Value) -> Option<Key> {
    let kind = Kind::of(value["apiVersion"].as_str()?, value["kind"].as_str()?)?;
    let meta = &value["metadata"];
    Some(Key::new(kind, meta["namespace"].as_str().unwrap_or_default(), meta["name"].as_str()?))
}

fn revision_of(value: &Value) -> u64 {
    value["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn keep_identity(value: &mut Value, old: &Value) {
    for field in ["uid", "name", "namespace", "creationTimestamp", "generation", "resourceVersion"] {
        if let Some(kept) = old["metadata"].get(field) {
            value["metadata"][field] = kept.clone();
        }
    }
}

fn now() -> Value {
    holdfast_api::status::time_value(Timestamp::now())
}

#[cfg(test)]
mod tests {
    use holdfast_api::kubevirt::{VirtualMachine, VirtualMachineInstance};

    use super::*;

    fn vm(name: &str) -> VirtualMachine {
        let mut vm = VirtualMachine::new(name, Default::default());
        vm.metadata.namespace = Some("default".into());
        vm
    }

    #[test]
    fn what_is_stored_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let made = store.create(&vm("a")).unwrap();
        assert!(matches!(store.create(&vm("a")), Err(StoreError::Exists(_))));
        store.modify::<VirtualMachine>("default", "a", |vm| vm.spec.running = Some(true)).unwrap();
        let again = Store::open(folder.path()).unwrap();
        let read: VirtualMachine = again.read("default", "a").unwrap();
        assert_eq!(read.metadata.uid, made.metadata.uid);
        assert_eq!(read.spec.running, Some(true));
        assert_eq!(read.metadata.generation, Some(2));
        assert_eq!(again.revision(), store.revision());
    }

    #[test]
    fn writing_the_same_again_is_no_change() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        store.create(&vm("a")).unwrap();
        let mut changes = store.subscribe();
        store.modify::<VirtualMachine>("default", "a", |_| ()).unwrap();
        assert!(changes.try_recv().is_err());
        let status = |vm: &mut VirtualMachine| vm.status = Some(Default::default());
        let vm = store.modify::<VirtualMachine>("default", "a", status).unwrap().unwrap();
        assert_eq!(vm.metadata.generation, Some(1), "a status is no new generation");
        assert_eq!(changes.try_recv().unwrap().name, "a");
    }

    #[test]
    fn finalizers_hold_an_object_back() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let mut vmi = VirtualMachineInstance::new("a", Default::default());
        vmi.metadata.namespace = Some("default".into());
        vmi.metadata.finalizers = Some(vec!["x".into()]);
        store.create(&vmi).unwrap();
        let key = Key::new(Kind::VirtualMachineInstance, "default", "a");
        assert!(store.delete(&key).unwrap());
        let marked: VirtualMachineInstance = store.read("default", "a").unwrap();
        assert!(marked.metadata.deletion_timestamp.is_some());
        let free = |vmi: &mut VirtualMachineInstance| vmi.metadata.finalizers = None;
        assert!(store.modify("default", "a", free).unwrap().is_none());
        assert!(store.get(&key).is_none());
        assert!(!store.delete(&key).unwrap());
        assert!(Store::open(folder.path()).unwrap().get(&key).is_none());
    }

    #[test]
    fn names_cannot_leave_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        assert!(matches!(store.create(&vm("../x")), Err(StoreError::Name(_))));
    }

    #[test]
    fn a_damaged_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("x.json"), "{").unwrap();
        let Err(error) = Store::open(folder.path()) else { panic!("a damaged store was opened") };
        assert!(error.to_string().contains("x.json"), "{error}");
    }
}
