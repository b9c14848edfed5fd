//! Events (core/v1) about objects: aggregated, bounded, readable like a cluster's.
//!
//! One file per object that events are about. An event that repeats (same type, reason and message) counts up.
//! Kept are the last hour and at most [`PER_OBJECT`] per object; events tell people what happened and no
//! decision rests on them, so they are renamed into place but not synced.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_api::status::whole_seconds;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::disk;

/// How long an event is kept after it was last seen.
const KEPT: SignedDuration = SignedDuration::from_hours(1);
/// Most events that are kept about one object.
const PER_OBJECT: usize = 100;

/// Whether an event tells of the ordinary course of things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// As it should be.
    Normal,
    /// Somebody may want to look.
    Warning,
}

impl EventKind {
    const fn text(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// The object that an event is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Involved {
    /// Its `apiVersion`.
    pub api_version: String,
    /// Its `kind`.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its resourceVersion when the event happened.
    pub resource_version: String,
}

impl Involved {
    /// An object of ours by its metadata.
    pub fn object<T: super::Stored>(meta: &ObjectMeta) -> Self {
        Self {
            api_version: T::KIND.api_version(),
            kind: T::KIND.name().to_owned(),
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            resource_version: meta.resource_version.clone().unwrap_or_default(),
        }
    }
}

/// Where events are kept; cloning it is cheap.
#[derive(Clone)]
pub struct Events {
    folder: Arc<PathBuf>,
    node: Arc<str>,
    state: Arc<Mutex<BTreeMap<String, Vec<Event>>>>,
}

impl Events {
    /// Opens the folder, which is made where it is missing. A damaged file is dropped: see above.
    pub fn open(folder: &Path, node: &str) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
        let mut state = BTreeMap::new();
        for path in disk::json_files(folder)? {
            let events: Option<Vec<Event>> = serde_json::from_slice(&fs::read(&path)?).ok();
            match (path.file_stem().and_then(|s| s.to_str()), events) {
                (Some(about), Some(events)) => drop(state.insert(about.to_owned(), events)),
                _ => fs::remove_file(&path)?,
            }
        }
        Ok(Self { folder: Arc::new(folder.to_owned()), node: node.into(), state: Arc::new(Mutex::new(state)) })
    }

    /// Records that something happened to an object. `component` is who says so (`virt-handler`).
    pub fn record(&self, about: &Involved, kind: EventKind, component: &str, reason: &str, message: &str) {
        self.record_at(about, kind, component, reason, message, Timestamp::now());
    }

