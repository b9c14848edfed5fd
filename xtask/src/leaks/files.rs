//! Files and control groups in the places that Holdfast and its tests use.

use std::fs;
use std::path::Path;

use super::clusters;

/// Folders of an installed Holdfast, looked through to the last file.
const FOLDERS: &[&str] = &["/run/holdfast", "/var/lib/holdfast", "/run/holdfast-demo", "/var/lib/holdfast-demo"];
/// Folders for all, and how names begin that are ours there. `.tmp` is what Rust tests call their own.
const SHARED: &[(&str, &[&str])] = &[
    ("/tmp", &["holdfast", "hf-", ".tmp"]),
    ("/var/tmp", &["holdfast", "hf-", ".tmp"]),
    ("/dev/shm", &["holdfast", "hf-"]),
    ("/run", &["holdfast", "hf-"]),
    ("/var/lib", &["holdfast-"]),
];
/// How the names of our control groups begin.
const CGROUP: &str = "holdfast";

/// Paths of files and folders.
pub fn files() -> Vec<String> {
    let mut found = Vec::new();
    for folder in FOLDERS {
        below(Path::new(folder), &mut found, &|_| true);
    }
    for (folder, prefixes) in SHARED {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if prefixes.iter().any(|prefix| name.starts_with(prefix)) {
                found.push(entry.path().display().to_string());
            }
        }
    }
    found
}

/// Paths of control groups in all hierarchies.
pub fn cgroups() -> Vec<String> {
    let mut found = Vec::new();
    // One parent is kept for all VMs; the groups below it are one VM's each.
    below(Path::new("/sys/fs/cgroup"), &mut found, &|path| {
        path.is_dir()
            && !clusters::holds_group(path)
            && path.to_string_lossy().contains(CGROUP)
            && path.file_name().is_some_and(|name| name != CGROUP)
    });
    found
}

/// Adds what is below a folder and wanted. What vanishes meanwhile is no trace.
fn below(folder: &Path, found: &mut Vec<String>, wanted: &dyn Fn(&Path) -> bool) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if wanted(&path) {
            found.push(path.display().to_string());
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            below(&path, found, wanted);
        }
    }
}
