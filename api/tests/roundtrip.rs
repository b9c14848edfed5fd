//! What is decoded is encoded again without loss, down to the last field that upstream has.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use holdfast_api::decode::{DecodeError, Object, decode_documents};
use holdfast_api::kubevirt::{
    KubeVirt, MigrationPolicy, VirtualMachine, VirtualMachineClusterPreference, VirtualMachineInstance,
    VirtualMachineInstanceMigration, VirtualMachineInstancePreset, VirtualMachineInstanceReplicaSet,
    VirtualMachineInstancetype, VirtualMachinePool,
};
use holdfast_api::underlay::problems;
use serde::Serialize;
use serde::de::DeserializeOwned;
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
            "number" => json!(1.5),
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

/// The object decoded as its type and encoded again.
fn again<K: Serialize + DeserializeOwned>(full: &Value) -> Value {
    let object: K = serde_json::from_value(full.clone()).unwrap_or_else(|error| panic!("{}: {error}", full["kind"]));
    serde_json::to_value(object).unwrap()
}

macro_rules! kept {
    ($($test:ident: $kind:ident, $version:literal, $table:literal;)*) => {
        $(
            #[test]
            fn $test() {
                let mut full = full(stringify!($kind), include_str!(concat!("data/kubevirt-1.9-", $table, ".tsv")));
                full["apiVersion"] = json!($version);
                assert_eq!(again::<$kind>(&full), full);
            }
        )*
    };
}

kept! {
    no_field_of_a_virtual_machine_is_lost: VirtualMachine, "kubevirt.io/v1", "vm";
    no_field_of_an_instance_is_lost: VirtualMachineInstance, "kubevirt.io/v1", "vmi";
    no_field_of_a_preset_is_lost: VirtualMachineInstancePreset, "kubevirt.io/v1", "preset";
    no_field_of_a_replica_set_is_lost: VirtualMachineInstanceReplicaSet, "kubevirt.io/v1", "replicaset";
    no_field_of_a_migration_is_lost: VirtualMachineInstanceMigration, "kubevirt.io/v1", "migration";
    no_field_of_a_pool_is_lost: VirtualMachinePool, "pool.kubevirt.io/v1beta1", "pool";
    no_field_of_an_instance_type_is_lost: VirtualMachineInstancetype, "instancetype.kubevirt.io/v1beta1", "instancetype";
    no_field_of_a_cluster_preference_is_lost:
        VirtualMachineClusterPreference, "instancetype.kubevirt.io/v1beta1", "preference";
    no_field_of_a_policy_is_lost: MigrationPolicy, "migrations.kubevirt.io/v1alpha1", "migrationpolicy";
    no_field_of_an_installation_is_lost: KubeVirt, "kubevirt.io/v1", "kubevirt";
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
            let object = match document.object {
                Ok(object) => object,
                // A Service beside a machine, say.
                Err(DecodeError::Unsupported { api_version, .. }) if !api_version.contains("kubevirt.io") => continue,
                Err(error) => panic!("{}: {error}", path.display()),
            };
            if let Object::UnderlayNetwork(network) = &object {
                assert_eq!(problems(network), [], "{}", path.display());
            }
            seen += 1;
        }
    }
    assert!(seen > 0, "there are no examples");
}
