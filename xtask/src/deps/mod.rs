//! `cargo xtask check-deps`: dependencies point the way that ARCHITECTURE.md says.

mod facts;
mod rules;

use anyhow::{Result, bail};
use clap::Args;

use facts::{Facts, Package};
use rules::{CONFINED, DIRECTIONS, FORBIDDEN};

/// Options of the chore.
#[derive(Args)]
pub struct Arguments {
    /// Print the rules with their reasons, check nothing
    #[arg(long)]
    list: bool,
}

/// The chore.
pub fn run(arguments: &Arguments) -> Result<()> {
    if arguments.list {
        for rule in DIRECTIONS {
            println!("{} -> [{}]: {}", rule.package, rule.may_use.join(", "), rule.reason);
        }
        for rule in FORBIDDEN {
            println!("{} without {}: {}", rule.package, rule.krate, rule.reason);
        }
        for rule in CONFINED {
            println!("{} only in {} of {}", rule.krate, rule.folder, rule.package);
        }
        return Ok(());
    }
    let violations = violations(&facts::read()?);
    for violation in &violations {
        eprintln!("check-deps: {violation}");
    }
    if !violations.is_empty() {
        bail!("{} dependencies break the rules of xtask/src/deps/rules.rs", violations.len());
    }
    println!("check-deps: every dependency follows the rules");
    Ok(())
}

/// All that breaks a rule, a sentence each.
fn violations(facts: &Facts) -> Vec<String> {
    let mut found = Vec::new();
    for (name, package) in &facts.packages {
        direction(facts, name, package, &mut found);
        found.extend(
            package
                .own_versions
                .iter()
                .map(|krate| format!("`{name}` does not take `{krate}` from [workspace.dependencies]")),
        );
        confinement(name, package, &mut found);
    }
    for rule in FORBIDDEN {
        if facts.trees.get(rule.package).is_some_and(|tree| tree.contains(rule.krate)) {
            found.push(format!("`{}` is built with `{}`, but {}", rule.package, rule.krate, rule.reason));
        }
    }
    found
}

fn direction(facts: &Facts, name: &str, package: &Package, found: &mut Vec<String>) {
    let Some(rule) = DIRECTIONS.iter().find(|rule| rule.package == name) else {
        found.push(format!("`{name}` has no line in the table of directions"));
        return;
    };
    for dependency in &package.dependencies {
        if facts.packages.contains_key(dependency) && !rule.may_use.contains(&dependency.as_str()) {
            found.push(format!("`{name}` depends on `{dependency}`, but {}", rule.reason));
        }
    }
}

fn confinement(name: &str, package: &Package, found: &mut Vec<String>) {
    for rule in CONFINED {
        if name != rule.package {
            if package.dependencies.contains(&rule.krate.replace('_', "-")) {
                found.push(format!("`{name}` depends on `{}`, which belongs to `{}` alone", rule.krate, rule.package));
            }
            continue;
        }
        for (path, text) in &package.sources {
            // A file beside the folder (src/libvirt.rs) is its root.
            let inside = path.starts_with(rule.folder) || path.with_extension("").as_os_str() == rule.folder;
            if !inside && names(text, rule.krate) {
                found.push(format!(
                    "{name}/{} uses `{}`, which belongs to {}",
                    path.display(),
                    rule.krate,
                    rule.folder
                ));
            }
        }
    }
}

/// Whether code names the crate in a path: `krate::`, not as the end of a longer name nor in a comment.
fn names(text: &str, krate: &str) -> bool {
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).any(|line| {
        line.match_indices(&format!("{krate}::")).any(|(start, _)| {
            !line[..start].ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == ':')
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(dependencies: &[&str]) -> Package {
        Package { dependencies: dependencies.iter().map(|name| (*name).to_owned()).collect(), ..Package::default() }
    }

    fn facts(name: &str, package: Package) -> Facts {
        let mut facts = Facts::default();
        for rule in DIRECTIONS {
            facts.packages.insert(rule.package.to_owned(), Package::default());
        }
        facts.packages.insert(name.to_owned(), package);
        facts
    }

    #[test]
    fn a_right_graph_passes() {
        let facts = facts("holdfast-launcher", package(&["virt", "holdfast-api", "holdfast-net", "tokio"]));
        assert_eq!(violations(&facts), Vec::<String>::new());
    }

    #[test]
    fn a_wrong_direction_is_found() {
        let found = violations(&facts("holdfast-net", package(&["holdfast-api"])));
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("`holdfast-net` depends on `holdfast-api`"), "{found:?}");
    }

    #[test]
    fn a_new_package_needs_a_rule() {
        let found = violations(&facts("holdfast-new", package(&[])));
        assert_eq!(found, ["`holdfast-new` has no line in the table of directions"]);
    }

    #[test]
    fn a_forbidden_crate_is_found_in_the_tree() {
        let mut facts = facts("holdfast-cni", package(&["holdfast-agent-api"]));
        facts.trees.insert("holdfast-cni".to_owned(), ["serde", "tokio"].map(str::to_owned).into());
        let found = violations(&facts);
        assert!(found.len() == 1 && found[0].starts_with("`holdfast-cni` is built with `tokio`"), "{found:?}");
    }

    #[test]
    fn a_crate_with_effects_stays_in_its_place() {
        let found = violations(&facts("holdfast-agent", package(&["netlink-packet-route"])));
        assert!(found.len() == 1 && found[0].contains("belongs to `holdfast-net` alone"), "{found:?}");

        let source =
            |path: &str, text: &str| Package { sources: vec![(path.into(), text.to_owned())], ..Package::default() };
        let found = violations(&facts("holdfast-net", source("src/plan/mod.rs", "use rtnetlink::Handle;")));
        assert_eq!(found, ["holdfast-net/src/plan/mod.rs uses `rtnetlink`, which belongs to src/kernel"]);
        for good in [
            source("src/kernel/links.rs", "use rtnetlink::Handle;"),
            source("src/kernel.rs", "use rtnetlink::Handle;"),
            source("src/plan/mod.rs", "// rtnetlink::Handle\nuse my_rtnetlink::Handle; use crate::rtnetlink::X;"),
        ] {
            assert_eq!(violations(&facts("holdfast-net", good)), Vec::<String>::new());
        }
    }

    #[test]
    fn a_version_outside_the_workspace_is_found() {
        let manifest = "[dependencies]\na.workspace = true\nb = \"1\"\n[dev-dependencies]\nc = { workspace = true }\n\
                        [target.'cfg(unix)'.build-dependencies.d]\nversion = \"1\"\n";
        assert_eq!(facts::own_versions(manifest).unwrap(), ["b", "d"]);
        let found = violations(&facts("holdfast-cli", Package { own_versions: vec!["b".to_owned()], ..package(&[]) }));
        assert_eq!(found, ["`holdfast-cli` does not take `b` from [workspace.dependencies]"]);
    }
}
