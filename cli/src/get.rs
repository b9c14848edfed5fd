//! `get`: objects as a table, as YAML, as JSON, or by name.

use std::process::ExitCode;

use anyhow::{Result, bail};
use jiff::Timestamp;
use serde::Serialize as _;
use serde_json::{Value, json};

use crate::args::{Get, Output};
use crate::client::Client;
use crate::kinds::Kind;
use crate::out::print;
use crate::table::layout;
use crate::target::{Target, targets};

/// What was found of one kind.
struct Found {
    kind: &'static Kind,
    objects: Vec<Value>,
}

/// How tables are shown.
#[derive(Clone, Copy, Debug, Default)]
struct Style {
    namespaces: bool,
    wide: bool,
    no_headers: bool,
}

/// Shows what the arguments name. What is there is shown even where some of it is not.
pub async fn get(client: &Client, namespace: &str, arguments: &Get) -> Result<ExitCode> {
    let targets = targets("get", &arguments.target)?;
    let named = targets.iter().any(|target| !target.names.is_empty());
    if named && arguments.all_namespaces {
        bail!("error: a resource cannot be retrieved by name across all namespaces");
    }
    let scope = (!arguments.all_namespaces).then_some(namespace);
    let mut found = Vec::new();
    let mut failed = false;
    for target in targets {
        let (objects, errors) = fetch(client, scope, &target).await;
        errors.iter().for_each(|error| eprintln!("{error}"));
        failed |= !errors.is_empty();
        found.push(Found { kind: target.kind, objects });
    }
    let count: usize = found.iter().map(|found| found.objects.len()).sum();
    match arguments.output {
        Some(Output::Yaml | Output::Json) if failed && count == 0 => {}
        Some(Output::Yaml) => print(&serde_norway::to_string(&document(&found, named))?)?,
        Some(Output::Json) => print(&pretty(&document(&found, named))?)?,
        Some(Output::Name) => print(&names(&found))?,
        None | Some(Output::Wide) if count == 0 && !failed => {
            let place = scope.filter(|_| found.iter().any(|found| found.kind.namespaced));
            let place = place.map(|namespace| format!(" in {namespace} namespace.")).unwrap_or_default();
            eprintln!("No resources found{place}");
        }
        format => {
            let wide = format == Some(Output::Wide);
            let style = Style { namespaces: scope.is_none(), wide, no_headers: arguments.no_headers };
            print(&tables(&found, style, Timestamp::now()))?;
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn fetch(client: &Client, scope: Option<&str>, target: &Target) -> (Vec<Value>, Vec<String>) {
    let (mut objects, mut errors) = (Vec::new(), Vec::new());
    if target.names.is_empty() {
        match client.get(&target.kind.path(scope, None)).await {
            Ok(mut list) => {
                if let Value::Array(items) = list["items"].take() {
                    objects = items;
                }
            }
            Err(error) => errors.push(error.kubectl_text()),
        }
    }
    for name in &target.names {
        match client.get(&target.kind.path(scope, Some(name))).await {
            Ok(object) => objects.push(object),
            Err(error) => errors.push(error.kubectl_text()),
        }
    }
    (objects, errors)
}

/// One object where one was named, and a list otherwise.
fn document(found: &[Found], named: bool) -> Value {
    let objects: Vec<&Value> = found.iter().flat_map(|found| &found.objects).collect();
    match objects.as_slice() {
        [object] if named => (*object).clone(),
        objects => json!({"apiVersion": "v1", "items": objects, "kind": "List", "metadata": {"resourceVersion": ""}}),
    }
}

/// JSON as kubectl indents it.
fn pretty(value: &Value) -> Result<String> {
    let mut text = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut text, formatter))?;
    text.push(b'\n');
    Ok(String::from_utf8(text)?)
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

fn names(found: &[Found]) -> String {
    let lines = found
        .iter()
        .flat_map(|found| found.objects.iter().map(|object| format!("{}/{}\n", found.kind.full_name(), name(object))));
    lines.collect()
}

/// One table for each kind that something was found of. Where there are several, names have their kind before them.
fn tables(found: &[Found], style: Style, now: Timestamp) -> String {
    let several = found.len() > 1;
    let tables = found.iter().filter(|found| !found.objects.is_empty()).map(|Found { kind, objects }| {
        let mut header = Vec::new();
        let with_namespace = style.namespaces && kind.namespaced;
        header.extend(with_namespace.then(|| "NAMESPACE".to_owned()));
        header.extend(kind.shows_name().then(|| "NAME".to_owned()));
        header.extend(kind.headers(style.wide));
        let rows = objects.iter().map(|object| {
            let mut row = Vec::new();
            let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
            row.extend(with_namespace.then(|| namespace.to_owned()));
            let prefix = if several { format!("{}/", kind.full_name()) } else { String::new() };
            row.extend(kind.shows_name().then(|| format!("{prefix}{}", name(object))));
            row.extend(kind.cells(object, style.wide, now));
            row
        });
        let header = (!style.no_headers).then_some(header);
        let rows: Vec<Vec<String>> = header.into_iter().chain(rows).collect();
        layout(&rows, 3, 6)
    });
    tables.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::one;

    fn found(kind: &str, objects: Vec<Value>) -> Found {
        Found { kind: one(kind).unwrap(), objects }
    }

    fn shown(found: &[Found], style: Style) -> String {
        tables(found, style, "2026-11-22T03:20:00Z".parse().unwrap())
    }

    fn vm(name: &str) -> Value {
        json!({
            "metadata": {"name": name, "namespace": "default", "creationTimestamp": "2026-11-22T03:11:58Z"},
            "status": {"printableStatus": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
        })
    }

    fn vmi() -> Value {
        json!({
            "metadata": {"name": "w1", "namespace": "default", "creationTimestamp": "2026-11-22T03:13:22Z"},
            "status": {
                "phase": "Running", "nodeName": "node2",
                "interfaces": [{"ipAddress": "10.244.2.22"}],
                "conditions": [{"type": "Ready", "status": "True"}, {"type": "LiveMigratable", "status": "False"}],
            },
        })
    }

    #[test]
    fn one_kind() {
        let fresh = json!({"metadata": {"name": "fresh", "creationTimestamp": "2026-11-22T03:19:59Z"}});
        let expected = "\
NAME    AGE    STATUS    READY
w1      8m2s   Running   True
fresh   1s               \n";
        assert_eq!(shown(&[found("vm", vec![vm("w1"), fresh])], Style::default()), expected);
        let bare = shown(&[found("vm", vec![vm("w1")])], Style { no_headers: true, ..Style::default() });
        assert_eq!(bare, "w1    8m2s   Running   True\n");
    }

    #[test]
    fn several_kinds_wide_in_all_namespaces() {
        let all = [found("vm", vec![vm("w1")]), found("nad", vec![]), found("vmi", vec![vmi()])];
        let expected = "\
NAMESPACE   NAME                            AGE    STATUS    READY
default     virtualmachine.kubevirt.io/w1   8m2s   Running   True

NAMESPACE   NAME                                    AGE     PHASE     IP            NODENAME   READY   \
LIVE-MIGRATABLE   PAUSED
default     virtualmachineinstance.kubevirt.io/w1   6m38s   Running   10.244.2.22   node2      True    \
False             \n";
        assert_eq!(shown(&all, Style { namespaces: true, wide: true, no_headers: false }), expected);
        assert_eq!(names(&all), "virtualmachine.kubevirt.io/w1\nvirtualmachineinstance.kubevirt.io/w1\n");
    }

    #[test]
    fn our_own_kinds() {
        let lease = json!({
            "metadata": {"name": "lan.c0000211", "creationTimestamp": "2026-11-22T03:19:00Z"},
            "spec": {
                "segment": "lan", "address": "192.0.2.17",
                "claim": {"uid": "u", "kind": "VirtualMachine", "namespace": "default", "name": "w1", "network": "lan"},
            },
        });
        let expected = "\
NAME           SEGMENT   ADDRESS      NAMESPACE   HOLDER   NETWORK   NODE   AGE
lan.c0000211   lan       192.0.2.17   default     w1       lan              60s\n";
        // It is in no namespace, so that there is no column for it.
        assert_eq!(shown(&[found("iplease", vec![lease])], Style { namespaces: true, ..Style::default() }), expected);
        let event = json!({
            "type": "Warning", "reason": "Failed", "message": "no\nbridge", "lastTimestamp": "2026-11-22T03:19:00Z",
            "involvedObject": {"kind": "VirtualMachineInstance", "name": "w1"}, "metadata": {"name": "w1.1"},
        });
        let expected = "\
LAST SEEN   TYPE      REASON   OBJECT                      MESSAGE
60s         Warning   Failed   virtualmachineinstance/w1   no bridge\n";
        assert_eq!(shown(&[found("ev", vec![event])], Style::default()), expected);
    }

    #[test]
    fn documents_are_kubectls() {
        let one = [found("vm", vec![json!({"kind": "VirtualMachine", "apiVersion": "kubevirt.io/v1"})])];
        assert_eq!(
            pretty(&document(&one, true)).unwrap(),
            "{\n    \"apiVersion\": \"kubevirt.io/v1\",\n    \"kind\": \"VirtualMachine\"\n}\n"
        );
        let text = serde_norway::to_string(&document(&one, false)).unwrap();
        let expected = "apiVersion: v1\nitems:\n- apiVersion: kubevirt.io/v1\n  kind: VirtualMachine\nkind: List\n\
            metadata:\n  resourceVersion: ''\n";
        assert_eq!(text, expected);
    }
}
