//! The notes that the plugin left where DEL found no agent (`RUN/deleted/<key>`).
//!
//! They are carried out at the start, with each resync, and before an ADD of the same key, so that a note can
//! never take away what came after it.

use std::fs;
use std::path::Path;

use holdfast_agent_api::cni::{NOTES, Request, note_key};
use holdfast_net::model::AttachmentId;

use super::{Busy, DiskError, Hold, Key, Registry};

/// Why a note stays.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoteError {
    #[error(transparent)]
    Busy(#[from] Busy),
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl Registry {
    /// Carries out every note in `run`.
    pub(crate) async fn take_notes(&self, run: &Path) {
        let Ok(folder) = fs::read_dir(run.join(NOTES)) else { return };
        for path in folder.filter_map(|entry| Some(entry.ok()?.path())) {
            let hidden = path.file_name().and_then(|name| name.to_str()).is_none_or(|name| name.starts_with('.'));
            let note = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Request>(&bytes).ok());
            let key = note.and_then(|note| {
                let chained = note.is_chained();
                Some((Key { ifname: note.ifname.parse().ok()?, container_id: note.container_id }, chained))
            });
            match (hidden, key) {
                // Still being written, or never finished: the runtime was told so.
                (true, _) => {}
                (false, None) => tracing::error!(path = %path.display(), "a note of a DEL cannot be read"),
                (false, Some((key, chained))) => match self.obey(&path, &key, chained).await {
                    Ok(()) => _ = fs::remove_file(&path),
                    Err(error) => tracing::warn!(%key, %error, "a note of a DEL waits"),
                },
            }
        }
    }

    async fn obey(&self, note: &Path, key: &Key, chained: bool) -> Result<(), NoteError> {
        let hold = self.hold(key, &key.attachment_id()).await?;
        // An ADD that came in between has carried it out, and what it made is not meant.
        if !note.exists() {
            return Ok(());
        }
        if chained {
            return self.drop_chained(&hold, key).await;
        }
        Ok(self.drop_key(&hold, key, key.attachment_id())?)
    }

    /// Drops every attachment that was made behind the call of `key`, which is held.
    pub(crate) async fn drop_chained(&self, _hold: &Hold, key: &Key) -> Result<(), NoteError> {
        let mut result = Ok(());
        for entry in self.chained(&key.container_id, &key.ifname) {
            let record = entry.record;
            let hold = self.hold(&record.key, &record.attachment.id).await?;
            result = result.and(self.drop_key(&hold, &record.key, record.attachment.id.clone()));
        }
        Ok(result?)
    }

    /// Carries out the note of a DEL behind the call of `key`, which is held, if there is one.
    pub(crate) async fn take_chained_note(&self, run: &Path, hold: &Hold, key: &Key) -> Result<(), NoteError> {
        let path = run.join(NOTES).join(note_key(&key.container_id, key.ifname.as_str(), true));
        if path.exists() {
            self.drop_chained(hold, key).await?;
            let _ = fs::remove_file(path);
        }
        Ok(())
    }

    /// Carries out the note of `key`, if there is one. Whether there was one.
    pub(crate) fn take_note(&self, run: &Path, hold: &Hold, key: &Key) -> Result<bool, DiskError> {
        let path = run.join(NOTES).join(note_key(&key.container_id, key.ifname.as_str(), false));
        if !path.exists() {
            return Ok(false);
        }
        self.drop_key(hold, key, key.attachment_id())?;
        let _ = fs::remove_file(path);
        Ok(true)
    }
}

impl Key {
    /// The attachment of this key where its interface has CNI's name.
    pub fn attachment_id(&self) -> AttachmentId {
        AttachmentId { container_id: self.container_id.clone(), ifname: self.ifname.clone() }
    }
}
