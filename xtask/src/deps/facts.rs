//! What is so: the workspace's packages, their dependencies and their sources, read from cargo and from disk.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use anyhow::{Context, Result};
use serde::Deserialize;

use super::rules;
use crate::process::Program;
use crate::workspace;

/// The workspace as the rules look at it.
#[derive(Default)]
pub struct Facts {
    /// Each package of the workspace by name.
    pub packages: BTreeMap<String, Package>,
    /// All crates that a package is built of when it is built by itself; for packages with rules on that.
    pub trees: BTreeMap<String, BTreeSet<String>>,
}

/// One package of the workspace.
#[derive(Default)]
pub struct Package {
    /// Crates that it names as dependencies for its own code; those of its tests are left out.
    pub dependencies: BTreeSet<String>,
    /// Dependencies of any kind that do not come from the workspace's table.
    pub own_versions: Vec<String>,
    /// Its sources: path relative to the package, text.
    pub sources: Vec<(PathBuf, String)>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<MetadataPackage>,
}

#[derive(Deserialize)]
struct MetadataPackage {
    name: String,
    manifest_path: PathBuf,
    dependencies: Vec<MetadataDependency>,
}

#[derive(Deserialize)]
struct MetadataDependency {
    name: String,
    kind: Option<String>,
}

/// Reads them.
pub fn read() -> Result<Facts> {
    let cargo = |arguments: &[&str]| {
        Program::new(workspace::cargo())
            .args(arguments)
            .folder(workspace::root())
            .deadline(Duration::from_secs(300))
            .output()
    };
    let metadata: Metadata = serde_json::from_str(&cargo(&["metadata", "--format-version", "1", "--no-deps"])?)
        .context("failed to read what cargo says of the workspace")?;
    let mut facts = Facts::default();
    for package in metadata.packages {
        let manifest = fs::read_to_string(&package.manifest_path)
            .with_context(|| format!("failed to read {}", package.manifest_path.display()))?;
        let folder = package.manifest_path.parent().unwrap_or(Path::new("/"));
        let mut sources = Vec::new();
        read_sources(folder, &folder.join("src"), &mut sources)?;
        let dependencies = package.dependencies.iter().filter(|dependency| dependency.kind.as_deref() != Some("dev"));
        facts.packages.insert(
            package.name,
            Package {
                dependencies: dependencies.map(|dependency| dependency.name.clone()).collect(),
                own_versions: own_versions(&manifest)?,
                sources,
            },
        );
    }
    for package in rules::FORBIDDEN.iter().map(|rule| rule.package).collect::<BTreeSet<_>>() {
        // Of this package alone: with others, cargo would join their features.
        let tree = cargo(&["tree", "-p", package, "-e", "normal,build", "--prefix", "none", "--format", "{p}"])?;
        let crates = tree.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
        facts.trees.insert(package.to_owned(), crates);
    }
    Ok(facts)
}

/// Names of the dependencies in a manifest that are not taken from the workspace.
pub fn own_versions(manifest: &str) -> Result<Vec<String>> {
    let manifest: toml::Table = manifest.parse().context("failed to parse a manifest")?;
    let mut own = Vec::new();
    collect_own_versions(&manifest, &mut own);
    Ok(own)
}

fn collect_own_versions(table: &toml::Table, own: &mut Vec<String>) {
    for (key, value) in table {
        let toml::Value::Table(inner) = value else { continue };
        if matches!(key.as_str(), "dependencies" | "dev-dependencies" | "build-dependencies") {
            let from_workspace =
                |value: &toml::Value| value.get("workspace").and_then(toml::Value::as_bool) == Some(true);
            own.extend(inner.iter().filter(|(_, value)| !from_workspace(value)).map(|(name, _)| name.clone()));
        } else if key == "target" {
            // [target.'cfg(...)'.dependencies]
            inner.values().filter_map(toml::Value::as_table).for_each(|target| collect_own_versions(target, own));
        }
    }
}

fn read_sources(package: &Path, folder: &Path, sources: &mut Vec<(PathBuf, String)>) -> Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| format!("failed to list {}", folder.display()))?,
    };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            read_sources(package, &path, sources)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
            sources.push((path.strip_prefix(package).unwrap_or(&path).to_owned(), text));
        }
    }
    Ok(())
}
