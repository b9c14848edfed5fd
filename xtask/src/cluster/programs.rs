//! The programs of a cluster, built from the Go modules that tests/cluster pins.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest as _, Sha256};

use super::go;
use super::layout::programs;
use crate::process::Program;
use crate::workspace;

/// Longest build of one module, from nothing on a slow machine.
const DEADLINE: Duration = Duration::from_secs(3600);

/// The version of Kubernetes that the programs say they are. Of the same as in tests/cluster/kubernetes/go.mod.
const KUBERNETES: &str = "1.36.3";

/// The reference plugins that are installed on each node.
pub const CNI_PLUGINS: &[&str] =
    &["bridge", "host-device", "host-local", "loopback", "macvlan", "portmap", "ptp", "static", "tuning"];

/// A Go module of ours, whose `tool` lines name the programs.
struct Module {
    /// Its folder in tests/cluster.
    name: &'static str,
    /// The name of its one program, where Go would give it another.
    program: Option<&'static str>,
}

const MODULES: &[Module] = &[
    Module { name: "kubernetes", program: None },
    Module { name: "containerd", program: None },
    Module { name: "etcd", program: Some("etcd") },
];

/// The module of the reference plugins and the reference runtime.
const CNI: Module = Module { name: "cni", program: None };

/// Builds what is not built from its sources as they are now. Nothing to do takes no time.
pub fn build(tell: &mut dyn FnMut(&str)) -> Result<()> {
    for module in MODULES.iter().chain([&CNI]) {
        module.ensure(tell)?;
    }
    ensure("pause", &[source().join("pause/pause.rs")], build_pause)
}

/// Builds the reference plugins and the reference runtime alone, for who needs no cluster.
pub fn build_cni(tell: &mut dyn FnMut(&str)) -> Result<()> {
    CNI.ensure(tell)
}

/// Calls `build` with an empty folder, and places what it puts there among the programs, unless that was done before
/// from the same `sources`.
fn ensure(name: &str, sources: &[PathBuf], build: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let folder = programs();
    fs::create_dir_all(&folder).with_context(|| format!("failed to make {}", folder.display()))?;
    let _lock = lock(&folder.join(format!(".lock-{name}")))?;
    let stamp = folder.join(format!(".stamp-{name}"));
    let wanted = fingerprint(sources)?;
    if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    let new = folder.with_extension(name);
    let _ = fs::remove_dir_all(&new);
    fs::create_dir_all(&new).with_context(|| format!("failed to make {}", new.display()))?;
    build(&new)?;
    for program in fs::read_dir(&new)? {
        let program = program?;
        // Renamed: the old one may be running.
        fs::rename(program.path(), folder.join(program.file_name()))
            .with_context(|| format!("failed to place {}", program.path().display()))?;
    }
    fs::remove_dir(&new)?;
    fs::write(&stamp, wanted).with_context(|| format!("failed to write {}", stamp.display()))
}

/// Keeps others from building the same: clusters and tests may begin at once.
fn lock(path: &Path) -> Result<Flock<File>> {
    let file = File::create(path).with_context(|| format!("failed to open {}", path.display()))?;
    let locked = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno);
    locked.with_context(|| format!("failed to lock {}", path.display()))
}

impl Module {
    fn folder(&self) -> PathBuf {
        source().join(self.name)
    }

    fn ensure(&self, tell: &mut dyn FnMut(&str)) -> Result<()> {
        let sources = ["go.mod", "go.sum"].map(|file| self.folder().join(file));
        ensure(self.name, &sources, |to| {
            let go = go::find(tell)?;
            tell(&format!("building {} (12 minutes for all where Go's cache is cold)", self.name));
            let start = Instant::now();
            self.build(&go, to)?;
            tell(&format!("built {} in {:.1} s", self.name, start.elapsed().as_secs_f64()));
            Ok(())
        })
    }

    fn build(&self, go: &go::Go, to: &Path) -> Result<()> {
        let output =
            self.program.map_or_else(|| format!("{}/", to.display()), |name| to.join(name).display().to_string());
        go.program()
            .args(["build", "-mod=readonly", "-ldflags", &link_flags(), "-o", &output, "tool"])
            .folder(self.folder())
            .deadline(DEADLINE)
            .output()
            .map(drop)
            .with_context(|| format!("failed to build {}", self.folder().display()))
    }
}

/// Without symbols; and Kubernetes is told its version this way.
fn link_flags() -> String {
    let version = "k8s.io/component-base/version";
    let minor = KUBERNETES.split('.').nth(1).unwrap_or_default();
    format!("-s -w -X {version}.gitVersion=v{KUBERNETES} -X {version}.gitMajor=1 -X {version}.gitMinor={minor}")
}

/// The process of pods' sandboxes: one static file.
fn build_pause(to: &Path) -> Result<()> {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    Program::new(rustc)
        .args(["--edition=2024", "-Ctarget-feature=+crt-static", "-Copt-level=s", "-Cpanic=abort", "-Cstrip=symbols"])
        .arg("-o")
        .arg(to.join("pause"))
        .arg(source().join("pause/pause.rs"))
        .output()
        .map(drop)
        .context("failed to build the pause program")
}

fn source() -> PathBuf {
    workspace::root().join("tests/cluster")
}

/// Stands for all that programs are built from.
fn fingerprint(sources: &[PathBuf]) -> Result<String> {
    let mut hash = Sha256::new();
    hash.update(link_flags());
    for file in sources {
        hash.update(fs::read(file).with_context(|| format!("failed to read {}", file.display()))?);
    }
    Ok(hex::encode(hash.finalize()))
}

/// The newest Go that a module asks for.
pub fn wanted_go() -> Result<String> {
    let mut wanted = String::new();
    for module in MODULES.iter().chain([&CNI]) {
        let file = module.folder().join("go.mod");
        let text = fs::read_to_string(&file).with_context(|| format!("failed to read {}", file.display()))?;
        let asked = text.lines().find_map(|line| line.strip_prefix("go ")).unwrap_or_default().trim();
        if go::version(asked) > go::version(&wanted) {
            wanted = asked.to_owned();
        }
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_pin_what_the_programs_say_they_are() {
        let text = fs::read_to_string(source().join("kubernetes/go.mod")).unwrap();
        assert!(text.contains(&format!("k8s.io/kubernetes v{KUBERNETES}")), "{text}");
    }

    #[test]
    fn modules_come_from_where_they_say() {
        for module in MODULES.iter().chain([&CNI]) {
            let text = fs::read_to_string(module.folder().join("go.mod")).unwrap();
            for line in text.lines().filter(|line| line.starts_with("replace ")) {
                let (from, to) = line["replace ".len()..].split_once(" => ").unwrap();
                assert!(to.starts_with(&format!("{from} v")), "only a version may be replaced: {line}");
            }
        }
    }

    #[test]
    fn every_plugin_of_a_node_is_built() {
        let text = fs::read_to_string(source().join("cni/go.mod")).unwrap();
        for plugin in CNI_PLUGINS {
            assert!(text.lines().any(|line| line.trim_start().ends_with(&format!("/{plugin}"))), "{plugin}");
        }
    }
}
