//! `cargo xtask manifests`: what a user applies to install Holdfast, with registry, tag and pull policy from one place.
//! Examples, which are written by hand, get the name that the test guest has there.
//!
//! Invariant: the operator's roles hold each rule that it grants to others, because they are made of the same files
//! that it has built in: nobody may grant what he has not.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::images::{self, DEFAULT_TAG, GUEST, REGISTRY};
use crate::workspace;

/// Options of the chore.
#[derive(Args)]
pub struct Arguments {
    /// Write nothing; fail where a file is not what would be written
    #[arg(long)]
    check: bool,
    /// Registry of the images, as in REGISTRY/virt-operator
    #[arg(long, default_value = REGISTRY)]
    registry: String,
    /// Tag of the images
    #[arg(long, default_value = DEFAULT_TAG)]
    tag: String,
    /// When nodes fetch images
    #[arg(long, value_enum, default_value = "IfNotPresent")]
    pull_policy: PullPolicy,
}

/// When nodes fetch images, by Kubernetes' names.
#[derive(Clone, Copy, ValueEnum)]
#[value(rename_all = "PascalCase")]
enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

/// The files, below deploy/, and their templates: `@name@` is replaced, and a line of its own by many.
const TEMPLATES: &[(&str, &str)] = &[
    ("kubevirt-operator.yaml", include_str!("operator.yaml")),
    ("kubevirt-cr.yaml", include_str!("cr.yaml")),
    ("test/kubevirt-cr-emulation.yaml", include_str!("cr-emulation.yaml")),
];

/// The folder of examples.
const EXAMPLES: &str = "examples";

/// Where the operator keeps the rules of roles: one file for each.
const RULES: &str = "controller/operator/src/rbac";
/// The file with the rules of what the operator itself calls.
const OWN_RULES: &str = "kubevirt-operator.yaml";

/// The chore.
pub fn run(arguments: &Arguments) -> Result<()> {
    let folder = workspace::root().join("deploy");
    let mut stale = Vec::new();
    let mut files = render(arguments)?;
    files.extend(examples(arguments)?);
    let count = files.len();
    for (name, text) in files {
        let path = folder.join(&name);
        if fs::read_to_string(&path).ok().as_ref() == Some(&text) {
            continue;
        }
        stale.push(name);
        if !arguments.check {
            fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))?;
        }
    }
    if arguments.check && !stale.is_empty() {
        bail!("not what their sources say; run `cargo xtask manifests`: {}", stale.join(", "));
    }
    println!("manifests: {} in deploy, {} changed", count, stale.len());
    Ok(())
}

/// The files that templates make, with their text.
fn render(arguments: &Arguments) -> Result<Vec<(String, String)>> {
    let rules = rules()?;
    let pull_policy = arguments.pull_policy.to_possible_value().context("no such pull policy")?;
    let values = [
        ("@registry@", arguments.registry.trim_end_matches('/').to_owned()),
        ("@tag@", arguments.tag.clone()),
        ("@pull-policy@", pull_policy.get_name().to_owned()),
        ("@crd@", crd()?),
        ("@cluster-rules@", union(&rules, |rules| &rules.cluster)),
        ("@namespace-rules@", union(&rules, |rules| &rules.namespace)),
    ];
    let fill =
        |template: &str| values.iter().fold(template.to_owned(), |text, (name, value)| text.replace(name, value));
    Ok(TEMPLATES.iter().map(|(name, template)| ((*name).to_owned(), fill(template))).collect())
}

/// The examples whose machine is the test guest, with its name on this registry.
fn examples(arguments: &Arguments) -> Result<Vec<(String, String)>> {
    let folder = workspace::root().join("deploy").join(EXAMPLES);
    let guest = images::image(&arguments.registry, GUEST, &arguments.tag);
    let mut files = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("failed to read {}", folder.display()))? {
        let path = entry?.path();
        let text = fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
        if let (Some(text), Some(name)) = (with_guest(&text, &guest), path.file_name()) {
            files.push((format!("{EXAMPLES}/{}", name.display()), text));
        }
    }
    files.sort();
    Ok(files)
}

/// A text in which each image that is the test guest, from whatever registry, has this name; none where there is none.
fn with_guest(text: &str, guest: &str) -> Option<String> {
    let mark = format!("/{GUEST}:");
    let mut found = false;
    let lines = text.split_inclusive('\n').map(|line| match line.split_once("image: ") {
        Some((before, name)) if name.contains(&mark) => {
            found = true;
            format!("{before}image: {guest}\n")
        }
        _ => line.to_owned(),
    });
    let text = lines.collect();
    found.then_some(text)
}

/// The definition of the KubeVirt object, which is there before the operator is.
fn crd() -> Result<String> {
    let path = workspace::root().join("deploy/crds/kubevirts.kubevirt.io.yaml");
    let text = fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
    let name = "  name: kubevirts.kubevirt.io\n";
    let (before, after) = text.split_once(name).with_context(|| format!("{} has no name", path.display()))?;
    // Its first line says how to generate that file, not this one.
    let before = before.split_once('\n').map_or(before, |(_, rest)| rest);
    Ok(format!("{before}{name}  labels:\n    operator.kubevirt.io: \"\"\n{}", after.trim_end()))
}

