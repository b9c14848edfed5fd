//! `cargo xtask dist`: the programs of a host, in one folder.

use anyhow::Result;
use clap::Args;

use crate::workspace::{self, Profile};

/// Options of the chore.
#[derive(Args)]
pub struct Arguments {
    /// Build quickly instead of well
    #[arg(long)]
    dev: bool,
}

/// The chore.
pub fn run(arguments: &Arguments) -> Result<()> {
    let profile = if arguments.dev { Profile::Dev } else { Profile::Release };
    workspace::build_programs(profile)?;
    println!("dist: {}", profile.folder().display());
    Ok(())
}
