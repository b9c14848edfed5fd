//! What is on the node and in holdfastd's folders: the same after the VM as before it.
//!
//! The leak scan at the very end cannot see this: by then the node itself is gone, and took its links along.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result};
use serde_json::Value;

use super::switch;
use super::world::DEMO;
use crate::process::Program;

/// Folders below the state folder that hold one VM's things. (Images stay for the next VM, events for whoever asks.)
const FOLDERS: &[&str] = &["attachments", "bindings", "leases/ipleases", "leases/macleases", "vms"];

/// Lists it, a line each.
pub fn take() -> Result<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    let links: Value = serde_json::from_str(&Program::new("ip").args(["-n", &DEMO.node(), "-j", "link"]).output()?)
        .context("failed to parse the list of links")?;
    all.extend(links.as_array().into_iter().flatten().map(|link| format!("link {}", link["ifname"])));
    let tables = Program::new("ip").args(["netns", "exec", &DEMO.node(), "nft", "list", "tables"]).output()?;
    all.extend(tables.lines().map(|line| format!("nft {line}")));
    all.extend(switch::ports(&DEMO)?.lines().map(|port| format!("OVS port {port}")));
    for folder in FOLDERS {
        let entries = fs::read_dir(DEMO.state().join(folder)).into_iter().flatten().flatten();
        all.extend(entries.map(|entry| format!("file {folder}/{}", entry.file_name().to_string_lossy())));
    }
    let namespaces = fs::read_dir(DEMO.run().join("netns")).into_iter().flatten().flatten();
    all.extend(namespaces.map(|entry| format!("sandbox {}", entry.file_name().to_string_lossy())));
    Ok(all)
}

/// A short line on what is left, where anything is: what is no lease goes within moments, leases after a quarantine.
pub fn sum_up(left: &[String]) -> Option<String> {
    let first = left.first()?;
    Some(match left.iter().find(|line| !line.starts_with("file leases/")) {
        Some(other) => format!("{} left, among them {other}", left.len()),
        None if left.len() == 1 => format!("{first} left, waiting for its quarantine"),
        None => format!("{} files left, waiting for their quarantine", left.len()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_up_what_is_left() {
        let left = |lines: &[&str]| sum_up(&lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>());
        assert_eq!(left(&[]), None);
        assert_eq!(left(&["file leases/a", "link b"]).unwrap(), "2 left, among them link b");
        assert_eq!(left(&["file leases/a", "file leases/b"]).unwrap(), "2 files left, waiting for their quarantine");
        assert_eq!(left(&["file leases/a"]).unwrap(), "file leases/a left, waiting for its quarantine");
    }
}
