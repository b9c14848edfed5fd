//! Reading the folder.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use holdfast_api::decode::{Document, decode_documents};

/// Largest manifest file, in bytes.
const MAX_FILE: u64 = 8 << 20;

/// The folder cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("failed to read the manifests folder `{0}`")]
pub struct ScanError(PathBuf, #[source] io::Error);

/// What is in the folder.
#[derive(Debug, Default)]
pub struct Scan {
    /// Each document with the file that it is in, relative to the folder.
    pub documents: Vec<(String, Document)>,
    /// Files of which nothing, or not all, is known, and why. What came from them before stays.
    pub unclear: BTreeMap<String, String>,
}

/// Reads every manifest of a folder and of the folders in it. Names that begin with `.` are left out, and all but
/// `.yaml`, `.yml` and `.json`.
pub fn scan(folder: &Path) -> Result<Scan, ScanError> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        let failed = |error| ScanError(next.clone(), error);
        for entry in fs::read_dir(&next).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with('.') {
                continue;
            }
            // Follows links. What went away in between is not there.
            match fs::metadata(&path) {
                Ok(meta) if meta.is_dir() => folders.push(path),
                Ok(_) if is_manifest(&path) => files.push(path),
                _ => {}
            }
        }
    }
    files.sort();
    let mut scan = Scan::default();
    for path in files {
        let name = path.strip_prefix(folder).unwrap_or(&path).to_string_lossy().into_owned();
        match read(&path) {
            Ok(Some(text)) => add(&mut scan, &name, &text),
            Ok(None) => {}
            Err(error) => drop(scan.unclear.insert(name, error.to_string())),
        }
    }
    Ok(scan)
}

fn is_manifest(path: &Path) -> bool {
    path.extension().is_some_and(|e| ["yaml", "yml", "json"].iter().any(|known| e == *known))
}

/// The text of a file; none where it has gone.
fn read(path: &Path) -> io::Result<Option<String>> {
    match fs::metadata(path) {
        Ok(meta) if meta.len() > MAX_FILE => {
            Err(io::Error::other(format!("a manifest file may have {MAX_FILE} bytes, it has {}", meta.len())))
        }
        Ok(_) => fs::read_to_string(path).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn add(scan: &mut Scan, name: &str, text: &str) {
    if text.trim().is_empty() {
        // Editors and copy programs truncate first and write then.
        scan.unclear.insert(name.to_owned(), "the file is empty; remove it to delete its objects".to_owned());
        return;
    }
    for document in decode_documents(text) {
        let named = document.identity.as_ref().is_some_and(|id| !id.name.is_empty() && !id.kind.is_empty());
        if let (false, Err(error)) = (named, &document.object) {
            scan.unclear.entry(name.to_owned()).or_insert_with(|| error.to_string());
        }
        scan.documents.push((name.to_owned(), document));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_are_found_and_unclear_files_named() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let map = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n";
        write("a.yaml", &format!("{map}---\n{map}"));
        write("sub/b.yml", map);
        write(".hidden.yaml", map);
        write("c.txt", map);
        write("empty.yaml", "\n");
        write("half.yaml", "apiVersion: v1\nkind: [");
        write("comment.yaml", "# nothing\n");
        let scan = scan(folder.path()).unwrap();
        let files: Vec<_> = scan.documents.iter().map(|(file, _)| file.as_str()).collect();
        assert_eq!(files, ["a.yaml", "a.yaml", "half.yaml", "sub/b.yml"]);
        assert_eq!(scan.unclear.keys().collect::<Vec<_>>(), ["empty.yaml", "half.yaml"]);
        assert!(super::scan(Path::new("/nowhere")).is_err());
    }
}
