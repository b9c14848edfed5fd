//! The attachments of this node: what is written down, what is being worked on, what is being removed.
//!
//! Invariants: at most one operation works on a key at a time; a key whose removal is not done is not taken by
//! an ADD; memory and disk hold the same records.

mod cleaner;
mod notes;
mod record;
mod resync;
mod scope;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holdfast_api::lease::Claim;
use holdfast_ipam::disk::here;
use holdfast_net::model::{AttachmentId, Backend, IfName};
use serde::Serialize;
use tokio::sync::{Notify, mpsc};

pub(crate) use cleaner::clean;
pub use cleaner::{Lease, Removal};
pub(crate) use notes::NoteError;
pub use record::{Chained, DiskError, Folder, Key, Record};
pub(crate) use resync::{drop_dead, resync_forever};

/// How long an operation waits for another on the same key. Less than the plugin waits for an answer.
const PATIENCE: Duration = Duration::from_secs(45);

/// How many of the attachments that came or went last are kept in mind.
const MOST_TOUCHED: usize = 256;

/// The attachments of this node.
#[derive(Clone, Debug)]
pub struct Registry {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    folder: Folder,
    state: Mutex<State>,
    /// Told of each key that becomes free and each removal that is done.
    freed: Notify,
    removals: mpsc::UnboundedSender<Removal>,
}

#[derive(Debug, Default)]
struct State {
    entries: BTreeMap<Key, Entry>,
    busy: BTreeSet<Work>,
    /// Attachments that held keys stand for.
    held: BTreeSet<AttachmentId>,
    /// Asked to be removed, not yet done.
    doomed: BTreeSet<AttachmentId>,
    /// How often an attachment has come or gone, and which the last ones were.
    version: u64,
    touched: VecDeque<Key>,
}

impl State {
    fn touch(&mut self, key: Key) {
        self.version += 1;
        self.touched.truncate(MOST_TOUCHED - 1);
        self.touched.push_front(key);
    }

    /// Whether nobody works on an attachment.
    fn rests(&self, entry: &Entry) -> bool {
        !self.busy.contains(&Work::Key(entry.record.key.clone()))
    }
}

/// A record and what became of it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// What is on disk.
    pub record: Record,
    /// Whether the runtime has been told of its ADD. Unknown, and so false, after a restart.
    pub answered: bool,
    /// Whether its leases are known to say where they are in use. Unknown, and so false, after a restart.
    pub bound: bool,
    /// What the last comparison with the kernel did or said.
    pub last: Outcome,
}

impl Entry {
    fn new(record: Record) -> Self {
        Self { record, answered: false, bound: false, last: Outcome::Unknown }
    }
}

/// What the last comparison of an attachment with the kernel came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// None since the start.
    #[default]
    Unknown,
    /// It is as it shall be.
    Converged,
    /// It was not, and these operations made it so.
    Repaired(Vec<String>),
    /// It is not: why.
    Failed(String),
}

/// What only one operation at a time works on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Work {
    /// A key.
    Key(Key),
    /// The leases of a claim, by its id: taken by ADD, given back behind DEL.
    Claim(String),
}

impl std::fmt::Display for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Key(key) => write!(f, "attachment `{key}`"),
            Self::Claim(id) => write!(f, "claim `{id}`"),
        }
    }
}

/// The right to work on something, until it is dropped.
#[derive(Debug)]
pub struct Hold {
    registry: Registry,
    work: Work,
    id: Option<AttachmentId>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        {
            let mut state = self.registry.state();
            state.busy.remove(&self.work);
            if let Some(id) = &self.id {
                state.held.remove(id);
            }
        }
        self.registry.inner.freed.notify_waiters();
    }
}

/// Another operation on the same thing does not end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("another operation on {0} has not ended")]
pub struct Busy(String);

