use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Value, json};

use super::fields::{VM_FIELDS, VMI_FIELDS};
use super::*;
use crate::kubevirt::{VirtualMachineInstanceSpec, VirtualMachineSpec};

/// Collects each path that has no fields of its own below it, and each one above those.
fn paths(schema: &Value, definitions: &Value, at: &str, leaves: &mut Vec<String>, nodes: &mut Vec<String>) {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap();
        return paths(&definitions[name], definitions, at, leaves, nodes);
    }
    let options = ["anyOf", "allOf", "oneOf"].iter().find_map(|key| schema[key].as_array());
    if let Some(options) = options {
        let object = options.iter().find(|option| option["$ref"].is_string() || option["type"] == "object");
        if let Some(object) = object {
            return paths(object, definitions, at, leaves, nodes);
        }
    }
    if schema["items"].is_object() {
        return paths(&schema["items"], definitions, at, leaves, nodes);
    }
    match schema["properties"].as_object() {
        Some(properties) if !properties.is_empty() => {
            nodes.push(at.to_owned());
            for (key, property) in properties {
                let dot = if at.is_empty() { "" } else { "." };
                paths(property, definitions, &format!("{at}{dot}{key}"), leaves, nodes);
            }
        }
        _ => leaves.push(at.to_owned()),
    }
}

fn of<T: JsonSchema>() -> (Vec<String>, Vec<String>) {
    let settings = SchemaSettings::draft2020_12();
    let schema = SchemaGenerator::new(settings).into_root_schema_for::<T>();
    let schema = serde_json::to_value(schema).unwrap();
    let (mut leaves, mut nodes) = (Vec::new(), Vec::new());
    paths(&schema, &schema["$defs"], "", &mut leaves, &mut nodes);
    (leaves, nodes)
}

fn compare<T: JsonSchema>(table: &[(&str, Honour)]) -> Vec<String> {
    let (leaves, nodes) = of::<T>();
    let covered = |path: &str| {
        table.iter().any(|(field, honour)| match honour {
            Honour::Yes | Honour::Only(_) => *field == path,
            Honour::No(_) | Honour::Ignored(_) => {
                path.strip_prefix(field).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            }
        })
    };
    let missing = leaves.iter().filter(|leaf| !covered(leaf)).map(|leaf| format!("in no table: {leaf}"));
    let stale = table.iter().filter(|(field, honour)| {
        let leaf = leaves.iter().any(|leaf| leaf == field);
        let node = nodes.iter().any(|node| node == field);
        let whole = matches!(honour, Honour::No(_) | Honour::Ignored(_));
        !(leaf || node && whole)
    });
    let doubled =
        table.iter().enumerate().filter(|(index, (field, _))| table[..*index].iter().any(|(other, _)| other == field));
    missing
        .chain(stale.map(|(field, _)| format!("no such field: {field}")))
        .chain(doubled.map(|(_, (field, _))| format!("named twice: {field}")))
        .collect()
}

#[test]
fn every_field_is_named_once() {
    assert_eq!(compare::<VirtualMachineInstanceSpec>(VMI_FIELDS).join("\n"), "");
    // The template is looked at apart, so its fields are not in the VM's table.
    let vm = compare::<VirtualMachineSpec>(VM_FIELDS);
    let rest: Vec<_> = vm.iter().filter(|line| !line.starts_with("in no table: template.")).collect();
    assert_eq!(rest, ["no such field: template"]);
}

fn vmi(spec: Value) -> Findings {
    check(&serde_json::from_value(spec).unwrap(), "spec")
}

#[test]
fn what_is_not_honoured_is_refused_by_name() {
    let findings = vmi(json!({
        "domain": {"devices": {
            "gpus": [{"name": "g", "deviceName": "d"}],
            "useVirtioTransitional": false,
            "interfaces": [
                {"name": "a", "masquerade": {}, "state": "down"},
                {"name": "b", "sriov": {}, "state": "absent"}]}},
        "networks": [{"name": "a", "pod": {}}, {"name": "b", "multus": {"networkName": "n"}}],
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}],
    }));
    let messages: Vec<_> = findings.refused.iter().map(ToString::to_string).collect();
    assert_eq!(
        messages,
        [
            "spec.domain.devices.gpus is not supported by this version of Holdfast",
            "spec.domain.devices.interfaces[1].sriov is not supported by this version of \
             Holdfast; use masquerade or bridge",
            "spec.volumes[0].persistentVolumeClaim is not supported by this version of \
             Holdfast; use hostDisk",
        ]
    );
    assert_eq!(findings.refusal().unwrap().matches(", ").count(), 2);
    assert_eq!(findings.warnings, []);
}

#[test]
fn placement_is_accepted_with_a_warning() {
    let findings = vmi(json!({"domain": {"devices": {}}, "nodeSelector": {"a": "b"}}));
    assert_eq!(findings.refusal(), None);
    let warnings: Vec<_> = findings.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings, ["spec.nodeSelector has no effect: one host has no scheduler"]);
}

#[test]
fn a_vm_is_looked_at_with_its_template() {
    let spec = serde_json::from_value(json!({
        "runStrategy": "WaitAsReceiver", "instancetype": {"name": "small"},
        "template": {"spec": {"domain": {"devices": {}, "launchSecurity": {"tdx": {}}}}},
    }))
    .unwrap();
    let paths: Vec<_> = check_vm(&spec).refused.into_iter().map(|r| r.path).collect();
    let template = "spec.template.spec.domain.launchSecurity";
    assert_eq!(paths, ["spec.instancetype", "spec.runStrategy", template]);
}
