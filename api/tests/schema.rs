//! Our schemas against upstream's, property by property. A property that ours lacks or has otherwise fails, unless it is listed in [`KNOWN`].
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use holdfast_api::crd::crds;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

/// Each CRD with upstream's table.
const TABLES: &[(&str, &str)] = &[
    ("kubevirts.kubevirt.io", include_str!("data/kubevirt-1.9-kubevirt.tsv")),
    ("virtualmachines.kubevirt.io", include_str!("data/kubevirt-1.9-vm.tsv")),
    ("virtualmachineinstances.kubevirt.io", include_str!("data/kubevirt-1.9-vmi.tsv")),
    ("virtualmachineinstancepresets.kubevirt.io", include_str!("data/kubevirt-1.9-preset.tsv")),
    ("virtualmachineinstancereplicasets.kubevirt.io", include_str!("data/kubevirt-1.9-replicaset.tsv")),
    ("virtualmachineinstancemigrations.kubevirt.io", include_str!("data/kubevirt-1.9-migration.tsv")),
    ("virtualmachinepools.pool.kubevirt.io", include_str!("data/kubevirt-1.9-pool.tsv")),
    ("virtualmachineinstancetypes.instancetype.kubevirt.io", include_str!("data/kubevirt-1.9-instancetype.tsv")),
    ("virtualmachineclusterinstancetypes.instancetype.kubevirt.io", include_str!("data/kubevirt-1.9-instancetype.tsv")),
    ("virtualmachinepreferences.instancetype.kubevirt.io", include_str!("data/kubevirt-1.9-preference.tsv")),
    ("virtualmachineclusterpreferences.instancetype.kubevirt.io", include_str!("data/kubevirt-1.9-preference.tsv")),
    ("migrationpolicies.migrations.kubevirt.io", include_str!("data/kubevirt-1.9-migrationpolicy.tsv")),
];

/// Facts that are kept, in upstream's notation.
const FACTS: [&str; 14] = [
    "default",
    "enum",
    "format",
    "maxItems",
    "maxLength",
    "maximum",
    "minimum",
    "nullable",
    "pattern",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-map-type",
    "x-kubernetes-preserve-unknown-fields",
];

/// What is different, as the end of the path, the fact, and why it is so.
const KNOWN: &[(&str, &str, &str)] = &[(
    ".spec.dataVolumeTemplates[]",
    "-nullable=true",
    "null is no DataVolume: upstream takes it here and fails later",
)];

type Facts = BTreeSet<String>;

/// Type and facts of each property.
fn upstream(table: &str) -> BTreeMap<String, Facts> {
    table
        .lines()
        .map(|line| {
            let mut columns = line.split('\t');
            let (path, kind, facts) = (columns.next().unwrap(), columns.next().unwrap(), columns.next().unwrap());
            let facts = facts.split(' ').filter(|fact| !fact.is_empty()).map(str::to_owned);
            (path.to_owned(), facts.chain([format!("type={kind}")]).collect())
        })
        .collect()
}

fn ours(crd: &str) -> BTreeMap<String, Facts> {
    static CRDS: LazyLock<Vec<CustomResourceDefinition>> = LazyLock::new(crds);
    let crd = CRDS.iter().find(|c| c.metadata.name.as_deref() == Some(crd)).unwrap();
    let schema = crd.spec.versions[0].schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap();
    let mut found = BTreeMap::new();
    flatten("", &serde_json::to_value(schema).unwrap(), false, &mut found);
    found
}

fn flatten(path: &str, schema: &Value, required: bool, found: &mut BTreeMap<String, Facts>) {
    let kind = match schema["x-kubernetes-int-or-string"] == true {
        true => "any",
        false => schema["type"].as_str().unwrap_or("any"),
    };
    let mut facts = Facts::from([format!("type={kind}")]);
    if required {
        facts.insert("required".to_owned());
    }
    for fact in FACTS {
        if let Some(value) = schema.get(fact) {
            facts.insert(format!("{fact}={}", number(value)));
        }
    }
    if !path.is_empty() {
        found.insert(path.to_owned(), facts);
    }
    let needed = schema["required"].as_array();
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        let required = needed.is_some_and(|names| names.iter().any(|n| n == name));
        flatten(&format!("{path}.{name}"), inner, required, found);
    }
    if schema["items"].is_object() {
        flatten(&format!("{path}[]"), &schema["items"], false, found);
    }
    if schema["additionalProperties"].is_object() {
        flatten(&format!("{path}{{}}"), &schema["additionalProperties"], false, found);
    }
}

/// JSON without white space; limits without the fraction that a CRD writes them with.
fn number(value: &Value) -> String {
    match value.as_f64() {
        Some(value) => format!("{value}"),
        None => value.to_string(),
    }
}

/// What a fact says differently, by path: missing properties, and facts that only one side has.
fn differences(upstream: &BTreeMap<String, Facts>, ours: &BTreeMap<String, Facts>) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (path, theirs) in upstream {
        let Some(facts) = ours.get(path) else {
            found.push((path.clone(), "missing".to_owned()));
            continue;
        };
        // A size of a number that upstream leaves open, such as Go's `int`, is no difference.
        let open = !theirs.iter().any(|fact| fact.starts_with("format="));
        found.extend(theirs.difference(facts).map(|fact| (path.clone(), format!("-{fact}"))));
        found.extend(
            facts
                .difference(theirs)
                .filter(|fact| !(open && fact.starts_with("format=")))
                .map(|fact| (path.clone(), format!("+{fact}"))),
        );
    }
    for path in ours.keys().filter(|path| !upstream.contains_key(*path)) {
        found.push((path.clone(), "ours alone".to_owned()));
    }
    found
}

fn unknown(differences: &[(String, String)]) -> Vec<String> {
    differences
        .iter()
        .filter(|(path, fact)| !KNOWN.iter().any(|(end, known, _)| path.ends_with(end) && fact == known))
        .map(|(path, fact)| format!("{path}: {fact}"))
        .collect()
}

/// All differences, each with the CRD's name before its path.
fn all() -> Vec<(String, String)> {
    let of = |(name, table): &(&str, &str)| {
        let found = differences(&upstream(table), &ours(name));
        found.into_iter().map(|(path, fact)| (format!("{name}{path}"), fact)).collect::<Vec<_>>()
    };
    TABLES.iter().flat_map(of).collect()
}

#[test]
fn schemas_are_as_upstreams() {
    let unknown = unknown(&all());
    assert!(unknown.is_empty(), "{} differences:\n{}", unknown.len(), unknown.join("\n"));
}

#[test]
fn each_known_difference_is_there() {
    let found = all();
    for (end, known, _) in KNOWN {
        assert!(
            found.iter().any(|(path, fact)| path.ends_with(end) && fact == known),
            "{end}: {known} is no difference any more"
        );
    }
}

#[test]
fn a_difference_is_found() {
    let theirs = upstream("a\tstring\trequired\nb\tobject\t\nc\tarray\tx-kubernetes-list-type=\"set\"\nd\tinteger\t\n");
    let ours = upstream("a\tinteger\t\nc\tarray\t\nd\tinteger\tformat=\"int64\"\ne\tstring\t\n");
    assert_eq!(
        unknown(&differences(&theirs, &ours)),
        [
            "a: -required",
            "a: -type=string",
            "a: +type=integer",
            "b: missing",
            "c: -x-kubernetes-list-type=\"set\"",
            "e: ours alone",
        ]
    );
}
