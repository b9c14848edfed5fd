//! `cargo xtask leaks`: what a run leaves behind. A snapshot before, one after; what is in the second only leaked.
//!
//! Each kind of trace has a function that lists all of that kind on the machine that could be ours. Listing needs
//! no record of what a run made, so that it also finds what a run forgot.

mod clusters;
mod files;
mod kernel;
mod mounts;
mod ovs;
mod processes;

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::process;

/// How long a leak may take to go away: the kernel destroys namespaces, and init reaps orphans, at their leisure.
const SETTLE: Duration = Duration::from_secs(10);

/// Options of the chore.
#[derive(Args)]
pub struct Arguments {
    /// Write what is there now to FILE
    #[arg(long, value_name = "FILE", conflicts_with = "since")]
    save: Option<PathBuf>,
    /// Compare with FILE, and fail where there is more
    #[arg(long, value_name = "FILE")]
    since: Option<PathBuf>,
}

/// One thing that a run could leave behind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Trace {
    kind: Kind,
    /// What names it among its kind.
    name: String,
}

/// The kinds of traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    Cgroup,
    File,
    Link,
    Mount,
    NetworkNamespace,
    NftTable,
    OvsPort,
    Process,
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Cgroup => "cgroup",
            Kind::File => "file",
            Kind::Link => "link",
            Kind::Mount => "mount",
            Kind::NetworkNamespace => "network namespace",
            Kind::NftTable => "nft table",
            Kind::OvsPort => "OVS port",
            Kind::Process => "process",
        };
        write!(f, "{kind} {}", self.name)
    }
}

/// All traces at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot(BTreeSet<Trace>);

impl Snapshot {
    /// Looks at the machine.
    pub fn take() -> Result<Self> {
        let mut all = BTreeSet::new();
        let mut add = |kind, names: Vec<String>| all.extend(names.into_iter().map(|name| Trace { kind, name }));
        add(Kind::Cgroup, files::cgroups());
        add(Kind::File, files::files());
        add(Kind::Link, kernel::links()?);
        add(Kind::NetworkNamespace, kernel::named_namespaces());
        add(Kind::NftTable, kernel::nft_tables()?);
        add(Kind::Mount, mounts::mounts()?);
        add(Kind::Process, processes::processes()?);
        add(Kind::OvsPort, ovs::ports()?);
        Ok(Self(all))
    }

    /// What is there now and was not in this snapshot, once things have settled.
    fn leaks(&self, settle: Duration) -> Result<Vec<Trace>> {
        let mut leaks = Vec::new();
        let settled = process::wait_for("leaks to go away", settle, || {
            leaks = Self::take()?.0.difference(&self.0).cloned().collect();
            Ok(leaks.is_empty().then_some(()))
        });
        // Without the wait's success the last look counts, unless it was looking that failed.
        if settled.is_err() && leaks.is_empty() { settled.map(|()| leaks) } else { Ok(leaks) }
    }
}

/// What is there now and was not before, once things have settled.
pub fn since(before: &Snapshot) -> Result<Vec<Trace>> {
    before.leaks(SETTLE)
}

/// An error that names the leaks, where there are any. `after` says what ran.
pub fn none_since(before: &Snapshot, after: &str) -> Result<()> {
    none_within(SETTLE, before, after)
}

fn none_within(settle: Duration, before: &Snapshot, after: &str) -> Result<()> {
    let leaks = before.leaks(settle)?;
    if leaks.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = leaks.iter().map(|leak| format!("  {leak}")).collect();
    bail!("{after} left {} behind:\n{}", leaks.len(), list.join("\n"))
}

/// The chore.
pub fn run(arguments: &Arguments) -> Result<()> {
    if let Some(file) = &arguments.save {
        let snapshot = Snapshot::take()?;
        std::fs::write(file, serde_json::to_vec(&snapshot)?)
            .with_context(|| format!("failed to write {}", file.display()))?;
        println!("leaks: {} traces written to {}", snapshot.0.len(), file.display());
        return Ok(());
    }
    let Some(file) = &arguments.since else {
        Snapshot::take()?.0.iter().for_each(|trace| println!("{trace}"));
        return Ok(());
    };
    let bytes = std::fs::read(file).with_context(|| format!("failed to read {}", file.display()))?;
    let before: Snapshot =
        serde_json::from_slice(&bytes).with_context(|| format!("failed to parse {}", file.display()))?;
    none_since(&before, "what ran since")?;
    println!("leaks: none");
    Ok(())
}

#[cfg(test)]
mod tests;
