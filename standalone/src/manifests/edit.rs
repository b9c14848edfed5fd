//! Taking one document out of the folder, for an object that is deleted by other means than its file.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use holdfast_api::decode::decode_documents;

use super::DEFAULT_NAMESPACE;
use crate::store::{Key, Kind};

/// Why a document could not be taken out of its file.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The file cannot be read.
    #[error("failed to read manifest `{0}`")]
    Read(PathBuf, #[source] io::Error),
    /// The file cannot be written.
    #[error(
        "failed to remove {0} from manifest `{1}`: the folder of manifests says what shall run here, and it cannot be written"
    )]
    Write(Key, PathBuf, #[source] io::Error),
}

/// Removes the document of an object from `file` of `folder`; the file goes with its last document. A file or a
/// document that is not there is a success.
pub fn remove_document(folder: &Path, file: &str, key: &Key) -> Result<(), EditError> {
    let path = folder.join(file);
    let mut text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(EditError::Read(path, error)),
    };
    let failed = |error| EditError::Write(key.clone(), path.clone(), error);
    let documents = decode_documents(&text);
    let is_it = |document: &&holdfast_api::decode::Document| {
        document.identity.as_ref().is_some_and(|id| {
            let namespace = id.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
            Kind::of(&id.api_version, &id.kind).is_some_and(|kind| Key::new(kind, namespace, &id.name) == *key)
        })
    };
    let ranges: Vec<_> = documents.iter().filter(is_it).map(|document| document.range.clone()).collect();
    if ranges.is_empty() {
        return Ok(());
    }
    if ranges.len() == documents.len() {
        return fs::remove_file(&path).map_err(failed);
    }
    for range in ranges.into_iter().rev() {
        text.replace_range(range, "");
    }
    // Beside it and renamed, with its mode: whoever reads the folder sees the old file or the new one.
    let temporary = path.with_extension("holdfast-tmp");
    let mode = fs::metadata(&path).map_err(failed)?.permissions();
    let written = fs::write(&temporary, text)
        .and_then(|()| fs::set_permissions(&temporary, mode))
        .and_then(|()| fs::rename(&temporary, &path));
    written.map_err(|error| {
        // Nothing else can be done about it when this fails too.
        let _ = fs::remove_file(&temporary);
        failed(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_document_goes_and_the_file_with_the_last() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.yaml");
        let map = |name: &str| format!("# {name}\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n");
        fs::write(&path, format!("{}---\n{}---\n{}", map("a"), map("b"), map("c"))).unwrap();
        let key = |name: &str| Key::new(Kind::ConfigMap, "default", name);
        remove_document(folder.path(), "a.yaml", &key("b")).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}---\n{}", map("a"), map("c")));
        remove_document(folder.path(), "a.yaml", &key("none")).unwrap();
        for name in ["a", "c"] {
            remove_document(folder.path(), "a.yaml", &key(name)).unwrap();
        }
        assert!(!path.exists());
        remove_document(folder.path(), "a.yaml", &key("a")).unwrap();
    }
}
