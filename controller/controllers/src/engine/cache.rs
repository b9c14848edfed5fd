//! Objects as they were seen last, by a watch or in the answer to a write of ours.
//!
//! A watch lags behind: a decision taken from it alone would repeat what was just done. So what the API server answers
//! to a write is put in as well, and the higher resourceVersion counts (they are numbers that only grow, which
//! Kubernetes promises from 1.35 on, and etcd always gave). What a write put in counts for a while only, unless a watch
//! confirms it: an object that was deleted before its creation was answered would else stay for ever.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use super::Key;

/// For how long the answer to a write counts without a watch that confirms it.
const UNCONFIRMED: Duration = Duration::from_secs(30);

/// What a cache keeps of an object.
pub trait Cached: Send + Sync + Sized + 'static {
    /// Reads it.
    ///
    /// # Errors
    /// Where the object cannot be decoded.
    fn read(object: Value) -> Result<Self, serde_json::Error>;
}

#[derive(Debug)]
struct Entry<T> {
    version: u64,
    object: Arc<T>,
    /// Since when it waits for a watch to confirm it.
    unconfirmed: Option<Instant>,
}

#[derive(Debug)]
struct Inner<T> {
    entries: HashMap<Key, Entry<T>>,
    /// Versions of deletions, for answers that come after them.
    deleted: HashMap<Key, (u64, Instant)>,
    /// What a list that is not complete yet has.
    listed: Option<HashMap<Key, Entry<T>>>,
}

/// A cache of one kind. Cloning it is cheap.
#[derive(Debug)]
pub struct Cache<T>(Arc<Mutex<Inner<T>>>);

impl<T> Clone for Cache<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Inner { entries: HashMap::new(), deleted: HashMap::new(), listed: None })))
    }
}

impl<T> Cache<T> {
    fn inner(&self) -> MutexGuard<'_, Inner<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The object, if there is one.
    pub fn get(&self, key: &Key) -> Option<Arc<T>> {
        let mut inner = self.inner();
        let stale = |entry: &Entry<T>| entry.unconfirmed.is_some_and(|since| since.elapsed() > UNCONFIRMED);
        if inner.entries.get(key).is_some_and(stale) {
            inner.entries.remove(key);
        }
        inner.entries.get(key).map(|entry| entry.object.clone())
    }

    /// All objects that `wanted` holds for.
    pub fn select(&self, wanted: impl Fn(&Key, &T) -> bool) -> Vec<Arc<T>> {
        let inner = self.inner();
        inner.entries.iter().filter(|(key, e)| wanted(key, &e.object)).map(|(_, e)| e.object.clone()).collect()
    }

    /// The keys of all objects.
    pub fn keys(&self) -> Vec<Key> {
        self.inner().entries.keys().cloned().collect()
    }

    /// Puts in what the API server answered to a write.
    pub fn wrote(&self, meta: &ObjectMeta, object: T) {
        let (key, version) = (Key::of(meta), version(meta));
        if meta.deletion_timestamp.is_some() && meta.finalizers.as_deref().is_none_or(<[String]>::is_empty) {
            // The last finalizer went with this write.
            return self.removed(&key, version);
        }
        let mut inner = self.inner();
        if inner.deleted.get(&key).is_none_or(|(deleted, _)| *deleted < version) {
            let entry = Entry { version, object: Arc::new(object), unconfirmed: Some(Instant::now()) };
            put(&mut inner.entries, key, entry);
        }
    }

    /// Forgets an object that the API server does not have any more.
    pub fn forget(&self, key: &Key) {
        self.inner().entries.remove(key);
    }

    /// Forgets an object that is gone as of a version.
    fn removed(&self, key: &Key, version: u64) {
        let mut inner = self.inner();
        if inner.entries.get(key).is_some_and(|entry| entry.version <= version) {
            inner.entries.remove(key);
        }
        let now = Instant::now();
        inner.deleted.retain(|_, (_, since)| now.duration_since(*since) < UNCONFIRMED);
        inner.deleted.insert(key.clone(), (version, now));
    }

