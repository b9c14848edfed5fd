//! `cargo xtask crds`: the custom resource definitions, generated from the types of holdfast-api.

use anyhow::Result;
use clap::Args;

/// Options of the chore.
#[derive(Args)]
pub struct Arguments {
    /// Write nothing; fail where a file is not what would be written
    #[arg(long)]
    check: bool,
}

/// The chore.
pub fn run(arguments: &Arguments) -> Result<()> {
    generate(arguments)
}

/// Runs this chore again with the types of holdfast-api built in.
#[cfg(not(feature = "crds"))]
fn generate(arguments: &Arguments) -> Result<()> {
    use std::time::Duration;

    let mut again = vec!["run", "--quiet", "--package", "xtask", "--features", "crds", "--", "crds"];
    if arguments.check {
        again.push("--check");
    }
    crate::process::Program::new(crate::workspace::cargo())
        .args(again)
        .folder(crate::workspace::root())
        .deadline(Duration::from_secs(1200))
        .show()
}

#[cfg(feature = "crds")]
fn generate(_arguments: &Arguments) -> Result<()> {
    anyhow::bail!("not there yet")
}
