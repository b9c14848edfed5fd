//! Keeps what an uninstallation needs for as long as there is something to uninstall.
//!
//! Who deletes the operator's namespace, or the kind of the KubeVirt object, before that object, would leave behind
//! webhooks and an aggregated API that nobody answers. With these no namespace of the cluster can be deleted any more,
//! and all VMs would have gone without a question. The API server refuses that itself, so that it holds also while the
//! operator is away.

use serde_json::{Value, json};

use crate::target::Target;

const NAME: &str = "kubevirt-uninstall-guard";
const KIND: &str = "kubevirts.kubevirt.io";

pub(super) fn build(target: &Target) -> [Value; 2] {
    let namespace = &target.namespace;
    let message = format!(
        "\"Holdfast is installed here by KubeVirt object \" + params.metadata.name + \": delete that first and wait \
         until it is gone, by `kubectl -n {namespace} delete kubevirt \" + params.metadata.name + \"` (virt-operator \
         must be running)\""
    );
    let rule = |group: &str, resource: &str, name: &str| {
        json!({
            "apiGroups": [group], "apiVersions": ["*"], "operations": ["DELETE"], "resources": [resource],
            "resourceNames": [name],
        })
    };
    [
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": NAME},
            "spec": {
                // A kind that is gone has no objects to guard.
                "failurePolicy": "Ignore",
                "paramKind": {"apiVersion": "kubevirt.io/v1", "kind": "KubeVirt"},
                "matchConstraints": {"resourceRules": [
                    rule("", "namespaces", namespace),
                    rule("apiextensions.k8s.io", "customresourcedefinitions", KIND),
                ]},
                "validations": [{"expression": "false", "messageExpression": message, "reason": "Forbidden"}],
            },
        }),
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": NAME},
            "spec": {
                "policyName": NAME,
                "paramRef": {"namespace": namespace, "selector": {}, "parameterNotFoundAction": "Allow"},
                "validationActions": ["Deny"],
            },
        }),
    ]
}
