//! What is on the nodes of a cluster: what `cargo xtask leaks` lists in each of them, taken together.
//!
//! Pods are replaced there by others of their kind, on another node maybe, and processes by others of their program.
//! So traces that differ in nothing but numbers and hashes are alike, and those that are alike are counted. A VM that is
//! gone and left something is one more.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::layout::{Cluster, Node};
use super::up;
use crate::process;

/// The program in a node that lists.
const PROGRAM: &str = "/tmp/xtask";
/// What virt-handler keeps from the first VM of a node on; what is in the first three is one VM's each.
const BOOKS: [&str; 4] = ["bindings", "launchers", "pods", "networks"];
/// Where it does.
const STATE: &str = "/var/lib/holdfast/";
/// What Kubernetes makes the random ends of names of, and how many it takes.
const RANDOM: (&str, usize) = ("bcdfghjklmnpqrstvwxz2456789", 5);
/// How long what was ended may take to go: a kubelet removes what is left of a pod at its leisure.
const SETTLE: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);

/// Traces on all nodes, counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traces(BTreeMap<String, usize>);

impl Traces {
    /// Looks at the nodes.
    pub fn take(cluster: Cluster<'_>) -> Result<Self> {
        let mut all = Self::default();
        for node in up::nodes(cluster)? {
            let lines = list(&node)?;
            for line in lines.lines().filter(|line| !is_book(line)) {
                *all.0.entry(alike(line)).or_default() += 1;
            }
        }
        Ok(all)
    }

    /// What is there now and was not in this list, once things have settled. `tell` gets a line while they have not.
    fn since(&self, cluster: Cluster<'_>, tell: &mut dyn FnMut(&str)) -> Result<Vec<String>> {
        let mut more = Vec::new();
        let settled = process::wait_for("the nodes to be as they were", SETTLE, || {
            more = self.more(&Self::take(cluster)?);
            if more.is_empty() {
                return Ok(Some(()));
            }
            tell(&format!("{} kinds left, among them {}", more.len(), more[0]));
            std::thread::sleep(LOOK);
            Ok(None)
        });
        if settled.is_err() && more.is_empty() { settled.map(|()| more) } else { Ok(more) }
    }

    /// An error that names what is there now and was not in this list.
    pub fn none_since(&self, cluster: Cluster<'_>, tell: &mut dyn FnMut(&str)) -> Result<()> {
        let more = self.since(cluster, tell)?;
        if more.is_empty() { Ok(()) } else { bail!("left on the nodes:\n  {}", more.join("\n  ")) }
    }

    fn more(&self, now: &Self) -> Vec<String> {
        let was = |trace: &String| self.0.get(trace).copied().unwrap_or_default();
        now.0
            .iter()
            .filter(|(trace, count)| **count > was(trace))
            .map(|(trace, count)| format!("{trace} ({} more)", count - was(trace)))
            .collect()
    }
}

/// Lists the traces in a node, by this very program, which is no file that a node could see.
fn list(node: &Node<'_>) -> Result<String> {
    let program = node.file(PROGRAM);
    fs::copy("/proc/self/exe", &program).with_context(|| format!("failed to make {}", program.display()))?;
    let listed = node.machine.program(PROGRAM).and_then(|program| program.arg("leaks").output());
    fs::remove_file(&program).with_context(|| format!("failed to remove {}", program.display()))?;
    listed.with_context(|| format!("failed to list what is on `{}`", node.machine.name))
}

/// Whether a line of the list is of what is there with the installation, and not with a VM.
fn is_book(line: &str) -> bool {
    let book = line.split_once(STATE).map(|(_, rest)| rest);
    book.is_some_and(|book| BOOKS.contains(&book) || book.starts_with("networks/"))
}

/// A line of the list without what only tells one from another of its kind: numbers, hashes, UIDs.
fn alike(line: &str) -> String {
    let mut text = String::new();
    for word in line.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
        let bare = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        let hex = bare.strip_prefix("veth").or(bare.strip_prefix("pod")).unwrap_or(bare);
        let is_random = text.ends_with('-') && bare.len() == RANDOM.1 && bare.chars().all(|c| RANDOM.0.contains(c));
        let is_hash = hex.len() >= 4 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_random {
            text.push('*');
            text.push_str(&word[bare.len()..]);
        } else if !hex.is_empty() && (is_hash || hex.bytes().all(|byte| byte.is_ascii_digit())) {
            text.push_str(&bare[..bare.len() - hex.len()]);
            text.push('*');
            text.push_str(&word[bare.len()..]);
        } else {
            text.push_str(word);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_of_a_kind_are_alike() {
        for (line, expected) in [
            ("process 46 /usr/sbin/ovsdb-server net:[4026532462]", "process * /usr/sbin/ovsdb-server net:[*]"),
            ("link veth0a1b2c3d", "link veth*"),
            ("link uplink0", "link uplink0"),
            (
                "network namespace /run/netns/cni-0a0b0c0d-1111-2222-aaaa-abcdefabcdef",
                "network namespace /run/netns/cni-*-*-*-*-*",
            ),
            ("cgroup /sys/fs/cgroup/cpu/kubepods/pod1111aaaa-bbbb/x", "cgroup /sys/fs/cgroup/cpu/kubepods/pod*-*/x"),
            ("mount /x/kube-api-access-7g7gq (tmpfs)", "mount /x/kube-api-access-* (tmpfs)"),
            ("mount /dev (devtmpfs)", "mount /dev (devtmpfs)"),
        ] {
            assert_eq!(alike(line), expected);
        }
    }

    #[test]
    fn books_are_no_traces_and_what_is_in_them_is() {
        for (line, expected) in [
            ("file /var/lib/holdfast/pods", true),
            ("file /var/lib/holdfast/pods/1111aaaa.json", false),
            ("file /var/lib/holdfast/networks/underlays.json", true),
            ("file /var/lib/holdfast/deleted", false),
        ] {
            assert_eq!(is_book(line), expected, "{line}");
        }
    }

    #[test]
    fn one_more_of_a_kind_is_a_leak_and_another_is_not() {
        let traces = |lines: &[&str]| {
            let mut all = Traces::default();
            lines.iter().for_each(|line| *all.0.entry(alike(line)).or_default() += 1);
            all
        };
        let before = traces(&["link veth0000aaaa", "process 1 a"]);
        assert!(before.more(&traces(&["link veth0000bbbb"])).is_empty());
        assert_eq!(before.more(&traces(&["link veth0000bbbb", "link vethaaaa0000"])), ["link veth* (1 more)"]);
    }
}
