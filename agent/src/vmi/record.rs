//! What a pod interface was before it was bound to a VM. Binding takes its address and its MAC away, so this
//! is written once, before the first op, and is an input from then on.
//!
//! One file for each sandbox, `STATE/bindings/<container id>.json`; written anew (temporary file, fsync,
//! rename, fsync of the folder) when a NIC joins, an entry that is there never changes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use holdfast_net::model::{IfName, PodInterface};

/// The pod interfaces of a sandbox by name, as their CNI plugins left them.
pub type PodInterfaces = BTreeMap<IfName, PodInterface>;

/// Why a record could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file system refused.
    #[error("failed to {verb} the binding record `{}`", path.display())]
    Io {
        /// What was done.
        verb: &'static str,
        /// The record.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not a record.
    #[error("failed to decode the binding record `{}`", path.display())]
    Json {
        /// The record.
        path: PathBuf,
        /// Where it is wrong.
        source: serde_json::Error,
    },
}

/// Reads the record of a sandbox; empty where there is none yet.
///
/// # Errors
/// When it cannot be read, or is not a record: guessing would give the guest another VM's address.
pub fn load(state: &Path, container_id: &str) -> Result<PodInterfaces, RecordError> {
    let path = path_of(state, container_id);
    match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).map_err(|source| RecordError::Json { path, source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(PodInterfaces::new()),
        Err(source) => Err(RecordError::Io { verb: "read", path, source }),
    }
}

/// Writes the record of a sandbox; when it returns, the record survives a power failure.
///
/// # Errors
/// When it cannot be written; the earlier record is then whole.
pub fn save(state: &Path, container_id: &str, record: &PodInterfaces) -> Result<(), RecordError> {
    let path = path_of(state, container_id);
    let text = serde_json::to_vec_pretty(record).map_err(|source| RecordError::Json { path: path.clone(), source })?;
    write(&path, &text).map_err(|source| RecordError::Io { verb: "write", path, source })
}

/// Removes the record of a sandbox that is gone; one that is not there is removed already.
///
/// # Errors
/// When the file system refuses.
pub fn remove(state: &Path, container_id: &str) -> Result<(), RecordError> {
    let path = path_of(state, container_id);
    match fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(RecordError::Io { verb: "remove", path, source })
        }
        _ => Ok(()),
    }
}

fn path_of(state: &Path, container_id: &str) -> PathBuf {
    state.join("bindings").join(format!("{container_id}.json"))
}

fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    // One writer at a time: that of a task which was dropped may still be at work, with the same temporary file.
    static WRITER: Mutex<()> = Mutex::new(());
    let _alone = WRITER.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_it_wrote_and_refuses_what_is_broken() {
        let state = tempfile::tempdir().unwrap();
        assert!(load(state.path(), "c1").unwrap().is_empty());
        let interface = PodInterface {
            mac: "02:00:00:00:00:07".parse().unwrap(),
            mtu: 1450,
            addresses: vec!["10.1.2.3/24".parse().unwrap()],
            routes: Vec::new(),
        };
        let record = PodInterfaces::from([("eth0".parse().unwrap(), interface)]);
        save(state.path(), "c1", &record).unwrap();
        assert_eq!(load(state.path(), "c1").unwrap(), record);
        let files: Vec<_> = fs::read_dir(state.path().join("bindings")).unwrap().collect();
        assert_eq!(files.len(), 1, "a temporary file stayed behind: {files:?}");

        fs::write(state.path().join("bindings/c1.json"), "{").unwrap();
        assert!(matches!(load(state.path(), "c1"), Err(RecordError::Json { .. })));
        remove(state.path(), "c1").unwrap();
        remove(state.path(), "c1").unwrap();
        assert!(load(state.path(), "c1").unwrap().is_empty());
    }
}
