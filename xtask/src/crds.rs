//! `cargo xtask crds`: the custom resource definitions, generated from the types of holdfast-api.
//!
//! The types are built in by the feature `crds` only; without it this chore runs itself again with the feature.

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
#[cfg(not(feature = "crds"))]
pub fn run(arguments: &Arguments) -> Result<()> {
    let again = ["run", "--quiet", "--package", "xtask", "--features", "crds", "--", "crds"];
    crate::process::Program::new(crate::workspace::cargo())
        .args(again)
        .args(arguments.check.then_some("--check"))
        .folder(crate::workspace::root())
        .deadline(std::time::Duration::from_secs(1200))
        .show()
}

/// The chore.
#[cfg(feature = "crds")]
pub fn run(arguments: &Arguments) -> Result<()> {
    let generated = holdfast_api::crd::crds()
        .iter()
        .filter_map(|crd| Some((format!("{}.yaml", crd.metadata.name.as_ref()?), holdfast_api::crd::crd_yaml(crd))))
        .collect();
    let folder = crate::workspace::root().join("deploy/crds");
    let stale = files::stale(&folder, &generated)?;
    if arguments.check && !stale.is_empty() {
        anyhow::bail!("not what the types say; run `cargo xtask crds`: {}", stale.join(", "));
    }
    if !arguments.check {
        files::write(&folder, &generated)?;
    }
    println!("crds: {} in deploy/crds, {} changed", generated.len(), stale.len());
    Ok(())
}

/// A folder that holds generated files and nothing else.
#[cfg(any(feature = "crds", test))]
mod files {
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::{fs, io};

    use anyhow::{Context, Result};

    /// Names of files that are not as generated: missing, different, or not generated at all.
    pub fn stale(folder: &Path, generated: &BTreeMap<String, String>) -> Result<Vec<String>> {
        let mut stale: Vec<String> = generated
            .iter()
            .filter(|(name, text)| fs::read_to_string(folder.join(name)).ok().as_ref() != Some(text))
            .map(|(name, _)| name.clone())
            .collect();
        stale.extend(present(folder)?.into_iter().filter(|name| !generated.contains_key(name)));
        Ok(stale)
    }

    /// Makes the folder hold these files and no others.
    pub fn write(folder: &Path, generated: &BTreeMap<String, String>) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("failed to make {}", folder.display()))?;
        for name in present(folder)?.iter().filter(|name| !generated.contains_key(*name)) {
            fs::remove_file(folder.join(name)).with_context(|| format!("failed to remove `{name}`"))?;
        }
        for (name, text) in generated {
            fs::write(folder.join(name), text).with_context(|| format!("failed to write `{name}`"))?;
        }
        Ok(())
    }

    fn present(folder: &Path) -> Result<Vec<String>> {
        match fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            entries => entries
                .with_context(|| format!("failed to list {}", folder.display()))?
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .collect(),
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn stale_files_are_named_and_replaced() {
            let folder = tempfile::tempdir().unwrap();
            let folder = folder.path().join("crds");
            let generated: BTreeMap<_, _> =
                [("a", "1"), ("b", "2")].map(|(name, text)| (name.to_owned(), text.to_owned())).into();
            assert_eq!(stale(&folder, &generated).unwrap(), ["a", "b"]);
            write(&folder, &generated).unwrap();
            assert!(stale(&folder, &generated).unwrap().is_empty());
            fs::write(folder.join("b"), "changed").unwrap();
            fs::write(folder.join("old"), "").unwrap();
            assert_eq!(stale(&folder, &generated).unwrap(), ["b", "old"]);
            write(&folder, &generated).unwrap();
            assert_eq!(stale(&folder, &generated).unwrap(), Vec::<String>::new());
        }
    }
}
