//! What is installed: names, versions, columns, roles, labels and keys.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::{Difference, Outcome};
use crate::api::Api;

/// A list of the record, where the cluster has it, and what of its objects is compared.
type List = (&'static str, &'static str, fn(&Value) -> Value);

const LISTS: [List; 13] = [
    ("crds", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd),
    ("clusterRoles", "/apis/rbac.authorization.k8s.io/v1/clusterroles", role),
    ("clusterRoleBindings", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding),
    ("roles", "/apis/rbac.authorization.k8s.io/v1/namespaces/kubevirt/roles", labels),
    ("validating", "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations", webhooks),
    ("mutating", "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations", webhooks),
    ("apiservices", "/apis/apiregistration.k8s.io/v1/apiservices", api_service),
    ("deployments", "/apis/apps/v1/namespaces/kubevirt/deployments", workload),
    ("daemonsets", "/apis/apps/v1/namespaces/kubevirt/daemonsets", workload),
    ("services", "/api/v1/namespaces/kubevirt/services", service),
    ("serviceAccounts", "/api/v1/namespaces/kubevirt/serviceaccounts", labels),
    ("configMaps", "/api/v1/namespaces/kubevirt/configmaps", keys),
    ("secrets", "/api/v1/namespaces/kubevirt/secrets", keys),
];

/// Roles that are for users: their rules are an interface. Those of the components are their own.
const USER_ROLES: [&str; 6] = [
    "instancetype.kubevirt.io:view",
    "kubevirt.io:admin",
    "kubevirt.io:default",
    "kubevirt.io:edit",
    "kubevirt.io:migrate",
    "kubevirt.io:view",
];

/// Compares an installation in the namespace `kubevirt` with the record of one.
///
/// # Errors
/// Where the cluster does not answer.
pub async fn install(api: &Api, path: &Path) -> Result<Outcome> {
    let text = std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
    let record: Value = serde_json::from_str(&text).with_context(|| format!("failed to read {}", path.display()))?;
    let mut outcome = Outcome::default();
    for (list, path, project) in LISTS {
        let there = api.get(path).await?.with_context(|| format!("{path} is not served"))?;
        let ours = by_name(&there["items"]);
        for (name, seen) in by_name(&record[list]) {
            outcome.compared += 1;
            let name = name.as_str();
            match ours.get(name) {
                None => {
                    outcome.differences.push(Difference::new(format!("{list}/{name}"), &json!("there"), &json!(null)))
                }
                Some(object) => compare(&format!("{list}/{name}"), &project(&seen), &project(object), &mut outcome),
            }
        }
    }
    Ok(outcome)
}

fn by_name(list: &Value) -> BTreeMap<String, Value> {
    let items = list.as_array().cloned().unwrap_or_default();
    let name =
        |item: &Value| item["metadata"]["name"].as_str().or(item["name"].as_str()).unwrap_or_default().to_owned();
    items.into_iter().map(|item| (name(&item), item)).collect()
}

/// A difference for each field of the projections that differs.
fn compare(what: &str, seen: &Value, ours: &Value, outcome: &mut Outcome) {
    let empty = Map::new();
    let (seen, ours) = (seen.as_object().unwrap_or(&empty), ours.as_object().unwrap_or(&empty));
    for (field, value) in seen {
        let here = ours.get(field).unwrap_or(&Value::Null);
        if value != here {
            outcome.differences.push(Difference::new(format!("{what} {field}"), value, here));
        }
    }
}

/// A field of the record's flat form, or of the object's metadata or spec.
fn at<'a>(object: &'a Value, name: &str) -> &'a Value {
    [&object[name], &object["metadata"][name], &object["spec"][name]]
        .into_iter()
        .find(|value| !value.is_null())
        .unwrap_or(&Value::Null)
}

fn labels(object: &Value) -> Value {
    json!({"labels": at(object, "labels")})
}

