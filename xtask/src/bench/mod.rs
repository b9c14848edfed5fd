//! `cargo xtask bench`: what the product costs, each figure beside a peer or a floor, most of them measured in the same
//! run. It tells, and fails nothing: no figure is a test, for machines differ.

mod cluster;
mod network;
mod record;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};

use crate::{process, setup};

/// Options of the chore.
#[derive(Args)]
pub struct Arguments {
    /// What to measure; all where nothing is named
    #[arg(value_enum)]
    lanes: Vec<Lane>,
    /// The cluster to measure on; brought up for it, and down again, unless it is up
    #[arg(long, value_name = "NAME", default_value = crate::cluster::DEFAULT, value_parser = crate::cluster::name)]
    cluster: String,
    /// Write the figures to this file as well, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Lane {
    /// Attachments: the CNI plugin and the agent beside the reference plugins, in namespaces made for it
    Network,
    /// VMs on a test cluster, beside empty pods there
    Cluster,
}

/// The chore.
pub fn run(arguments: &Arguments) -> Result<()> {
    setup::require_root("the bench")?;
    process::catch_signals()?;
    // What is printed but for the figures is for who waits.
    let tell = |line: &str| eprintln!("bench: {line}");
    setup::ensure(&mut |line| tell(line))?;
    let asked = |lane| arguments.lanes.is_empty() || arguments.lanes.contains(&lane);
    let mut records = Vec::new();
    let mut measure = || {
        if asked(Lane::Network) {
            network::measure(&mut records, &tell)?;
        }
        if asked(Lane::Cluster) {
            cluster::measure(&arguments.cluster, &mut records, &tell)?;
        }
        Ok(())
    };
    // What was measured is told also where the rest could not be.
    let measured: Result<()> = measure();
    println!("{}", record::table(&records));
    if let Some(file) = &arguments.json {
        let text = serde_json::to_string_pretty(&records)?;
        std::fs::write(file, text + "\n").with_context(|| format!("failed to write {}", file.display()))?;
    }
    measured
}
