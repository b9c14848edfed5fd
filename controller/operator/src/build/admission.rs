//! Webhooks and the aggregated API. Names, paths and rules are those that KubeVirt 1.9 has, for the kinds that are
//! installed.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::definitions::served;
use crate::target::Target;

/// One webhook: name, path, operations, group, versions, resources. A resource that is not installed is left out, and
/// with the last of them the webhook.
type Webhook = (
    &'static str,
    &'static str,
    &'static [&'static str],
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
);

const CREATE: &[&str] = &["CREATE"];
const UPDATE: &[&str] = &["UPDATE"];
const BOTH: &[&str] = &["CREATE", "UPDATE"];
const KUBEVIRT: &str = "kubevirt.io";
const INSTANCETYPE: &str = "instancetype.kubevirt.io";
const V1: &[&str] = &["v1alpha3", "v1"];
const BETA: &[&str] = &["v1beta1"];

const VALIDATING: &[Webhook] = &[
    (
        "virtualmachineinstances-create-validator.kubevirt.io",
        "/virtualmachineinstances-validate-create",
        CREATE,
        KUBEVIRT,
        V1,
        &["virtualmachineinstances"],
    ),
    (
        "virtualmachineinstances-update-validator.kubevirt.io",
        "/virtualmachineinstances-validate-update",
        UPDATE,
        KUBEVIRT,
        V1,
        &["virtualmachineinstances"],
    ),
    ("virtualmachine-validator.kubevirt.io", "/virtualmachines-validate", BOTH, KUBEVIRT, V1, &["virtualmachines"]),
    (
        "virtualmachinereplicaset-validator.kubevirt.io",
        "/virtualmachinereplicaset-validate",
        BOTH,
        KUBEVIRT,
        V1,
        &["virtualmachineinstancereplicasets"],
    ),
    (
        "virtualmachinepool-validator.kubevirt.io",
        "/virtualmachinepool-validate",
        BOTH,
        "pool.kubevirt.io",
        BETA,
        &["virtualmachinepools"],
    ),
    (
        "virtualmachinepreset-validator.kubevirt.io",
        "/vmipreset-validate",
        BOTH,
        KUBEVIRT,
        V1,
        &["virtualmachineinstancepresets"],
    ),
    (
        "migration-create-validator.kubevirt.io",
        "/migration-validate-create",
        CREATE,
        KUBEVIRT,
        V1,
        &["virtualmachineinstancemigrations"],
    ),
    (
        "migration-update-validator.kubevirt.io",
        "/migration-validate-update",
        UPDATE,
        KUBEVIRT,
        V1,
        &["virtualmachineinstancemigrations"],
    ),
    (
        "virtualmachineinstancetype-validator.instancetype.kubevirt.io",
        "/virtualmachineinstancetypes-validate",
        BOTH,
        INSTANCETYPE,
        BETA,
        &["virtualmachineinstancetypes"],
    ),
    (
        "virtualmachineclusterinstancetype-validator.instancetype.kubevirt.io",
        "/virtualmachineclusterinstancetypes-validate",
        BOTH,
        INSTANCETYPE,
        BETA,
        &["virtualmachineclusterinstancetypes"],
    ),
    (
        "virtualmachinepreference-validator.instancetype.kubevirt.io",
        "/virtualmachinepreferences-validate",
        BOTH,
        INSTANCETYPE,
        BETA,
        &["virtualmachinepreferences"],
    ),
    (
        "virtualmachineclusterpreference-validator.instancetype.kubevirt.io",
        "/virtualmachineclusterpreferences-validate",
        BOTH,
        INSTANCETYPE,
        BETA,
        &["virtualmachineclusterpreferences"],
    ),
    (
        "kubevirt-crd-status-validator.kubevirt.io",
        "/status-validate",
        BOTH,
        KUBEVIRT,
        V1,
        &[
            "virtualmachines/status",
            "virtualmachineinstancereplicasets/status",
            "virtualmachineinstancemigrations/status",
        ],
    ),
    (
        "underlaynetworks-validator.holdfast.io",
        "/underlaynetworks-validate",
        BOTH,
        "holdfast.io",
        &["v1alpha1"],
        &["underlaynetworks"],
    ),
    (
        "migration-policy-validator.kubevirt.io",
        "/migration-policy-validate-create",
        BOTH,
        "migrations.kubevirt.io",
        &["v1alpha1"],
        &["migrationpolicies"],
    ),
];

const MUTATING: &[Webhook] = &[
    ("virtualmachines-mutator.kubevirt.io", "/virtualmachines-mutate", BOTH, KUBEVIRT, V1, &["virtualmachines"]),
    (
        "virtualmachineinstances-mutator.kubevirt.io",
        "/virtualmachineinstances-mutate",
        BOTH,
        KUBEVIRT,
        V1,
        &["virtualmachineinstances"],
    ),
    (
        "migrations-mutator.kubevirt.io",
        "/migration-mutate-create",
        CREATE,
        KUBEVIRT,
        V1,
        &["virtualmachineinstancemigrations"],
    ),
];

