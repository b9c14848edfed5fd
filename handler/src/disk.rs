//! What has to outlive this process and the API server's absence: files that are whole or not there.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A file could not be read, written or removed.
#[derive(Debug, thiserror::Error)]
#[error("failed to {verb} `{}`", path.display())]
pub struct DiskError {
    verb: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Writes a value as JSON; when this returns, it survives a power failure.
///
/// # Errors
/// [`DiskError`]; what was there before is whole then.
pub fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), DiskError> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let staged = folder.join(format!(".{}", uuid::Uuid::new_v4().simple()));
    let write = || {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let mut file = File::create_new(&staged)?;
        file.write_all(&serde_json::to_vec(value)?)?;
        file.sync_all()?;
        fs::rename(&staged, path)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(|source| {
        let _ = fs::remove_file(&staged);
        DiskError { verb: "write", path: path.to_owned(), source }
    })
}

/// Reads a value; none where it is not there, or cannot be read, which is logged.
pub fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let read = fs::read(path).and_then(|bytes| Ok(serde_json::from_slice(&bytes)?));
    match read {
        Ok(value) => Some(value),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "a file of the state cannot be read");
            None
        }
    }
}

/// Reads each file of a folder, and removes what a crash has left of one on its way in.
pub fn read_folder<T: DeserializeOwned>(folder: &Path) -> Vec<T> {
    let mut all = Vec::new();
    for path in entries(folder) {
        if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")) {
            let _ = fs::remove_file(&path);
        } else {
            all.extend(read(&path));
        }
    }
    all
}

/// The paths in a folder; none where it is not there.
pub fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// Removes a file; one that is not there is removed already.
///
/// # Errors
/// [`DiskError`].
pub fn remove(path: &Path) -> Result<(), DiskError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(DiskError { verb: "remove", path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_what_is_broken_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/a.json");
        assert_eq!(read::<String>(&path), None);
        write(&path, &"one").unwrap();
        write(&path, &"two").unwrap();
        assert_eq!(read::<String>(&path).as_deref(), Some("two"));
        fs::write(folder.path().join("new/broken.json"), "{").unwrap();
        fs::write(folder.path().join("new/.staged"), "x").unwrap();
        assert_eq!(read_folder::<String>(&folder.path().join("new")), ["two"]);
        assert!(!folder.path().join("new/.staged").exists());
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert_eq!(read::<String>(&path), None);
    }
}
