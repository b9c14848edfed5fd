//! Replays: what upstream was seen to answer, asked again of this cluster.
//!
//! A replay yields differences, each with a name. The list of differences on purpose ([`Purposes`]) has a reason for
//! each; [`Purposes::judge`] fails on a difference that is not listed, and on an entry that names none.

mod install;
mod lifecycle;
mod stage;
mod subresources;
mod verdicts;
mod virtctl;

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

pub use install::install;
pub use lifecycle::lifecycle;
pub use subresources::subresources;
pub use verdicts::verdicts;
pub use virtctl::virtctl;

/// A difference between what was seen and what is answered here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its name: the case or the object, and what of it.
    pub what: String,
    /// Both sides, for people.
    pub detail: String,
}

impl Difference {
    fn new(what: impl Into<String>, seen: &Value, ours: &Value) -> Self {
        Self { what: what.into(), detail: format!("  seen {seen}\n  ours {ours}") }
    }
}

/// The outcome of a replay.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// How many facts were compared.
    pub compared: usize,
    /// What differs.
    pub differences: Vec<Difference>,
}

/// One kind of difference on purpose.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Purpose {
    /// The replay: verdicts, subresources, lifecycle, install, virtctl.
    replay: String,
    /// Names of differences; one that ends in `*` stands for all that begin so.
    what: Vec<String>,
    /// Why it is so.
    #[allow(dead_code, reason = "for the readers of the list, which is refused without it")]
    reason: String,
}

/// The list of differences on purpose.
#[derive(Clone, Debug, Default)]
pub struct Purposes(Vec<Purpose>);

impl Purposes {
    /// Reads the list.
    ///
    /// # Errors
    /// Where it cannot be read, or an entry has no reason.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
        Ok(Self(serde_norway::from_str(&text).with_context(|| format!("failed to read {}", path.display()))?))
    }

    /// What is wrong: differences that are not listed, and entries that name no difference.
    #[must_use]
    pub fn judge(&self, replay: &str, outcome: &Outcome) -> Vec<String> {
        let mut used = BTreeSet::new();
        let mut problems = Vec::new();
        let listed: Vec<&String> = self.0.iter().filter(|p| p.replay == replay).flat_map(|p| &p.what).collect();
        for difference in &outcome.differences {
            let hits: Vec<_> = listed.iter().filter(|pattern| matches(pattern, &difference.what)).collect();
            if hits.is_empty() {
                problems.push(format!("{}\n{}", difference.what, difference.detail));
            }
            used.extend(hits.into_iter().map(|pattern| pattern.as_str()));
        }
        let stale = listed.iter().filter(|pattern| !used.contains(pattern.as_str()));
        problems.extend(stale.map(|pattern| format!("`{pattern}` is listed as different on purpose, and is not")));
        problems
    }
}

fn matches(pattern: &str, what: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => what.starts_with(prefix),
        None => pattern == what,
    }
}

/// The lines of a file of JSON lines.
fn lines(path: &Path) -> Result<Vec<Value>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
    text.lines()
        .enumerate()
        .map(|(at, line)| serde_json::from_str(line).with_context(|| format!("{}:{}", path.display(), at + 1)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(what: &[&str]) -> Outcome {
        let one = |what: &&str| Difference { what: (*what).to_owned(), detail: String::new() };
        Outcome { compared: 9, differences: what.iter().map(one).collect() }
    }

    #[test]
    fn the_list_is_exact_both_ways() {
        let list = "[{replay: install, what: [a, 'b/*'], reason: r}, {replay: verdicts, what: [x], reason: r}]";
        let purposes = Purposes(serde_norway::from_str(list).unwrap());
        assert!(purposes.judge("install", &outcome(&["a", "b/1", "b/2"])).is_empty());
        assert_eq!(purposes.judge("install", &outcome(&["a", "b/1", "c"])).len(), 1);
        let stale = purposes.judge("install", &outcome(&["b/1"]));
        assert_eq!(stale, ["`a` is listed as different on purpose, and is not"]);
        assert!(serde_norway::from_str::<Vec<Purpose>>("[{replay: install, what: [a]}]").is_err());
    }
}
