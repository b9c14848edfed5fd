//! Making the store agree with the folder, as `kubectl apply` and a garbage collector would.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use holdfast_api::config::ClusterConfig;
use holdfast_api::decode::{Document, Object};
use holdfast_api::kubevirt::{
    VirtualMachine, VirtualMachineInstance, VirtualMachineInstanceCondition, VirtualMachineInstanceStatus,
};
use holdfast_api::status::{self, Condition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::admit::Manifested;
use super::{APPLIED_ANNOTATION, DEFAULT_NAMESPACE, ERROR_ANNOTATION, INVALID, MANIFEST_ANNOTATION, Scan};
use crate::host::chain;
use crate::store::{EventKind, Events, Involved, Key, Kind, Store, StoreError};

/// How long a document must have been missing before its object is deleted: editors that replace a file leave a
/// moment without it.
const MISSING: Duration = Duration::from_secs(1);
/// Who events about manifests come from.
const COMPONENT: &str = "holdfastd";

/// What is wrong with files, by file: shown with every list.
#[derive(Clone, Debug, Default)]
pub struct FileErrors(Arc<Mutex<BTreeMap<String, BTreeSet<String>>>>);

impl FileErrors {
    /// `file: what is wrong`, in order.
    pub fn lines(&self) -> Vec<String> {
        let errors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        errors.iter().flat_map(|(file, texts)| texts.iter().map(move |text| format!("{file}: {text}"))).collect()
    }

    /// The file with an object's document that was refused, and why it was.
    pub fn of(&self, key: &Key) -> Option<(String, String)> {
        let errors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let start = about(key, "");
        let found = |(file, texts): (&String, &BTreeSet<String>)| {
            let text = texts.iter().find_map(|text| text.strip_prefix(&start))?;
            Some((file.clone(), text.to_owned()))
        };
        errors.iter().find_map(found)
    }

    /// Keeps what is wrong with a file until the next scan is applied.
    pub fn add(&self, file: &str, text: &str) {
        let mut errors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if errors.entry(file.to_owned()).or_default().insert(text.to_owned()) {
            tracing::warn!(file, "{text}");
        }
    }

    fn replace(&self, new: BTreeMap<String, BTreeSet<String>>) {
        for (file, text) in new.iter().flat_map(|(file, texts)| texts.iter().map(move |text| (file, text))) {
            self.add(file, text);
        }
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = new;
    }
}

/// What is wrong with an object's document, if anything is.
pub fn manifest_error(meta: &ObjectMeta) -> Option<&str> {
    meta.annotations.as_ref()?.get(ERROR_ANNOTATION).map(String::as_str)
}

/// Whether an object only stands for a document that was never right, so that its error has a place.
pub fn is_placeholder(meta: &ObjectMeta) -> bool {
    let has = |name: &str| meta.annotations.as_ref().is_some_and(|a| a.contains_key(name));
    has(ERROR_ANNOTATION) && !has(APPLIED_ANNOTATION)
}

/// Applies scans of the folder, one after the other.
pub struct Applier {
    store: Store,
    events: Events,
    config: ClusterConfig,
    errors: FileErrors,
    /// Objects whose documents are missing, and since when.
    missing: BTreeMap<Key, Instant>,
}

impl Applier {
    /// An applier that has seen nothing yet.
    pub fn new(store: Store, events: Events, config: ClusterConfig, errors: FileErrors) -> Self {
        Self { store, events, config, errors, missing: BTreeMap::new() }
    }

    /// Applies a scan. Returns when to look again for what is missing, if anything is.
    pub fn apply(&mut self, scan: &Scan, now: Instant) -> Option<Duration> {
        let mut errors: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (file, text) in &scan.unclear {
            errors.entry(file.clone()).or_default().insert(text.clone());
        }
        let mut places: BTreeMap<Key, Vec<&(String, Document)>> = BTreeMap::new();
        for found in &scan.documents {
            match key_of(&found.1) {
                Some(key) => places.entry(key).or_default().push(found),
                None => {
                    let text = found.1.object.as_ref().err().map_or("it has no name".into(), ToString::to_string);
                    errors.entry(found.0.clone()).or_default().insert(text);
                }
            }
        }
        // What VMs refer to comes first, so that they find it.
        let mut keys: Vec<&Key> = places.keys().collect();
        keys.sort_by_key(|key| matches!(key.kind, Kind::VirtualMachine | Kind::VirtualMachineInstance));
        for key in keys {
            let found = &places[key];
            let file = &found[0].0;
            let result = match (found.as_slice(), &found[0].1.object) {
                ([_], Ok(object)) => self.apply_object(key, object.clone(), file),
                ([_], Err(error)) => Err(error.to_string()),
                (several, _) => {
                    let files: BTreeSet<&str> = several.iter().map(|(file, _)| file.as_str()).collect();
                    let files: Vec<&str> = files.into_iter().collect();
                    Err(format!("{key} is given {} times (in {}): keep one", several.len(), files.join(" and ")))
                }
            };
            if let Err(text) = result {
                self.keep_error(key, file, &text);
                let text = about(key, &text);
                // At once: what refers to it comes after it, and asks.
                self.errors.add(file, &text);
                errors.entry(file.clone()).or_default().insert(text);
            }
        }
        self.errors.replace(errors);
        let present: BTreeSet<&Key> = places.keys().collect();
        self.delete_missing(&present, &scan.unclear, now)
    }

    fn apply_object(&self, key: &Key, object: Object, file: &str) -> Result<(), String> {
        match object {
            Object::VirtualMachine(object) => self.upsert(key, *object, file),
            Object::VirtualMachineInstance(object) => self.upsert(key, *object, file),
            Object::NetworkAttachmentDefinition(object) => self.upsert(key, *object, file),
            Object::UnderlayNetwork(object) => self.upsert(key, *object, file),
            Object::ConfigMap(object) => self.upsert(key, *object, file),
            Object::Secret(object) => self.upsert(key, *object, file),
        }
    }

    fn upsert<T: Manifested>(&self, key: &Key, mut wanted: T, file: &str) -> Result<(), String> {
        wanted.forget_status();
        let digest = digest_of(&wanted);
        let existing: Option<T> = self.store.read(&key.namespace, &key.name);
        let annotation = |name: &str| {
            existing.as_ref().and_then(|object| object.meta().annotations.as_ref()?.get(name).map(String::as_str))
        };
        if annotation(APPLIED_ANNOTATION) == Some(digest.as_str())
            && annotation(MANIFEST_ANNOTATION) == Some(file)
            && annotation(ERROR_ANNOTATION).is_none()
        {
            return Ok(());
        }
        let uid = existing.as_ref().and_then(|object| object.meta().uid.as_deref()?.parse().ok());
        let uid = uid.unwrap_or_else(Uuid::new_v4);
        let written = wanted.meta_mut();
        let meta = ObjectMeta {
            name: Some(key.name.clone()),
            namespace: Some(key.namespace.clone()).filter(|n| !n.is_empty()),
            uid: Some(uid.to_string()),
            labels: written.labels.take(),
            annotations: written.annotations.take(),
            ..Default::default()
        };
        *written = meta;
        let warnings = wanted.admit(uid, &self.config)?;
        let annotations = wanted.meta_mut().annotations.get_or_insert_default();
        annotations.insert(APPLIED_ANNOTATION.to_owned(), digest);
        annotations.insert(MANIFEST_ANNOTATION.to_owned(), file.to_owned());
        let stored = match existing {
            None => self.store.create(&wanted).map(Some).map_err(|error| chain(&error))?,
            Some(existing) if existing.meta().deletion_timestamp.is_some() => {
                return Err("the object of that name is still being deleted; this one follows it".to_owned());
            }
            Some(_) => self.replace(key, wanted)?,
        };
        if let Some(stored) = stored {
            for warning in warnings {
                let about = Involved::object::<T>(stored.meta());
                self.events.record(&about, EventKind::Warning, COMPONENT, "FieldWithoutEffect", &warning);
            }
        }
        Ok(())
    }

    fn replace<T: Manifested>(&self, key: &Key, wanted: T) -> Result<Option<T>, String> {
        let mut refused = Ok(());
        let change = |object: &mut T| {
            let meta = wanted.meta().clone();
            let before = object.clone();
            refused = object.take(wanted);
            if refused.is_ok() {
                let kept = object.meta_mut();
                (kept.labels, kept.annotations) = (meta.labels, meta.annotations);
            } else {
                *object = before;
            }
        };
        let stored = self.store.modify(&key.namespace, &key.name, change).map_err(|error| chain(&error))?;
        refused.map(|()| stored)
    }

    /// Writes what is wrong onto the object; one that is not there yet is made to hold it, where people look for it.
    fn keep_error(&self, key: &Key, file: &str, text: &str) {
        let kept = match key.kind {
            Kind::VirtualMachine => self.keep_error_on::<VirtualMachine>(key, file, text, |vm| {
                vm.spec.run_strategy = Some("Halted".to_owned());
            }),
            Kind::VirtualMachineInstance => self.keep_error_on::<VirtualMachineInstance>(key, file, text, |vmi| {
                let mut status = VirtualMachineInstanceStatus::default();
                let now = Timestamp::now();
                status::set_phase(&mut status, "Pending", now);
                let wrong = VirtualMachineInstanceCondition::new("Synchronized", "False", INVALID, text);
                status::set(&mut status.conditions, wrong, now);
                vmi.status = Some(status);
            }),
            // Whoever needs one of these says that it is missing; the error is with the file.
            Kind::NetworkAttachmentDefinition | Kind::UnderlayNetwork | Kind::ConfigMap | Kind::Secret => Ok(()),
        };
        if let Err(error) = kept {
            tracing::warn!(object = %key, error = chain(&error), "failed to keep what is wrong with a manifest");
        }
    }

    fn keep_error_on<T: Manifested + Default>(
        &self,
        key: &Key,
        file: &str,
        text: &str,
        fill: impl FnOnce(&mut T),
    ) -> Result<(), StoreError> {
        let mut new = false;
        let annotate = |object: &mut T| {
            let annotations = object.meta_mut().annotations.get_or_insert_default();
            new = annotations.insert(ERROR_ANNOTATION.to_owned(), text.to_owned()).as_deref() != Some(text);
        };
        let mut stored = self.store.modify(&key.namespace, &key.name, annotate)?;
        if stored.is_none() {
            let mut object = T::default();
            fill(&mut object);
            let meta = object.meta_mut();
            (meta.namespace, meta.name) = (Some(key.namespace.clone()), Some(key.name.clone()));
            let annotations = [(ERROR_ANNOTATION, text), (MANIFEST_ANNOTATION, file)];
            meta.annotations = Some(annotations.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
            stored = Some(self.store.create(&object)?);
            new = true;
        }
        if let (true, Some(object)) = (new, stored) {
            let about = Involved::object::<T>(object.meta());
            self.events.record(&about, EventKind::Warning, COMPONENT, INVALID, text);
        }
        Ok(())
    }

    fn delete_missing(
        &mut self,
        present: &BTreeSet<&Key>,
        unclear: &BTreeMap<String, String>,
        now: Instant,
    ) -> Option<Duration> {
        let mut missing = BTreeMap::new();
        for key in Kind::ALL.into_iter().flat_map(|kind| self.store.keys(kind)) {
            let Some(value) = self.store.get(&key) else { continue };
            let meta = &value["metadata"];
            let file = meta["annotations"][MANIFEST_ANNOTATION].as_str();
            let Some(file) = file.filter(|_| meta["deletionTimestamp"].is_null()) else { continue };
            if present.contains(&key) || unclear.contains_key(file) {
                continue;
            }
            let since = self.missing.get(&key).copied().unwrap_or(now);
            if now.duration_since(since) < MISSING {
                missing.insert(key, since);
            } else if let Err(error) = self.store.delete(&key) {
                tracing::warn!(object = %key, error = chain(&error), "failed to delete an object without a manifest");
                missing.insert(key, since);
            } else {
                tracing::info!(object = %key, file, "deleted: its manifest is gone");
            }
        }
        self.missing = missing;
        (!self.missing.is_empty()).then_some(MISSING)
    }
}

/// An error of an object's document, as it is kept with its file.
fn about(key: &Key, text: &str) -> String {
    format!("{key}: {text}")
}

/// Key of a document's object; none where it does not say what it is, or is of no kind that we keep.
fn key_of(document: &Document) -> Option<Key> {
    let identity = document.identity.as_ref()?;
    let kind = Kind::of(&identity.api_version, &identity.kind)?;
    if identity.name.is_empty() {
        return None;
    }
    Some(Key::new(kind, identity.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE), &identity.name))
}

/// Digest of an object as its author wrote it. Comments and order of fields do not count.
fn digest_of<T: Manifested>(object: &T) -> String {
    let value = serde_json::to_value(object).unwrap_or(Value::Null);
    hex::encode(Sha256::digest(value.to_string()))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
