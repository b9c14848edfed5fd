//! Mounts, in every mount namespace that some process is in.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::clusters;

/// Words in a mount's source or target by which it is ours, in namespaces other than our own.
const OURS: &[&str] = &["holdfast", "hf-", "kubevirt"];

/// Mount points of our own namespace; of the others those that are ours, once for each namespace.
pub fn mounts() -> Result<Vec<String>> {
    let own = namespace(Path::new("/proc/self")).context("failed to read the own mount namespace")?;
    let text = fs::read_to_string("/proc/self/mountinfo").context("failed to list the mounts")?;
    let mut found: Vec<String> = parse(&text).map(|mount| mount.to_string()).collect();
    for (namespace, text) in others(&own) {
        let ours = parse(&text).filter(|mount| mount.is_namespace || OURS.iter().any(|word| mount.text.contains(word)));
        found.extend(ours.map(|mount| format!("{mount} in {namespace}")));
    }
    Ok(found)
}

/// Mount namespace -> its mountinfo, by the first process found in it.
fn others(own: &str) -> BTreeMap<String, String> {
    let mut others = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        // Processes come and go, and folders of /proc that are no process have no namespace: both are passed over.
        let Some(namespace) = namespace(&entry.path()).filter(|namespace| namespace != own) else { continue };
        if clusters::holds(&entry.path()) {
            continue;
        }
        if let Ok(text) = fs::read_to_string(entry.path().join("mountinfo")) {
            others.entry(namespace).or_insert(text);
        }
    }
    others
}

fn namespace(process: &Path) -> Option<String> {
    Some(fs::read_link(process.join("ns/mnt")).ok()?.display().to_string())
}

/// One line of mountinfo (proc_pid_mountinfo(5)).
struct Mount<'a> {
    target: &'a str,
    kind: &'a str,
    text: &'a str,
    is_namespace: bool,
}

impl std::fmt::Display for Mount<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.target, self.kind)
    }
}

fn parse(text: &str) -> impl Iterator<Item = Mount<'_>> {
    text.lines().filter_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        let target = place.split(' ').nth(4)?;
        let kind = kind.split(' ').next()?;
        Some(Mount { target, kind, text: line, is_namespace: kind == "nsfs" })
    })
}