const OPERATOR: &[Webhook] = &[
    ("kubevirt-validator.kubevirt.io", "/kubevirt-validate-delete", &["DELETE"], KUBEVIRT, V1, &["kubevirts"]),
    ("kubevirt-update-validator.kubevirt.io", "/kubevirt-validate-update", UPDATE, KUBEVIRT, V1, &["kubevirts"]),
    ("kubevirt-create-validator.kubevirt.io", "/kubevirt-validate-create", CREATE, KUBEVIRT, V1, &["kubevirts"]),
];

/// The webhooks that virt-api answers.
pub(super) fn of_virt_api(target: &Target, authorities: &str) -> Vec<Value> {
    let front = Front { target, service: "virt-api", bundle: STANDARD.encode(authorities) };
    let mut validating = vec![front.eviction()];
    validating.extend(front.webhooks(VALIDATING));
    let mutating = front.webhooks(MUTATING).map(|mut webhook| {
        webhook["reinvocationPolicy"] = json!("Never");
        webhook
    });
    vec![
        configuration("ValidatingWebhookConfiguration", "virt-api-validator", validating),
        configuration("MutatingWebhookConfiguration", "virt-api-mutator", mutating.collect()),
    ]
}

/// The aggregated API, and the webhooks that the operator answers.
pub(super) fn front(target: &Target, authorities: &str) -> Vec<Value> {
    let bundle = STANDARD.encode(authorities);
    let service = |version: &str| {
        json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": {
                "name": format!("{version}.subresources.kubevirt.io"),
                "labels": {"kubevirt.io": "virt-api-aggregator"},
            },
            "spec": {
                "group": "subresources.kubevirt.io", "version": version,
                "groupPriorityMinimum": 1000, "versionPriority": 15,
                "service": {"namespace": target.namespace, "name": "virt-api", "port": 443},
                "caBundle": bundle,
            },
        })
    };
    let operator = Front { target, service: "kubevirt-operator-webhook", bundle: bundle.clone() };
    vec![
        service("v1"),
        service("v1alpha3"),
        configuration(
            "ValidatingWebhookConfiguration",
            "virt-operator-validator",
            operator.webhooks(OPERATOR).collect(),
        ),
    ]
}

fn configuration(kind: &str, name: &str, webhooks: Vec<Value>) -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
        "metadata": {"name": name, "labels": {"kubevirt.io": name}},
        "webhooks": webhooks,
    })
}

/// Who answers webhooks.
struct Front<'a> {
    target: &'a Target,
    service: &'a str,
    bundle: String,
}

impl Front<'_> {
    fn webhooks(&self, table: &'static [Webhook]) -> impl Iterator<Item = Value> {
        table.iter().filter_map(|&(name, path, operations, group, versions, resources)| {
            let installed: Vec<_> =
                resources.iter().copied().filter(|resource| is_installed(resource, group)).collect();
            if installed.is_empty() {
                return None;
            }
            let rule = json!({
                "apiGroups": [group], "apiVersions": versions, "operations": operations, "resources": installed,
                "scope": "*",
            });
            Some(self.webhook(name, path, rule, "None"))
        })
    }

    /// What is asked before a launcher pod is evicted: virt-controller may have to move the machine first.
    fn eviction(&self) -> Value {
        let rule = json!({
            "apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["pods/eviction"], "scope": "*",
        });
        let name = "virt-launcher-eviction-interceptor.kubevirt.io";
        let mut webhook = self.webhook(name, "/pod-eviction-validate", rule, "NoneOnDryRun");
        webhook["matchConditions"] =
            json!([{"name": "only-vms", "expression": "object.metadata.name.startsWith(\"virt-launcher\")"}]);
        webhook
    }

    fn webhook(&self, name: &str, path: &str, rule: Value, side_effects: &str) -> Value {
        json!({
            "name": name,
            "admissionReviewVersions": ["v1"],
            "clientConfig": {
                "caBundle": self.bundle,
                "service": {"namespace": self.target.namespace, "name": self.service, "path": path, "port": 443},
            },
            "failurePolicy": "Fail",
            "matchPolicy": "Equivalent",
            "rules": [rule],
            "sideEffects": side_effects,
            "timeoutSeconds": 10,
        })
    }
}

fn is_installed(resource: &str, group: &str) -> bool {
    let plural = resource.split('/').next().unwrap_or(resource);
    // The KubeVirt object's own kind comes with the operator.
    plural == "kubevirts" || served(&format!("{plural}.{group}"))
}
