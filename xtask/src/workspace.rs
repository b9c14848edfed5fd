//! Where things are: the workspace and its target folder; and how its programs are built.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::Program;

/// Longest build, from nothing on a slow machine.
const BUILD_DEADLINE: Duration = Duration::from_secs(3600);

/// Root of the workspace.
pub fn root() -> &'static Path {
    // xtask/ lies directly below the root.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"))
}

/// Cargo's target folder.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The cargo that runs this chore.
pub fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}

/// A program that [`build_programs`] built.
pub fn program(name: &str) -> PathBuf {
    target().join("debug").join(name)
}

/// The folder with the CNI plugin that [`build_programs`] built.
pub fn cni_folder() -> PathBuf {
    target().join("cni")
}

/// Builds all tests.
pub fn build_tests() -> Result<()> {
    build(&["test", "--workspace", "--no-run"])
}

/// Builds all programs of the workspace, and the CNI plugin as what it is shipped as: one static file.
pub fn build_programs() -> Result<()> {
    let build =
        |arguments: &[&str]| Program::new(cargo()).args(arguments).folder(root()).deadline(BUILD_DEADLINE).show();
    // xtask runs right now: it is left out.
    build(&["build", "--workspace", "--exclude", "xtask", "--bins"])?;
    build(&[
        "rustc",
        "--quiet",
        "--package",
        "holdfast-cni",
        "--bin",
        "holdfast",
        "--profile",
        "release",
        "--",
        "-C",
        "target-feature=+crt-static",
    ])?;
    let (built, place) = (target().join("release/holdfast"), cni_folder());
    std::fs::create_dir_all(&place).with_context(|| format!("failed to make {}", place.display()))?;
    // Beside and renamed: a plugin that is running cannot be written to.
    let beside = place.join(".holdfast");
    std::fs::copy(&built, &beside).with_context(|| format!("failed to copy {}", built.display()))?;
    std::fs::rename(&beside, place.join("holdfast")).context("failed to put the CNI plugin in place")
}

fn build(arguments: &[&str]) -> Result<()> {
    Program::new(cargo()).args(arguments).folder(root()).deadline(BUILD_DEADLINE).show()
}
