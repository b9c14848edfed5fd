//! Where the components are reached, and the authorities by which they know each other.

use serde_json::{Value, json};

use crate::certificates::BUNDLE;
use crate::target::Target;

pub(super) fn build(target: &Target) -> Vec<Value> {
    let service = |name: &str, labels: Value, spec: Value| {
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": target.namespace, "labels": labels},
            "spec": spec,
        })
    };
    vec![
        service(
            "kubevirt-operator-webhook",
            json!({"prometheus.kubevirt.io": "true"}),
            json!({
                "ports": [{"name": "webhooks", "port": 443, "protocol": "TCP", "targetPort": "webhooks"}],
                "selector": {"kubevirt.io": "virt-operator"},
            }),
        ),
        // Prometheus finds each pod of it by itself.
        service(
            "kubevirt-prometheus-metrics",
            json!({"prometheus.kubevirt.io": "true"}),
            json!({
                "clusterIP": "None",
                "ports": [{"name": "metrics", "port": 443, "protocol": "TCP", "targetPort": "metrics"}],
                "selector": {"prometheus.kubevirt.io": "true"},
            }),
        ),
        service(
            "virt-api",
            json!({"kubevirt.io": "virt-api"}),
            json!({
                "ports": [{"port": 443, "protocol": "TCP", "targetPort": 8443}],
                "selector": {"kubevirt.io": "virt-api"},
            }),
        ),
    ]
}

/// The ConfigMap that components trust by.
pub(super) fn authorities(target: &Target, bundle: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": BUNDLE, "namespace": target.namespace},
        "data": {"ca-bundle": bundle},
    })
}