impl Registry {
    /// A registry of what is in `folder`; what is to be removed goes to `removals`.
    pub fn new(folder: Folder, records: Vec<Record>, removals: mpsc::UnboundedSender<Removal>) -> Self {
        let entry = |record: Record| (record.key.clone(), Entry::new(record));
        let state = State { entries: records.into_iter().map(entry).collect(), ..State::default() };
        Self { inner: Arc::new(Inner { folder, state: Mutex::new(state), freed: Notify::new(), removals }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each critical section leaves the state whole, so a panic elsewhere does not spoil it.
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the right to work on `key`, whose devices are those of `id`, and until none of them is being
    /// removed.
    ///
    /// # Errors
    /// [`Busy`] when that takes too long.
    pub async fn hold(&self, key: &Key, id: &AttachmentId) -> Result<Hold, Busy> {
        self.wait(Work::Key(key.clone()), Some(id.clone())).await
    }

    /// Waits for the right to take or give back the leases of `claim`. Asked for with a key in hand or without,
    /// never before one.
    ///
    /// # Errors
    /// [`Busy`] when that takes too long.
    pub async fn hold_claim(&self, claim: &Claim) -> Result<Hold, Busy> {
        self.wait(Work::Claim(claim.id()), None).await
    }

    async fn wait(&self, work: Work, id: Option<AttachmentId>) -> Result<Hold, Busy> {
        let wait = async {
            loop {
                let freed = self.inner.freed.notified();
                tokio::pin!(freed);
                // Before the look, so that nothing is missed between the look and the wait.
                freed.as_mut().enable();
                if self.try_hold(&work, id.as_ref()) {
                    return Hold { registry: self.clone(), work: work.clone(), id };
                }
                freed.await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.map_err(|_| Busy(work.to_string()))
    }

    fn try_hold(&self, work: &Work, id: Option<&AttachmentId>) -> bool {
        let mut state = self.state();
        if state.busy.contains(work) || id.is_some_and(|id| state.doomed.contains(id) || state.held.contains(id)) {
            return false;
        }
        state.busy.insert(work.clone());
        state.held.extend(id.cloned());
        true
    }

    /// The entry of a key.
    pub fn get(&self, key: &Key) -> Option<Entry> {
        self.state().entries.get(key).cloned()
    }

    /// The attachments that were made behind a call of the primary network.
    pub fn chained(&self, container_id: &str, ifname: &IfName) -> Vec<Entry> {
        let behind = |entry: &&Entry| {
            let Record { key, chained, .. } = &entry.record;
            key.container_id == container_id && chained.as_ref().is_some_and(|chained| chained.ifname == *ifname)
        };
        self.state().entries.values().filter(behind).cloned().collect()
    }

    /// The attachments of a pod.
    pub fn of_pod(&self, uid: &str) -> Vec<Entry> {
        self.state().entries.values().filter(|entry| entry.record.pod_uid == uid).cloned().collect()
    }

    /// All entries.
    pub fn entries(&self) -> Vec<Entry> {
        self.state().entries.values().cloned().collect()
    }

    /// The entries that nobody works on just now.
    pub fn entries_at_rest(&self) -> Vec<Entry> {
        let state = self.state();
        state.entries.values().filter(|entry| state.rests(entry)).cloned().collect()
    }

    /// Those of them that have these keys.
    pub fn entries_at_rest_of(&self, keys: &BTreeSet<&Key>) -> Vec<Entry> {
        let state = self.state();
        let entries = keys.iter().filter_map(|key| state.entries.get(*key));
        entries.filter(|entry| state.rests(entry)).cloned().collect()
    }

    /// The present version, and the attachments that came or went since another; none where that is too long ago to know.
    pub fn touched_since(&self, version: u64) -> (u64, Option<BTreeSet<Key>>) {
        let state = self.state();
        let count = usize::try_from(state.version - version).unwrap_or(usize::MAX);
        let known = count <= state.touched.len();
        (state.version, known.then(|| state.touched.iter().take(count).cloned().collect()))
    }

    /// All keys.
    pub fn keys(&self) -> BTreeSet<Key> {
        self.state().entries.keys().cloned().collect()
    }

    /// How many attachments were not as they shall be when they were last compared, and could not be mended.
    pub fn failed(&self) -> usize {
        self.state().entries.values().filter(|entry| matches!(entry.last, Outcome::Failed(_))).count()
    }

    /// How many attachments there are.
    pub fn len(&self) -> usize {
        self.state().entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether nothing waits for its removal.
    pub fn is_clean(&self) -> bool {
        self.state().doomed.is_empty()
    }

    /// Whether the devices of an attachment are being removed.
    pub fn is_doomed(&self, id: &AttachmentId) -> bool {
        self.state().doomed.contains(id)
    }

    /// The attachment that uses the addresses of `claim`, if there is one.
    pub fn user_of(&self, claim: &Claim) -> Option<Key> {
        let same = |entry: &&Entry| entry.record.claim.as_ref().is_some_and(|of| of.is(claim));
        self.state().entries.values().find(same).map(|entry| entry.record.key.clone())
    }

    /// Writes a record down. It outlives this process from then on; a power cut ends its sandbox anyhow.
    ///
    /// # Errors
    /// [`DiskError`]: nothing has changed.
    pub fn put(&self, _hold: &Hold, record: Record) -> Result<(), DiskError> {
        here(|| self.inner.folder.write(&record))?;
        let entry = Entry::new(record);
        let mut state = self.state();
        state.touch(entry.record.key.clone());
        state.entries.insert(entry.record.key.clone(), entry);
        Ok(())
    }

    /// Takes a key out of the registry and has what was made for it removed behind the caller's back: devices
    /// first, then the leases that end with it. Success where there is nothing.
    ///
    /// # Errors
    /// [`DiskError`]: nothing has changed.
    pub fn drop_key(&self, _hold: &Hold, key: &Key, id: AttachmentId) -> Result<(), DiskError> {
        self.inner.folder.remove(key)?;
        let mut state = self.state();
        state.touch(key.clone());
        let record = state.entries.remove(key).map(|entry| entry.record);
        let removal = match record {
            Some(Record { attachment, release, segment, claim, .. }) => {
                let inside = matches!(attachment.backend, Backend::Macvtap { .. }).then_some(attachment.netns);
                Removal { id: attachment.id, inside, lease: claim.map(|claim| Lease { segment, claim, release }) }
            }
            // A second removal behind the first could hit what an ADD makes in between.
            None if state.doomed.contains(&id) => return Ok(()),
            None => Removal { id, inside: None, lease: None },
        };
        self.doom(&mut state, removal);
        Ok(())
    }

    /// Has the devices of those of `ids` removed that no record and nobody at work knows. How many there are.
    pub fn drop_strays(&self, ids: impl IntoIterator<Item = AttachmentId>) -> usize {
        let mut state = self.state();
        let known: BTreeSet<_> = state.entries.values().map(|entry| entry.record.attachment.id.clone()).collect();
        let stray = |id: &AttachmentId| !known.contains(id) && !state.held.contains(id) && !state.doomed.contains(id);
        let strays: Vec<_> = ids.into_iter().filter(stray).collect();
        for id in &strays {
            self.doom(&mut state, Removal { id: id.clone(), inside: None, lease: None });
        }
        strays.len()
    }

    fn doom(&self, state: &mut State, removal: Removal) {
        state.doomed.insert(removal.id.clone());
        // The cleaner ends after every sender; should it not be there, the next start finds the devices without
        // a record.
        let _ = self.inner.removals.send(removal);
    }

    /// Notes that the runtime knows of an ADD.
    pub fn answered(&self, key: &Key) {
        if let Some(entry) = self.state().entries.get_mut(key) {
            entry.answered = true;
        }
    }

    /// Notes that the leases of an attachment say where they are in use.
    pub fn set_bound(&self, record: &Record) {
        let mut state = self.state();
        if let Some(entry) = state.entries.get_mut(&record.key).filter(|entry| entry.record == *record) {
            entry.bound = true;
        }
    }

    /// Notes what the last comparison came to.
    pub fn set_outcome(&self, key: &Key, outcome: Outcome) {
        if let Some(entry) = self.state().entries.get_mut(key) {
            entry.last = outcome;
        }
    }

    /// Notes that the devices of an attachment are gone.
    fn removed(&self, id: &AttachmentId) {
        self.state().doomed.remove(id);
        self.inner.freed.notify_waiters();
    }
}