/// The rules of one component or of one role of users, as text, for their comments say why.
#[derive(Debug, Default, PartialEq, Eq)]
struct Rules {
    cluster: String,
    namespace: String,
}

/// The files' rules by file name.
fn rules() -> Result<BTreeMap<String, Rules>> {
    let folder = workspace::root().join(RULES);
    let mut rules = BTreeMap::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("failed to list {}", folder.display()))? {
        let path = entry?.path();
        let text = fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
        let parsed = parse(&text).with_context(|| format!("failed to understand {}", path.display()))?;
        rules.insert(path.file_name().unwrap_or_default().to_string_lossy().into_owned(), parsed);
    }
    if !rules.contains_key(OWN_RULES) {
        bail!("{} holds no {OWN_RULES}", folder.display());
    }
    Ok(rules)
}

/// The lists below the keys `cluster` and `namespace`.
fn parse(text: &str) -> Result<Rules> {
    let mut rules = Rules::default();
    let mut section: Option<&mut String> = None;
    for line in text.lines() {
        match line {
            "cluster:" => section = Some(&mut rules.cluster),
            "namespace:" => section = Some(&mut rules.namespace),
            _ if line.starts_with("  ") => match &mut section {
                Some(section) => {
                    section.push_str(line);
                    section.push('\n');
                }
                None => bail!("a rule stands before the keys: {line}"),
            },
            _ if line.is_empty() || line.starts_with('#') => {}
            _ => bail!("neither `cluster:` nor `namespace:` nor a rule: {line}"),
        }
    }
    Ok(rules)
}

/// One list of all: the operator's own rules first.
fn union(rules: &BTreeMap<String, Rules>, of: impl Fn(&Rules) -> &String) -> String {
    let own = rules.get(OWN_RULES).map(&of).cloned().unwrap_or_default();
    let granted = rules
        .iter()
        .filter(|(name, rules)| *name != OWN_RULES && !of(rules).is_empty())
        .map(|(name, rules)| format!("  # --- granted to {}\n{}", name.trim_end_matches(".yaml"), of(rules)));
    let all: String = std::iter::once(own).chain(granted).collect();
    all.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_deploy_is_what_the_sources_say() {
        let arguments = Arguments {
            check: true,
            registry: REGISTRY.to_owned(),
            tag: DEFAULT_TAG.to_owned(),
            pull_policy: PullPolicy::IfNotPresent,
        };
        run(&arguments).unwrap();
    }

    #[test]
    fn nothing_is_left_to_fill_in() {
        let arguments = Arguments {
            check: true,
            registry: "registry.example:5000/holdfast/".to_owned(),
            tag: "v9".to_owned(),
            pull_policy: PullPolicy::Always,
        };
        let files = render(&arguments).unwrap();
        assert!(files.iter().all(|(_, text)| !text.contains('@')), "a value is missing");
        assert!(files[0].1.contains("image: registry.example:5000/holdfast/virt-operator:v9\n"));
        assert!(files[1].1.contains("imagePullPolicy: Always\n"));
    }

    #[test]
    fn examples_name_the_guest_where_it_is() {
        let text = "image: a/testguest:v0 \n# image: one\n  - image: b/other:v1\n";
        let named = with_guest(text, "r:5000/x/testguest:v2").unwrap();
        assert_eq!(named, "image: r:5000/x/testguest:v2\n# image: one\n  - image: b/other:v1\n");
        assert_eq!(with_guest("image: b/other:v1\n", "x"), None);
        let examples = examples(&Arguments {
            check: true,
            registry: REGISTRY.to_owned(),
            tag: DEFAULT_TAG.to_owned(),
            pull_policy: PullPolicy::IfNotPresent,
        });
        let examples: Vec<_> = examples.unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(examples, ["examples/cluster.yaml", "examples/linux-bridge.yaml", "examples/vmi.yaml"]);
    }

    #[test]
    fn rules_are_taken_with_their_comments() {
        let text = "# Of whom.\ncluster:\n  # Why.\n  - verbs: [get]\nnamespace:\n  - verbs: [list]\n";
        let rules = parse(text).unwrap();
        assert_eq!(rules.cluster, "  # Why.\n  - verbs: [get]\n");
        assert_eq!(rules.namespace, "  - verbs: [list]\n");
        assert!(parse("cluster: []\n").is_err() && parse("  - verbs: [get]\n").is_err());
    }

    #[test]
    fn the_operator_has_what_it_grants() {
        let rules = |cluster: &str| Rules { cluster: cluster.to_owned(), namespace: String::new() };
        let files = BTreeMap::from([
            ("a.yaml".to_owned(), rules("  - a\n")),
            (OWN_RULES.to_owned(), rules("  - own\n")),
            ("z.yaml".to_owned(), rules("  - z\n")),
        ]);
        let expected = "  - own\n  # --- granted to a\n  - a\n  # --- granted to z\n  - z";
        assert_eq!(union(&files, |rules| &rules.cluster), expected);
        assert_eq!(union(&files, |rules| &rules.namespace), "");
    }
}
