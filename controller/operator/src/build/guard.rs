//! Keeps what must not go before something else does: the API server itself refuses, also while nobody of ours runs.
//!
//! What an uninstallation needs stays for as long as there is something to uninstall. Who deletes the operator's
//! namespace, or the kind of the KubeVirt object, before that object, would leave behind webhooks and an aggregated API
//! that nobody answers. With these no namespace of the cluster can be deleted any more, and all VMs would have gone
//! without a question; with any other of our kinds, its objects would.
//!
//! A lease stays with its VM: deleted by hand, its address would be given to another while its VM still speaks from it.

use serde_json::{Value, json};

use super::definitions::DEFINITIONS;
use crate::target::Target;

const UNINSTALL: &str = "kubevirt-uninstall-guard";
const LEASES: &str = "holdfast-lease-guard";
const KIND: &str = "kubevirts.kubevirt.io";

pub(super) fn build(target: &Target) -> [Value; 4] {
    let namespace = &target.namespace;
    let account = |name: &str| format!("\"system:serviceaccount:{namespace}:{name}\"");
    let kinds: Vec<&str> = DEFINITIONS.iter().map(|(name, _)| *name).chain([KIND]).collect();
    let installed = format!(
        "\"Holdfast is installed here by KubeVirt object \" + params.metadata.name + \": delete that first and wait \
         until it is gone, by `kubectl -n {namespace} delete kubevirt \" + params.metadata.name + \"` (virt-operator \
         must be running)\""
    );
    let held = "\"the lease is held by \" + oldObject.spec.claim.kind + \" \" + oldObject.spec.claim.namespace + \"/\" \
                + oldObject.spec.claim.name + \", and goes when that is deleted\"";
    let quarantined = "has(oldObject.status) && has(oldObject.status.conditions) \
                       && oldObject.status.conditions.exists(c, c.type == \"Quarantined\" && c.status == \"True\")";
    [
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": UNINSTALL},
            "spec": {
                // A kind that is gone has no objects to guard.
                "failurePolicy": "Ignore",
                "paramKind": {"apiVersion": "kubevirt.io/v1", "kind": "KubeVirt"},
                "matchConditions": [{
                    "name": "not-virt-operator",
                    "expression": format!("request.userInfo.username != {}", account("kubevirt-operator")),
                }],
                "matchConstraints": {"resourceRules": [
                    rule("", "namespaces", &["DELETE"], &[namespace]),
                    rule("apiextensions.k8s.io", "customresourcedefinitions", &["DELETE"], &kinds),
                ]},
                "validations": [{"expression": "false", "messageExpression": installed, "reason": "Forbidden"}],
            },
        }),
        binding(
            UNINSTALL,
            UNINSTALL,
            json!({"namespace": namespace, "selector": {}, "parameterNotFoundAction": "Allow"}),
        ),
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": LEASES},
            "spec": {
                "failurePolicy": "Fail",
                "matchConditions": [{
                    "name": "nobody-who-keeps-leases",
                    "expression": format!(
                        "!(request.userInfo.username in [{}, {}])",
                        account("kubevirt-controller"), account("kubevirt-handler")
                    ),
                }],
                "matchConstraints": {"resourceRules": [
                    rule("holdfast.io", "ipleases", &["DELETE", "UPDATE"], &[]),
                    rule("holdfast.io", "macleases", &["DELETE", "UPDATE"], &[]),
                ]},
                "validations": [
                    {
                        // Those of pods are for people where a node is lost for good.
                        "expression": format!(
                            "request.operation != \"DELETE\" || oldObject.spec.claim.kind == \"Pod\" || {quarantined}"
                        ),
                        "messageExpression": held, "reason": "Forbidden",
                    },
                    {
                        "expression": "request.operation != \"UPDATE\" || object.spec == oldObject.spec",
                        "message": "the spec of a lease does not change", "reason": "Forbidden",
                    },
                ],
            },
        }),
        binding(LEASES, LEASES, Value::Null),
    ]
}

/// Some operations on a resource, and of these those on objects with some names where any are given.
fn rule(group: &str, resource: &str, operations: &[&str], names: &[&str]) -> Value {
    let mut rule = json!({
        "apiGroups": [group], "apiVersions": ["*"], "operations": operations, "resources": [resource],
    });
    if !names.is_empty() {
        rule["resourceNames"] = json!(names);
    }
    rule
}

/// What puts a policy into force, for the objects that it takes as parameters where there are any.
pub(super) fn binding(name: &str, policy: &str, parameters: Value) -> Value {
    let mut spec = json!({"policyName": policy, "validationActions": ["Deny"]});
    if !parameters.is_null() {
        spec["paramRef"] = parameters;
    }
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name}, "spec": spec,
    })
}
