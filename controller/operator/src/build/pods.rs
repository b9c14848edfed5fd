//! What the pods of all components have in common.

use serde_json::{Value, json};

use super::product_labels;
use crate::target::Target;

/// The template of a component's pods, around its spec.
pub(super) fn template(target: &Target, component: &str, mut spec: Value) -> Value {
    if !target.spec.image_pull_secrets.is_empty() {
        spec["imagePullSecrets"] = json!(target.spec.image_pull_secrets);
    }
    spec["priorityClassName"] = json!("kubevirt-cluster-critical");
    spec["nodeSelector"]["kubernetes.io/os"] = json!("linux");
    let mut labels = product_labels(target);
    labels.insert("app.kubernetes.io/version".to_owned(), json!(version(target)));
    labels.insert("kubevirt.io".to_owned(), json!(component));
    // For network policies that let components reach the cluster's own services, and for Prometheus.
    labels.insert("np.kubevirt.io/allow-access-cluster-services".to_owned(), json!("true"));
    labels.insert("prometheus.kubevirt.io".to_owned(), json!("true"));
    json!({
        "metadata": {
            "name": component,
            "labels": labels,
            "annotations": {
                "kubevirt.io/install-strategy-registry": target.registry,
                "kubevirt.io/install-strategy-version": target.version,
            },
        },
        "spec": spec,
    })
}

/// Value of the label `app.kubernetes.io/version`.
pub(super) fn version(target: &Target) -> &str {
    target.spec.product_version.as_deref().unwrap_or(&target.version)
}

/// When images of the installation are pulled.
pub(super) fn pull_policy(target: &Target) -> &str {
    target.spec.image_pull_policy.as_deref().filter(|policy| !policy.is_empty()).unwrap_or("IfNotPresent")
}

/// Volume and mount of a Secret, read-only.
pub(super) fn secret(name: &str, path: &str) -> (Value, Value) {
    let volume = json!({"name": name, "secret": {"secretName": name, "defaultMode": 288}});
    (volume, json!({"name": name, "mountPath": path, "readOnly": true}))
}

/// Volume and mount of the authorities that components trust.
pub(super) fn authorities() -> (Value, Value) {
    let volume = json!({"name": "kubevirt-ca", "configMap": {"name": "kubevirt-ca"}});
    (volume, json!({"name": "kubevirt-ca", "mountPath": "/etc/kubevirt/ca", "readOnly": true}))
}

/// Volume and mount of a folder of the node, at the same path. It is made where it is not there.
pub(super) fn host_folder(name: &str, path: &str, propagation: Option<&str>) -> (Value, Value) {
    let volume = json!({"name": name, "hostPath": {"path": path, "type": "DirectoryOrCreate"}});
    let mut mount = json!({"name": name, "mountPath": path});
    if let Some(propagation) = propagation {
        mount["mountPropagation"] = json!(propagation);
    }
    (volume, mount)
}

/// Volume and mount of a folder that goes with the pod.
pub(super) fn folder(name: &str, path: &str) -> (Value, Value) {
    (json!({"name": name, "emptyDir": {}}), json!({"name": name, "mountPath": path}))
}

/// Environment: the pod's name and namespace, and what else is given.
pub(super) fn environment(more: &[(&str, &str)]) -> Value {
    let all = [("POD_NAME", "metadata.name"), ("POD_NAMESPACE", "metadata.namespace")];
    let field = |(name, path): &(&str, &str)| json!({"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}});
    all.iter().chain(more).map(field).collect()
}

/// A probe by HTTPS. It is quick to see that a process is up, so that an installation need not wait for it.
pub(super) fn probe(path: &str, port: u16, period: u32, failures: u32) -> Value {
    json!({
        "httpGet": {"path": path, "port": port, "scheme": "HTTPS"},
        "periodSeconds": period, "timeoutSeconds": 5, "failureThreshold": failures,
    })
}

/// Takes them apart for the spec of a pod and that of its container.
pub(super) fn unzip(mounted: Vec<(Value, Value)>) -> (Vec<Value>, Vec<Value>) {
    mounted.into_iter().unzip()
}
