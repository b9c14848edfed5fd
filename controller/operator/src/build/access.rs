//! Service accounts, roles and bindings. The rules are data, in `../rbac`; deploy/ is made from the same files, for
//! the operator can grant only what it has itself.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::target::Target;

/// A component: its service account, and the rules of its roles.
const COMPONENTS: [(&str, &str); 3] = [
    ("kubevirt-apiserver", include_str!("../rbac/kubevirt-apiserver.yaml")),
    ("kubevirt-controller", include_str!("../rbac/kubevirt-controller.yaml")),
    ("kubevirt-handler", include_str!("../rbac/kubevirt-handler.yaml")),
];

/// A role for users, and the role of Kubernetes that it becomes a part of.
const USERS: [(&str, Option<&str>, &str); 7] = [
    ("kubevirt.io:admin", Some("admin"), include_str!("../rbac/kubevirt.io-admin.yaml")),
    ("kubevirt.io:edit", Some("edit"), include_str!("../rbac/kubevirt.io-edit.yaml")),
    ("kubevirt.io:view", Some("view"), include_str!("../rbac/kubevirt.io-view.yaml")),
    ("holdfast.io:view", Some("view"), include_str!("../rbac/holdfast.io-view.yaml")),
    ("kubevirt.io:default", None, include_str!("../rbac/kubevirt.io-default.yaml")),
    ("kubevirt.io:migrate", None, include_str!("../rbac/kubevirt.io-migrate.yaml")),
    ("instancetype.kubevirt.io:view", None, include_str!("../rbac/instancetype.kubevirt.io-view.yaml")),
];

/// Roles for everybody who is known to the cluster.
const EVERYBODY: [&str; 2] = ["kubevirt.io:default", "instancetype.kubevirt.io:view"];

const GROUP: &str = "rbac.authorization.k8s.io";

/// The rules in a file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    /// Of a ClusterRole.
    #[serde(default)]
    cluster: Vec<Value>,
    /// Of a Role in the namespace of the installation.
    #[serde(default)]
    namespace: Vec<Value>,
}

impl Rules {
    #[allow(clippy::expect_used, reason = "a test reads each of the files")]
    fn read(text: &str) -> Self {
        serde_norway::from_str(text).expect("the rules are part of the program, and well-formed")
    }
}

pub(super) fn build(target: &Target) -> Vec<Value> {
    let namespace = &target.namespace;
    let mut objects = Vec::new();
    for (name, text) in COMPONENTS {
        let rules = Rules::read(text);
        objects.push(json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": name, "namespace": namespace},
        }));
        let account = json!([{"kind": "ServiceAccount", "name": name, "namespace": namespace}]);
        objects.push(cluster_role(name, rules.cluster));
        objects.push(cluster_binding(name, name, account.clone()));
        if !rules.namespace.is_empty() {
            objects.push(json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
                "metadata": {"name": name, "namespace": namespace},
                "rules": rules.namespace,
            }));
            objects.push(json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
                "metadata": {"name": name, "namespace": namespace},
                "roleRef": {"apiGroup": GROUP, "kind": "Role", "name": name},
                "subjects": account,
            }));
        }
    }
    let api = json!([{"kind": "ServiceAccount", "name": "kubevirt-apiserver", "namespace": namespace}]);
    // Whether a user may do something, virt-api asks the API server.
    objects.push(cluster_binding("kubevirt-apiserver-auth-delegator", "system:auth-delegator", api));

    let strategy = target.spec.configuration.as_ref().and_then(|given| given.role_aggregation_strategy.as_deref());
    for (name, part_of, text) in USERS {
        let mut role = cluster_role(name, Rules::read(text).cluster);
        if let Some(part_of) = part_of.filter(|_| strategy != Some("Manual")) {
            role["metadata"]["labels"][format!("rbac.authorization.k8s.io/aggregate-to-{part_of}")] = json!("true");
        }
        if name == "kubevirt.io:default" {
            role["metadata"]["labels"]["kubernetes.io/bootstrapping"] = json!("rbac-defaults");
        }
        objects.push(role);
    }
    for name in EVERYBODY {
        let everybody = json!([{"apiGroup": GROUP, "kind": "Group", "name": "system:authenticated"}]);
        objects.push(cluster_binding(name, name, everybody));
    }
    objects
}

fn cluster_role(name: &str, rules: Vec<Value>) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": name, "labels": {}},
        "rules": rules,
    })
}

fn cluster_binding(name: &str, role: &str, subjects: Value) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": role},
        "subjects": subjects,
    })
}
