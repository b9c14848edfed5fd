//! Keeps virt-handler, whose token lies on each node, to its own node, and there to labels and annotations that are
//! KubeVirt's or ours.

use serde_json::{Value, json};

use super::guard::binding;
use crate::target::Target;

const NAME: &str = "kubevirt-node-restriction-policy";
/// Keys that virt-handler may change.
const OURS: &str = r#"k.contains("kubevirt.io") || k.contains("holdfast.io") || k == "cpumanager""#;

pub(super) fn build(target: &Target) -> [Value; 2] {
    let variables = json!([
        variable("node", "request.userInfo.extra[?'authentication.kubernetes.io/node-name'].orValue([])"),
        variable("labels", "object.metadata.?labels.orValue({})"),
        variable("oldLabels", "oldObject.metadata.?labels.orValue({})"),
        variable("annotations", "object.metadata.?annotations.orValue({})"),
        variable("oldAnnotations", "oldObject.metadata.?annotations.orValue({})"),
        variable("foreignLabels", &format!("variables.labels.filter(k, !({OURS}))")),
        variable("oldForeignLabels", &format!("variables.oldLabels.filter(k, !({OURS}))")),
        variable("foreignAnnotations", &format!("variables.annotations.filter(k, !({OURS}))")),
        variable("oldForeignAnnotations", &format!("variables.oldAnnotations.filter(k, !({OURS}))")),
    ]);
    let same = |keys: &str, map: &str, old: &str| {
        format!("variables.{keys}.all(k, k in variables.{old} && variables.{map}[k] == variables.{old}[k])")
    };
    let validations = json!([
        validation("object.metadata.name in variables.node", "this user cannot modify this node"),
        validation("object.spec == oldObject.spec", "this user cannot modify spec of node"),
        validation(
            "object.metadata.?finalizers == oldObject.metadata.?finalizers \
             && object.metadata.?ownerReferences == oldObject.metadata.?ownerReferences",
            "this user can only change allowed metadata fields",
        ),
        validation(
            "size(variables.foreignLabels) == size(variables.oldForeignLabels)",
            "this user cannot add/delete non kubevirt-owned labels",
        ),
        validation(&same("foreignLabels", "labels", "oldLabels"), "this user cannot update non kubevirt-owned labels",),
        validation(
            "size(variables.foreignAnnotations) == size(variables.oldForeignAnnotations)",
            "this user cannot add/delete non kubevirt-owned annotations",
        ),
        validation(
            &same("foreignAnnotations", "annotations", "oldAnnotations"),
            "this user cannot update non kubevirt-owned annotations",
        ),
    ]);
    let user = format!("system:serviceaccount:{}:kubevirt-handler", target.namespace);
    [
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": NAME},
            "spec": {
                "failurePolicy": "Fail",
                "matchConditions": [{
                    "name": "virt-handler-user-only",
                    "expression": format!("request.userInfo.username == \"{user}\""),
                }],
                "matchConstraints": {"resourceRules": [{
                    "apiGroups": [""], "apiVersions": ["*"], "operations": ["UPDATE"],
                    "resources": ["nodes", "nodes/status"],
                }]},
                "validations": validations,
                "variables": variables,
            },
        }),
        binding("kubevirt-node-restriction-binding", NAME, Value::Null),
    ]
}

fn variable(name: &str, expression: &str) -> Value {
    json!({"name": name, "expression": expression})
}

fn validation(expression: &str, message: &str) -> Value {
    json!({"expression": expression, "message": message, "reason": "Forbidden"})
}