    /// Puts in what a watch saw; while a list is under way, what the list has.
    pub(super) fn saw(&self, meta: &ObjectMeta, object: T, of_list: bool) {
        let entry = Entry { version: version(meta), object: Arc::new(object), unconfirmed: None };
        let mut inner = self.inner();
        let entries = match &mut inner.listed {
            Some(listed) if of_list => listed,
            _ => &mut inner.entries,
        };
        put(entries, Key::of(meta), entry);
    }

    /// A watch saw the object go.
    pub(super) fn saw_deletion(&self, meta: &ObjectMeta) {
        self.removed(&Key::of(meta), version(meta));
    }

    /// A list begins.
    pub(super) fn list_begins(&self) {
        self.inner().listed = Some(HashMap::new());
    }

    /// A list is complete: what it does not have is gone, unless we have written it just now.
    pub(super) fn list_ends(&self) {
        let mut inner = self.inner();
        let Some(listed) = inner.listed.take() else { return };
        let before = std::mem::replace(&mut inner.entries, listed);
        for (key, entry) in before {
            if entry.unconfirmed.is_some() {
                put(&mut inner.entries, key, entry);
            }
        }
    }
}

fn put<T>(entries: &mut HashMap<Key, Entry<T>>, key: Key, entry: Entry<T>) {
    match entries.get_mut(&key) {
        Some(present) if present.version > entry.version => {}
        Some(present) if present.version == entry.version => present.unconfirmed = None,
        _ => {
            entries.insert(key, entry);
        }
    }
}

fn version(meta: &ObjectMeta) -> u64 {
    meta.resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(version: u64) -> ObjectMeta {
        ObjectMeta { name: Some("a".into()), resource_version: Some(version.to_string()), ..ObjectMeta::default() }
    }

    fn value(cache: &Cache<u64>) -> Option<u64> {
        cache.get(&Key::new("", "a")).map(|value| *value)
    }

    #[test]
    fn a_watch_that_lags_behind_changes_nothing() {
        let cache = Cache::default();
        cache.wrote(&meta(5), 5);
        cache.saw(&meta(4), 4, false);
        assert_eq!(value(&cache), Some(5));
        cache.saw(&meta(6), 6, false);
        assert_eq!(value(&cache), Some(6));
    }

    #[test]
    fn what_is_gone_does_not_come_back_by_a_late_answer() {
        let cache = Cache::default();
        cache.saw(&meta(5), 5, false);
        cache.saw_deletion(&meta(8));
        cache.wrote(&meta(7), 7);
        assert_eq!(value(&cache), None);
        cache.wrote(&meta(9), 9);
        assert_eq!(value(&cache), Some(9), "it was created anew");
        cache.saw_deletion(&meta(8));
        assert_eq!(value(&cache), Some(9), "the watch tells of the old one");
    }

    #[test]
    fn a_write_that_lets_go_of_the_last_finalizer_is_an_end() {
        let cache = Cache::default();
        cache.saw(&meta(5), 5, false);
        let mut last = meta(6);
        last.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH));
        cache.wrote(&last, 6);
        assert_eq!(value(&cache), None);
    }

    #[test]
    fn a_list_replaces_all_but_what_was_just_written() {
        let cache = Cache::default();
        cache.saw(&meta(1), 1, false);
        cache.list_begins();
        assert_eq!(value(&cache), Some(1), "until the list is complete, the old one counts");
        cache.list_ends();
        assert_eq!(value(&cache), None);
        cache.wrote(&meta(3), 3);
        cache.list_begins();
        cache.list_ends();
        assert_eq!(value(&cache), Some(3));
        cache.list_begins();
        cache.saw(&meta(3), 3, true);
        cache.list_ends();
        cache.list_begins();
        cache.list_ends();
        assert_eq!(value(&cache), None, "it was confirmed, and then it went");
    }
}