    fn record_at(
        &self,
        about: &Involved,
        kind: EventKind,
        component: &str,
        reason: &str,
        message: &str,
        at: Timestamp,
    ) {
        let file = format!("{}.{}.{}", about.namespace, about.kind, about.name);
        let mut state = self.lock();
        let events = state.entry(file.clone()).or_default();
        forget_old(events, at);
        let same = |event: &&mut Event| {
            event.involved_object.uid.as_deref() == Some(&about.uid)
                && event.type_.as_deref() == Some(kind.text())
                && event.reason.as_deref() == Some(reason)
                && event.message.as_deref() == Some(message)
        };
        if let Some(event) = events.iter_mut().find(same) {
            event.count = Some(event.count.unwrap_or(1).saturating_add(1));
            event.last_timestamp = Some(whole_seconds(at));
        } else {
            events.push(self.event(about, kind, component, reason, message, at));
            let surplus = events.len().saturating_sub(PER_OBJECT);
            events.drain(..surplus);
        }
        let written = serde_json::to_vec(events).map_err(io::Error::from).and_then(|content| {
            let path = self.folder.join(format!("{file}.json"));
            let temporary = path.with_extension("json.tmp");
            let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary);
            file?.write_all(&content)?;
            fs::rename(temporary, path)
        });
        if let Err(error) = written {
            tracing::warn!(%error, reason, message, "failed to write an event");
        }
    }

    fn event(
        &self,
        about: &Involved,
        kind: EventKind,
        component: &str,
        reason: &str,
        message: &str,
        at: Timestamp,
    ) -> Event {
        let id = Uuid::new_v4();
        let time = whole_seconds(at);
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{}.{}", about.name, &id.simple().to_string()[..16])),
                namespace: Some(if about.namespace.is_empty() { "default".into() } else { about.namespace.clone() }),
                uid: Some(id.to_string()),
                creation_timestamp: Some(time.clone()),
                ..Default::default()
            },
            involved_object: ObjectReference {
                api_version: Some(about.api_version.clone()),
                kind: Some(about.kind.clone()),
                namespace: Some(about.namespace.clone()).filter(|n| !n.is_empty()),
                name: Some(about.name.clone()),
                uid: Some(about.uid.clone()),
                resource_version: Some(about.resource_version.clone()).filter(|v| !v.is_empty()),
                ..Default::default()
            },
            type_: Some(kind.text().to_owned()),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            count: Some(1),
            first_timestamp: Some(time.clone()),
            last_timestamp: Some(time),
            source: Some(EventSource {
                component: Some(component.to_owned()),
                host: (component == "virt-handler").then(|| self.node.to_string()),
            }),
            reporting_component: Some(component.to_owned()),
            ..Default::default()
        }
    }

    /// The events of a namespace or of all, oldest first.
    pub fn list(&self, namespace: Option<&str>) -> Vec<Event> {
        let mut state = self.lock();
        let now = Timestamp::now();
        state.values_mut().for_each(|events| forget_old(events, now));
        let wanted = |e: &&Event| namespace.is_none_or(|n| e.metadata.namespace.as_deref() == Some(n));
        let mut found: Vec<Event> = state.values().flatten().filter(wanted).cloned().collect();
        found.sort_by_key(|event| event.last_timestamp.as_ref().map(|time| time.0));
        found
    }

    /// Removes what is older than the bound, with the files that nothing is left of. To be called now and then.
    pub fn sweep(&self) {
        let mut state = self.lock();
        let now = Timestamp::now();
        state.retain(|file, events| {
            forget_old(events, now);
            if events.is_empty() {
                // What cannot be removed now is found again at the next start.
                let _ = fs::remove_file(self.folder.join(format!("{file}.json")));
            }
            !events.is_empty()
        });
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Vec<Event>>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn forget_old(events: &mut Vec<Event>, now: Timestamp) {
    events.retain(|event| event.last_timestamp.as_ref().is_some_and(|time| now.duration_since(time.0) < KEPT));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(name: &str) -> Involved {
        Involved { kind: "VirtualMachine".into(), namespace: "default".into(), name: name.into(), ..Default::default() }
    }

    #[test]
    fn repeats_are_counted_and_survive_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let events = Events::open(folder.path(), "host").unwrap();
        for message in ["a", "a", "b"] {
            events.record(&about("vm"), EventKind::Warning, "virt-handler", "Why", message);
        }
        let listed = Events::open(folder.path(), "host").unwrap().list(Some("default"));
        let counts: Vec<_> = listed.iter().map(|e| (e.message.as_deref().unwrap(), e.count.unwrap())).collect();
        assert_eq!(counts, [("a", 2), ("b", 1)]);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let file = folder.path().join("default.VirtualMachine.vm.json");
        assert_eq!((mode(folder.path()), mode(&file)), (0o700, 0o600));
        assert_eq!(listed[0].source.as_ref().unwrap().host.as_deref(), Some("host"));
        assert!(events.list(Some("other")).is_empty());
    }

    #[test]
    fn events_are_bounded_in_number_and_age() {
        let folder = tempfile::tempdir().unwrap();
        let events = Events::open(folder.path(), "host").unwrap();
        let old = Timestamp::now() - SignedDuration::from_hours(2);
        events.record_at(&about("old"), EventKind::Normal, "c", "R", "m", old);
        assert!(events.list(None).is_empty());
        events.sweep();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        for n in 0..PER_OBJECT + 5 {
            events.record(&about("vm"), EventKind::Normal, "c", "R", &n.to_string());
        }
        let listed = events.list(None);
        assert_eq!(listed.len(), PER_OBJECT);
        assert!(listed.iter().all(|e| e.message.as_deref() != Some("4")));
    }
}
