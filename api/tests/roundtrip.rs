//! What is decoded is encoded again without loss, down to the last field that upstream has.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use holdfast_api::decode::{Object, decode_documents, decode_value};
use holdfast_api::underlay::problems;
use serde_json::{Map, Value, json};

/// An object with every property of the table, made line by line from the path's type.
fn full(kind: &str, table: &str) -> Value {
    let mut root = Value::Null;
    for line in table.lines() {
        let mut columns = line.split('\t');
        let (path, kind, facts) = (columns.next().unwrap(), columns.next().unwrap(), columns.next().unwrap());
        let fact = |name: &str| facts.split(' ').find_map(|fact| fact.strip_prefix(name)).map(str::to_owned);
        let value = match kind {
            "object" | "array" => Value::Null,
            "integer" => json!(1),
            "boolean" => json!(true),
            "any" => json!("10"),
            "string" => match (fact("enum="), fact("format=")) {
                (Some(values), _) => serde_json::from_str::<Vec<Value>>(&values).unwrap().remove(0),
                (None, Some(format)) if format == "\"date-time\"" => json!("2026-01-02T03:04:05Z"),
                _ => json!("text"),
            },
            other => panic!("{path}: no sample of {other}"),
        };
        let place = path.split('.').skip(1).fold(&mut root, step);
        *place = match kind {
            "array" => json!([]),
            "object" => Value::Object(Map::new()),
            _ => value,
        };
    }
    root["apiVersion"] = json!("kubevirt.io/v1");
    root["kind"] = json!(kind);
    root["metadata"] = json!({"name": "full", "namespace": "lab"});
    root
}

/// Goes to a field, and on to the first element of a list or the one value of a map.
fn step<'a>(value: &'a mut Value, segment: &str) -> &'a mut Value {
    let name = segment.trim_end_matches(['[', ']', '{', '}']);
    let mut value = &mut value[name];
    for inner in segment.as_bytes()[name.len()..].chunks(2) {
        if inner == b"[]" {
            let list = value.as_array_mut().unwrap();
            if list.is_empty() {
                list.push(Value::Null);
            }
            value = &mut list[0];
        } else {
            value = &mut value["key"];
        }
    }
    value
}

fn encoded(object: &Object) -> Value {
    match object {
        Object::VirtualMachine(object) => serde_json::to_value(object),
        Object::VirtualMachineInstance(object) => serde_json::to_value(object),
        other => panic!("{} is not asked for here", other.kind()),
    }
    .unwrap()
}

#[test]
fn no_field_of_a_virtual_machine_is_lost() {
    let full = full("VirtualMachine", include_str!("data/kubevirt-1.9-vm.tsv"));
    assert_eq!(encoded(&decode_value(full.clone()).unwrap()), full);
}

#[test]
fn no_field_of_an_instance_is_lost() {
    let full = full("VirtualMachineInstance", include_str!("data/kubevirt-1.9-vmi.tsv"));
    assert_eq!(encoded(&decode_value(full.clone()).unwrap()), full);
}

#[test]
fn the_examples_can_be_used() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples");
    let mut seen = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        for document in decode_documents(&fs::read_to_string(&path).unwrap()) {
            let object = document.object.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            if let Object::UnderlayNetwork(network) = &object {
                assert_eq!(problems(network), [], "{}", path.display());
            }
            seen += 1;
        }
    }
    assert!(seen > 0, "there are no examples");
}