fn crd(object: &Value) -> Value {
    let mut versions: BTreeMap<String, Value> = BTreeMap::new();
    for version in at(object, "versions").as_array().into_iter().flatten() {
        let scale = &version["subresources"]["scale"];
        let columns = version["additionalPrinterColumns"].as_array().cloned().unwrap_or_default();
        let columns: Vec<Value> = columns
            .iter()
            .map(|c| json!([c["name"], c["type"], c["jsonPath"], c["priority"].as_i64().unwrap_or(0)]))
            .collect();
        let told = json!({"served": version["served"], "storage": version["storage"], "columns": columns,
            "status": version["subresources"]["status"].is_object(), "scale": scale,
            "deprecated": version["deprecated"] == true});
        versions.insert(version["name"].as_str().unwrap_or_default().to_owned(), told);
    }
    json!({"names": at(object, "names"), "scope": at(object, "scope"), "versions": versions})
}

fn role(object: &Value) -> Value {
    let name = at(object, "name").as_str().unwrap_or_default();
    if !USER_ROLES.contains(&name) {
        return labels(object);
    }
    let mut grants: Vec<String> = Vec::new();
    for rule in at(object, "rules").as_array().into_iter().flatten() {
        let list = |key: &str| rule[key].as_array().cloned().unwrap_or_default();
        for (group, resource, verb) in list("apiGroups")
            .iter()
            .flat_map(|g| list("resources").into_iter().map(move |r| (g.clone(), r)))
            .flat_map(|(g, r)| list("verbs").into_iter().map(move |v| (g.clone(), r.clone(), v)))
        {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            grants.push(format!("{} {}/{}", text(&verb), text(&group), text(&resource)));
        }
    }
    grants.sort();
    grants.dedup();
    json!({"labels": at(object, "labels"), "grants": grants})
}

fn binding(object: &Value) -> Value {
    json!({"labels": at(object, "labels"), "roleRef": at(object, "roleRef"), "subjects": at(object, "subjects")})
}

fn webhooks(object: &Value) -> Value {
    let mut told: Map<String, Value> = Map::new();
    for webhook in at(object, "webhooks").as_array().into_iter().flatten() {
        let service = &webhook["clientConfig"]["service"];
        let mut rules = webhook["rules"].as_array().cloned().unwrap_or_default();
        rules.sort_by_key(Value::to_string);
        let parts = json!({"path": service["path"], "rules": rules, "failurePolicy": webhook["failurePolicy"]});
        told.insert(webhook["name"].as_str().unwrap_or_default().to_owned(), parts);
    }
    Value::Object(told)
}

fn api_service(object: &Value) -> Value {
    let spec = &object["spec"];
    json!({"service": spec["service"], "groupPriorityMinimum": spec["groupPriorityMinimum"],
        "versionPriority": spec["versionPriority"]})
}

fn workload(object: &Value) -> Value {
    let spec = &object["spec"];
    let names: Vec<&Value> =
        spec["template"]["spec"]["containers"].as_array().into_iter().flatten().map(|c| &c["name"]).collect();
    let labels = json!({"kubevirt.io": spec["template"]["metadata"]["labels"]["kubevirt.io"],
        "prometheus.kubevirt.io": spec["template"]["metadata"]["labels"]["prometheus.kubevirt.io"]});
    json!({"selector": spec["selector"], "podLabels": labels, "containers": names,
        "serviceAccount": spec["template"]["spec"]["serviceAccountName"],
        "priorityClass": spec["template"]["spec"]["priorityClassName"]})
}

fn service(object: &Value) -> Value {
    let ports: Vec<Value> = object["spec"]["ports"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|port| json!([port["name"], port["port"], port["targetPort"]]))
        .collect();
    json!({"labels": at(object, "labels"), "selector": object["spec"]["selector"], "ports": ports})
}

fn keys(object: &Value) -> Value {
    let mut keys: Vec<String> = match (&object["keys"], &object["data"]) {
        (Value::Array(keys), _) => keys.iter().filter_map(|key| key.as_str().map(str::to_owned)).collect(),
        (_, Value::Object(data)) => data.keys().cloned().collect(),
        _ => Vec::new(),
    };
    keys.sort();
    json!({"labels": at(object, "labels"), "keys": keys, "type": object["type"]})
}
