//! The CRDs: what upstream's look like from outside, and what an API server demands of them.
#![allow(clippy::unwrap_used)]

use std::sync::LazyLock;

use holdfast_api::crd::crd_yaml;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};

static CRDS: LazyLock<Vec<CustomResourceDefinition>> = LazyLock::new(holdfast_api::crd::crds);

fn crd(name: &str) -> Value {
    let crd = CRDS.iter().find(|crd| crd.metadata.name.as_deref() == Some(name)).unwrap();
    serde_json::to_value(crd).unwrap()
}

/// What upstream's CRDs look like from outside: names, scope, versions, subresources and columns.
const UPSTREAMS: &str = include_str!("data/crds.json");

/// The same of ours: what an API server takes for granted written out, absent things left out.
fn from_outside(crd: &Value) -> Value {
    let mut names = crd["spec"]["names"].clone();
    names["listKind"] = json!(format!("{}List", names["kind"].as_str().unwrap()));
    if names["categories"] == json!([]) {
        names.as_object_mut().unwrap().remove("categories");
    }
    let versions = crd["spec"]["versions"].as_array().unwrap().iter().map(|version| {
        let mut version = version.clone();
        let fields = version.as_object_mut().unwrap();
        fields.remove("schema");
        fields.retain(|_, value| *value != json!([]) && *value != json!({}));
        version
    });
    json!({"name": crd["metadata"]["name"], "names": names, "scope": crd["spec"]["scope"],
        "versions": versions.collect::<Vec<_>>()})
}

#[test]
fn kinds_look_like_upstreams() {
    let upstreams: Vec<Value> = serde_json::from_str(UPSTREAMS).unwrap();
    for theirs in &upstreams {
        let ours = from_outside(&crd(theirs["name"].as_str().unwrap()));
        assert_eq!(ours, *theirs);
    }
    let kubevirts = CRDS.iter().filter(|crd| crd.spec.group.ends_with("kubevirt.io")).count();
    assert_eq!(kubevirts, upstreams.len());
}

#[test]
fn ours_are_cluster_scoped_and_leases_do_not_change() {
    for name in ["underlaynetworks.holdfast.io", "ipleases.holdfast.io", "macleases.holdfast.io"] {
        let crd = crd(name);
        assert_eq!(crd["spec"]["scope"], "Cluster");
        assert_eq!(crd["spec"]["versions"][0]["name"], "v1alpha1");
        let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        assert_eq!(spec["x-kubernetes-validations"][0]["rule"] == "self == oldSelf", name.contains("lease"), "{name}");
    }
    let network = crd("underlaynetworks.holdfast.io");
    let spec = &network["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    assert_eq!(spec["backend"]["enum"], json!(["ovs", "linux-bridge", "macvtap"]));
    assert_eq!(spec["datapath"]["default"], "system");
    assert_eq!(spec["dhcp"]["default"], json!({"v4": true, "v6": false, "ra": false}));
}

/// The rules of apiextensions/v1 for structural schemas that a generated schema could break.
fn check(path: &str, schema: &Value, problems: &mut Vec<String>) {
    let fields = schema.as_object().unwrap();
    let open = schema["x-kubernetes-int-or-string"] == true || schema["x-kubernetes-preserve-unknown-fields"] == true;
    let known = ["object", "array", "string", "integer", "number", "boolean"];
    let kind = schema["type"].as_str().unwrap_or_default();
    if !known.contains(&kind) && !open {
        problems.push(format!("{path}: type is {}", schema["type"]));
    }
    for key in ["$ref", "$schema", "definitions", "oneOf", "allOf", "not", "title", "const"] {
        if fields.contains_key(key) {
            problems.push(format!("{path}: has {key}"));
        }
    }
    if fields.contains_key("anyOf") && schema["x-kubernetes-int-or-string"] != true {
        problems.push(format!("{path}: has anyOf"));
    }
    if kind == "array" && !fields.contains_key("items") {
        problems.push(format!("{path}: a list without items"));
    }
    if fields.contains_key("properties") && fields.contains_key("additionalProperties") {
        problems.push(format!("{path}: both properties and additionalProperties"));
    }
    if schema["x-kubernetes-list-type"] == "map" {
        for key in schema["x-kubernetes-list-map-keys"].as_array().unwrap() {
            let required = schema["items"]["required"].as_array();
            if !required.is_some_and(|required| required.contains(key)) {
                problems.push(format!("{path}: list map key {key} is not required"));
            }
        }
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        check(&format!("{path}.{name}"), property, problems);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = fields.get(key) {
            check(&format!("{path}.{key}"), inner, problems);
        }
    }
}

#[test]
fn schemas_are_structural() {
    for crd in CRDS.iter() {
        let crd = serde_json::to_value(crd).unwrap();
        for version in crd["spec"]["versions"].as_array().unwrap() {
            let mut problems = Vec::new();
            let schema = &version["schema"]["openAPIV3Schema"];
            check("", schema, &mut problems);
            assert_eq!(problems, Vec::<String>::new(), "{}", crd["metadata"]["name"]);
            assert_eq!(schema["properties"]["metadata"], json!({"type": "object"}));
        }
    }
}

/// Fields whose types are Kubernetes' own, by the ends of their paths. What is below them is known from elsewhere.
const KUBERNETES_OWN: [&str; 21] = [
    ".status.conditions",
    ".affinity",
    ".configMap",
    ".configMapRef",
    ".dataSource",
    ".dataSourceRef",
    ".dnsConfig",
    ".exec",
    ".fields",
    ".httpGet",
    ".imagePullSecrets",
    ".nodeSelectorRequirementMatcher",
    ".persistentVolumeClaim",
    ".networkDataSecretRef",
    ".pvc",
    ".secretRef",
    ".storage.resources",
    ".sysprep.secret",
    ".tcpSocket",
    ".tolerations",
    ".topologySpreadConstraints",
];

#[test]
fn every_field_of_ours_says_what_it_does() {
    fn undescribed(path: &str, schema: &Value, found: &mut Vec<String>) {
        let selector = path.ends_with("elector") && schema["properties"]["matchLabels"].is_object();
        if selector || KUBERNETES_OWN.iter().any(|end| path.ends_with(end)) {
            return;
        }
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            if property["description"].as_str().unwrap_or_default().is_empty() && path != ".metadata" {
                found.push(path.clone());
            }
            undescribed(&path, property, found);
        }
        for inner in ["items", "additionalProperties"] {
            if schema[inner].is_object() {
                undescribed(path, &schema[inner], found);
            }
        }
    }
    for crd in CRDS.iter() {
        let crd = serde_json::to_value(crd).unwrap();
        let versions = crd["spec"]["versions"].as_array().unwrap();
        let described = |version: &&Value| version["schema"]["openAPIV3Schema"]["description"].is_string();
        let described = versions.iter().find(described).unwrap();
        let mut found = Vec::new();
        undescribed("", &described["schema"]["openAPIV3Schema"], &mut found);
        assert_eq!(found, Vec::<String>::new(), "{}", crd["metadata"]["name"]);
    }
}

#[test]
fn a_crd_fits_into_one_object() {
    for crd in CRDS.iter() {
        let yaml = crd_yaml(crd);
        assert!(yaml.starts_with("# Generated"));
        let again: CustomResourceDefinition = serde_norway::from_str(&yaml).unwrap();
        assert_eq!(again, *crd);
        let size = serde_json::to_string(crd).unwrap().len();
        // `kubectl apply` keeps a copy in an annotation, which holds 256 KiB.
        assert!(size < 256 * 1024, "{} has {size} bytes", crd.metadata.name.as_deref().unwrap());
    }
}
