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

/// How programs are built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Quick to build.
    Dev,
    /// Quick to run, and small.
    Release,
}

impl Profile {
    /// Its name for cargo, and that of cargo's folder.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Dev => ("dev", "debug"),
            Self::Release => ("dist", "dist"),
        }
    }

    /// The folder with all programs that [`build_programs`] built: what is installed on a host.
    pub fn folder(self) -> PathBuf {
        target().join("dist").join(self.names().1)
    }
}

/// The programs of a host, besides the CNI plugin.
const PROGRAMS: &[&str] = &["holdfastd", "virt-launcher", "virtctl"];

/// Builds all programs, and the CNI plugin as what it is shipped as: one static file.
pub fn build_programs(profile: Profile) -> Result<()> {
    let (name, folder) = profile.names();
    // All at once and as parts of the workspace: cargo then builds their dependencies as it does for the tests.
    // xtask runs right now: it is left out.
    build(&["build", "--workspace", "--exclude", "xtask", "--bins", "--profile", name])?;
    for program in PROGRAMS {
        place(&target().join(folder).join(program), &profile.folder())?;
    }
    build_cni(&profile.folder())
}

/// Builds holdfastd and the CNI plugin alone, as they are shipped: what wires pods on a host.
pub fn build_node() -> Result<()> {
    let (name, folder) = Profile::Release.names();
    build(&["build", "--package", "holdfast-standalone", "--bins", "--profile", name])?;
    place(&target().join(folder).join("holdfastd"), &Profile::Release.folder())?;
    build_cni(&Profile::Release.folder())
}

/// The folder with all programs that [`build_image_programs`] built.
pub fn image_programs() -> PathBuf {
    target().join("dist/images")
}

/// Builds the programs of the images. virt-operator is linked statically, for its image holds nothing else.
pub fn build_image_programs() -> Result<()> {
    let (name, folder) = Profile::Release.names();
    Program::new(cargo())
        .args(["build", "--bins", "--profile", name])
        .args(["--package", "holdfast-controller", "--package", "holdfast-handler", "--package", "holdfast-launcher"])
        .env("RUSTC_WORKSPACE_WRAPPER", root().join("xtask/src/images/rustc-static.sh"))
        .folder(root())
        .deadline(BUILD_DEADLINE)
        .show()?;
    for program in ["virt-handler", "virt-launcher", "virt-operator"] {
        place(&target().join(folder).join(program), &image_programs())?;
    }
    build_cni(&image_programs())
}

/// Builds the CNI plugin into `folder`.
fn build_cni(folder: &Path) -> Result<()> {
    // By itself, for in the workspace it would get the features that others ask of their common dependencies. With
    // release's settings always: this is the one program whose size and start count.
    build(&[
        "rustc",
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
    place(&target().join("release/holdfast"), folder)
}

/// Builds virtctl quickly, as a part of the workspace like everything that tests use, and returns where it is.
pub fn build_virtctl() -> Result<PathBuf> {
    build(&["build", "--workspace", "--exclude", "xtask", "--bin", "virtctl"])?;
    place(&target().join("debug/virtctl"), &Profile::Dev.folder())?;
    Ok(Profile::Dev.folder().join("virtctl"))
}

/// Builds the programs that the tests of a host start, beside those tests.
pub fn build_host_programs() -> Result<()> {
    build(&[
        "build",
        "--workspace",
        "--exclude",
        "xtask",
        "--bin",
        "holdfastd",
        "--bin",
        "virt-launcher",
        "--bin",
        "holdfast",
        "--bin",
        "virtctl",
    ])
}

/// Builds the tests that this selection chooses.
pub fn build_test(selection: &[String]) -> Result<()> {
    let selection = selection.iter().map(String::as_str);
    build(&["test", "--workspace", "--no-run"].into_iter().chain(selection).collect::<Vec<_>>())
}

/// Builds all tests.
pub fn build_tests() -> Result<()> {
    build(&["test", "--workspace", "--no-run"])
}

/// Copies a program into a folder: beside and renamed, for a program that is running cannot be written to.
pub fn place(program: &Path, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("failed to make {}", folder.display()))?;
    let name = program.file_name().unwrap_or_default();
    let beside = folder.join(".new");
    std::fs::copy(program, &beside).with_context(|| format!("failed to copy {}", program.display()))?;
    std::fs::rename(&beside, folder.join(name)).with_context(|| format!("failed to place {}", program.display()))
}

fn build(arguments: &[&str]) -> Result<()> {
    Program::new(cargo()).args(arguments).folder(root()).deadline(BUILD_DEADLINE).show()
}
