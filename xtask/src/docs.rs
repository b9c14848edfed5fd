//! The documents say where things are: each `` `file`: `name` `` in them must be there.

use std::fs;

use crate::workspace;

/// Pairs of a source file and an item that a text claims to be in it: `` `path.rs`: `item` ``.
fn references(text: &str) -> Vec<(&str, &str)> {
    let quoted: Vec<&str> = text.split('`').collect();
    let pairs = quoted.windows(3).filter(|window| window[1] == ": " && window[0].ends_with(".rs"));
    pairs.map(|window| (window[0], window[2])).collect()
}

/// Whether a source defines an item of this name.
fn defines(source: &str, item: &str) -> bool {
    ["fn", "struct", "enum", "trait", "const"].iter().any(|keyword| {
        source.match_indices(&format!("{keyword} {item}")).any(|(start, found)| {
            !source[start + found.len()..].starts_with(|next: char| next.is_alphanumeric() || next == '_')
        })
    })
}

#[test]
fn architecture_names_what_is_there() {
    let text = fs::read_to_string(workspace::root().join("ARCHITECTURE.md")).unwrap();
    let references = references(&text);
    assert!(references.len() > 40, "found {} references only", references.len());
    let wrong: Vec<String> = references
        .into_iter()
        .filter(|(file, item)| {
            !fs::read_to_string(workspace::root().join(file)).is_ok_and(|source| defines(&source, item))
        })
        .map(|(file, item)| format!("{file}: {item}"))
        .collect();
    assert!(wrong.is_empty(), "ARCHITECTURE.md names what is not there: {wrong:#?}");
}

#[test]
fn links_between_documents_lead_somewhere() {
    let folders = ["", "docs", "docs/decisions", "docs/development"];
    let mut wrong = Vec::new();
    for folder in folders.map(|folder| workspace::root().join(folder)) {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "md") {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
            let local = targets.filter(|target| !target.is_empty() && !target.contains("://"));
            wrong.extend(
                local.filter(|target| !folder.join(target).exists()).map(|target| format!("{path:?}: {target}")),
            );
        }
    }
    assert!(wrong.is_empty(), "links that lead nowhere: {wrong:#?}");
}

#[test]
fn finds_references_and_definitions() {
    assert_eq!(references("see `a/b.rs`: `run` and `c.rs`, `d`"), [("a/b.rs", "run")]);
    assert!(defines("pub async fn run(x: u8)", "run") && defines("struct Run<T>", "Run"));
    assert!(!defines("fn runs()", "run") && !defines("run()", "run"));
}
