//! The suites: what cargo is told to run for each. They come from cargo's own list of test targets, so that a new
//! test is never forgotten.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::process::Program;
use crate::workspace;

/// A suite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suite {
    /// Its name: `unit`, or the folder of a package.
    pub name: String,
    /// What it is about.
    pub about: String,
    /// Arguments of `cargo test` that choose its tests.
    pub selection: Vec<String>,
}

/// The order of packages: from what others are built on to the whole.
const ORDER: &[&str] =
    &["api", "net", "agent-api", "ipam", "agent", "cni-plugin", "launcher", "parsers", "cli", "standalone", "cluster"];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    manifest_path: PathBuf,
    description: Option<String>,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

/// All suites, in the order to run them in.
pub fn all() -> Result<Vec<Suite>> {
    let text = Program::new(workspace::cargo())
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .folder(workspace::root())
        .deadline(Duration::from_secs(120))
        .output()?;
    from_metadata(&text)
}

fn from_metadata(text: &str) -> Result<Vec<Suite>> {
    let metadata: Metadata = serde_json::from_str(text).context("failed to read what cargo says of the workspace")?;
    let mut suites = vec![Suite {
        name: "unit".to_owned(),
        about: "unit and property tests of all crates, beside their code".to_owned(),
        selection: ["--lib", "--bins"].map(str::to_owned).into(),
    }];
    let mut owners = BTreeMap::new();
    for package in metadata.packages {
        let folder = package.manifest_path.parent().and_then(|path| path.file_name()).unwrap_or_default();
        let folder = folder.to_string_lossy().into_owned();
        let tests = package.targets.iter().filter(|target| target.kind == ["test"]);
        let mut selection = Vec::new();
        for test in tests {
            // cargo chooses a test by its name, in all packages at once.
            if let Some(other) = owners.insert(test.name.clone(), folder.clone()) {
                bail!("`{other}` and `{folder}` both have a test `{}`: give them different names", test.name);
            }
            selection.extend(["--test".to_owned(), test.name.clone()]);
        }
        if !selection.is_empty() {
            suites.push(Suite { name: folder, about: package.description.unwrap_or_default(), selection });
        }
    }
    suites.sort_by_key(|suite| match suite.name.as_str() {
        "unit" => 0,
        name => 1 + ORDER.iter().position(|folder| *folder == name).unwrap_or(ORDER.len()),
    });
    Ok(suites)
}

/// The suites of these names, in the order of `all`; all of them where no name is given.
pub fn choose(all: Vec<Suite>, names: &[String]) -> Result<Vec<Suite>> {
    if let Some(unknown) = names.iter().find(|name| all.iter().all(|suite| suite.name != **name)) {
        let known: Vec<_> = all.iter().map(|suite| suite.name.as_str()).collect();
        bail!("there is no suite `{unknown}`: there are {}", known.join(", "));
    }
    Ok(all.into_iter().filter(|suite| names.is_empty() || names.contains(&suite.name)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const METADATA: &str = r#"{"packages": [
        {"manifest_path": "/x/standalone/Cargo.toml", "description": "s", "targets": [{"name": "host", "kind": ["test"]}]},
        {"manifest_path": "/x/cli/Cargo.toml", "description": null, "targets": [{"name": "virtctl", "kind": ["bin"]}]},
        {"manifest_path": "/x/net/Cargo.toml", "description": "n",
         "targets": [{"name": "net", "kind": ["lib"]}, {"name": "kernel", "kind": ["test"]}]}]}"#;

    #[test]
    fn every_test_target_is_in_a_suite() {
        let suites = from_metadata(METADATA).unwrap();
        let names: Vec<_> = suites.iter().map(|suite| (suite.name.as_str(), suite.selection.join(" "))).collect();
        let expected = [("unit", "--lib --bins"), ("net", "--test kernel"), ("standalone", "--test host")];
        assert_eq!(names, expected.map(|(name, selection)| (name, selection.to_owned())));
        let chosen = choose(suites.clone(), &["net".to_owned()]).unwrap();
        assert_eq!(chosen.len(), 1);
        assert_eq!(choose(suites.clone(), &[]).unwrap(), suites);
        let error = choose(suites, &["nte".to_owned()]).unwrap_err().to_string();
        assert_eq!(error, "there is no suite `nte`: there are unit, net, standalone");
    }

    #[test]
    fn a_name_in_two_packages_is_refused() {
        let error = from_metadata(&METADATA.replace("\"host\"", "\"kernel\"")).unwrap_err().to_string();
        assert!(error.contains("`standalone` and `net` both have a test `kernel`"), "{error}");
    }
}
