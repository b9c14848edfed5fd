#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use holdfast_api::crd::crds;

use super::definitions::served;
use super::*;
use crate::object::{Content, Id};
use crate::target::tests::target;

/// What KubeVirt 1.9 was seen to install.
fn observed() -> Value {
    serde_json::from_str(include_str!("../../../../tests/cluster/data/install.json")).unwrap()
}

fn installed(spec: Value) -> BTreeMap<Id, Value> {
    let installation = Installation::build(&target(spec), "authority").unwrap();
    let object = |desired: &Desired| match &desired.content {
        Content::Object(value) => Some((desired.id.clone(), value.clone())),
        Content::Definition { .. } => None,
    };
    installation.all().filter_map(object).collect()
}

fn find(objects: &BTreeMap<Id, Value>, kind: &str, name: &str) -> Value {
    let found = objects.iter().find(|(id, _)| id.kind == kind && id.name == name);
    found.unwrap_or_else(|| panic!("{kind} {name}")).1.clone()
}

/// The object of that name in a list of what was observed.
fn seen(list: &str, name: &str) -> Value {
    let observed = observed();
    let list = observed[list].as_array().unwrap();
    list.iter().find(|object| object["name"] == name).unwrap_or_else(|| panic!("{list:?} {name}")).clone()
}

#[test]
fn the_same_input_makes_the_same_objects() {
    assert_eq!(installed(json!({})), installed(json!({})));
}

#[test]
fn every_object_is_labelled_as_ours() {
    for (id, object) in installed(json!({"productName": "p", "productComponent": "c"})) {
        let labels = &object["metadata"]["labels"];
        assert_eq!(labels["app.kubernetes.io/managed-by"], "virt-operator", "{id}");
        assert_eq!(labels["app.kubernetes.io/part-of"], "p", "{id}");
        assert_eq!(labels["app.kubernetes.io/component"], "c", "{id}");
    }
}

#[test]
fn the_definitions_are_those_of_the_types() {
    let types: BTreeSet<_> = crds().iter().map(|crd| crd.metadata.name.clone().unwrap()).collect();
    let ours: BTreeSet<_> = definitions::DEFINITIONS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let missing: Vec<_> = types.symmetric_difference(&ours).collect();
    assert_eq!(missing, ["kubevirts.kubevirt.io"], "the KubeVirt object's kind comes with the operator");
    for (name, text) in definitions::DEFINITIONS {
        assert!(text.contains(&format!("\nmetadata:\n  name: {name}\n")), "{name}");
    }
    let installation = Installation::build(&target(json!({})), "").unwrap();
    assert_eq!(installation.definitions.len(), definitions::DEFINITIONS.len());
    for (group_version, plural) in served_versions() {
        let group = group_version.split('/').next().unwrap();
        assert!(group == "k8s.cni.cncf.io" || served(&format!("{plural}.{group}")), "{plural}");
    }
}

#[test]
fn the_kind_of_networks_bears_no_mark() {
    let definition: Value = serde_norway::from_str(NETWORK_ATTACHMENT_DEFINITION).unwrap();
    assert_eq!(definition["metadata"], json!({"name": "network-attachment-definitions.k8s.cni.cncf.io"}));
    assert_eq!(definition["spec"]["names"]["shortNames"], json!(["net-attach-def"]));
}

#[test]
fn roles_of_users_are_as_observed() {
    let objects = installed(json!({}));
    for name in [
        "kubevirt.io:admin",
        "kubevirt.io:edit",
        "kubevirt.io:view",
        "kubevirt.io:default",
        "kubevirt.io:migrate",
        "instancetype.kubevirt.io:view",
    ] {
        let (ours, upstream) = (find(&objects, "ClusterRole", name), seen("clusterRoles", name));
        assert_eq!(ours["rules"], upstream["rules"], "{name}");
        assert_eq!(ours["metadata"]["labels"], upstream["labels"], "{name}");
    }
    for name in ["kubevirt.io:default", "instancetype.kubevirt.io:view"] {
        let (ours, upstream) = (find(&objects, "ClusterRoleBinding", name), seen("clusterRoleBindings", name));
        assert_eq!((&ours["subjects"], &ours["roleRef"]), (&upstream["subjects"], &upstream["roleRef"]), "{name}");
    }
}

#[test]
fn roles_of_users_can_be_kept_apart() {
    let objects = installed(json!({"configuration": {"roleAggregationStrategy": "Manual"}}));
    let labels = find(&objects, "ClusterRole", "kubevirt.io:admin")["metadata"]["labels"].clone();
    assert!(labels.as_object().unwrap().keys().all(|label| !label.contains("aggregate-to")), "{labels}");
}

#[test]
fn components_are_called_as_observed() {
    let objects = installed(json!({}));
    for (list, kind) in [
        ("serviceAccounts", "ServiceAccount"),
        ("services", "Service"),
        ("configMaps", "ConfigMap"),
        ("clusterRoleBindings", "ClusterRoleBinding"),
        ("deployments", "Deployment"),
        ("daemonsets", "DaemonSet"),
        ("roles", "Role"),
    ] {
        let upstream = observed();
        for (id, ours) in objects.iter().filter(|(id, _)| id.kind == kind) {
            let list = upstream[list].as_array().unwrap();
            let Some(upstream) = list.iter().find(|object| object["name"] == id.name.as_str()) else {
                panic!("{id} is not KubeVirt's");
            };
            for (label, value) in upstream["labels"].as_object().unwrap() {
                if label != "app.kubernetes.io/version" && !(kind == "ConfigMap" && label == "kubevirt.io") {
                    assert_eq!(ours["metadata"]["labels"][label], *value, "{id} {label}");
                }
            }
        }
    }
    for name in ["virt-api", "kubevirt-operator-webhook", "kubevirt-prometheus-metrics"] {
        let (ours, upstream) = (find(&objects, "Service", name), seen("services", name));
        assert_eq!(ours["spec"]["ports"], upstream["spec"]["ports"], "{name}");
        assert_eq!(ours["spec"]["selector"], upstream["spec"]["selector"], "{name}");
    }
    assert!(find(&objects, "ConfigMap", "kubevirt-ca")["data"]["ca-bundle"].is_string());
}

#[test]
fn workloads_have_the_names_and_labels_that_were_observed() {
    let objects = installed(json!({"imageTag": "1"}));
    for (list, kind, name) in [
        ("deployments", "Deployment", "virt-api"),
        ("deployments", "Deployment", "virt-controller"),
        ("daemonsets", "DaemonSet", "virt-handler"),
    ] {
        let (ours, upstream) = (find(&objects, kind, name), seen(list, name));
        let (ours, upstream) = (&ours["spec"], &upstream["spec"]);
        assert_eq!(ours["selector"], upstream["selector"]);
        let (ours, upstream) = (&ours["template"], &upstream["template"]);
        assert_eq!(ours["metadata"]["labels"], upstream["metadata"]["labels"], "{name}");
        let (ours, upstream) = (&ours["spec"], &upstream["spec"]);
        for field in ["priorityClassName", "serviceAccountName", "tolerations", "nodeSelector"] {
            assert_eq!(ours[field], upstream[field], "{name} {field}");
        }
        assert_eq!(ours["containers"][0]["name"], upstream["containers"][0]["name"]);
        let ports = |pod: &Value| -> Vec<Value> {
            pod["containers"][0]["ports"].as_array().unwrap().iter().map(|port| port["name"].clone()).collect()
        };
        assert!(ports(ours).iter().all(|port| ports(upstream).contains(port)), "{name}");
    }
}

#[test]
fn webhooks_are_those_that_were_observed() {
    let objects = installed(json!({}));
    // Of a kind of our own.
    let ours_alone = ["underlaynetworks-validator.holdfast.io"];
    let mut served = 0;
    for (kind, list, name) in [
        ("ValidatingWebhookConfiguration", "validating", "virt-api-validator"),
        ("ValidatingWebhookConfiguration", "validating", "virt-operator-validator"),
        ("MutatingWebhookConfiguration", "mutating", "virt-api-mutator"),
    ] {
        let (ours, upstream) = (find(&objects, kind, name), seen(list, name));
        assert_eq!(ours["metadata"]["labels"], upstream["labels"]);
        for webhook in ours["webhooks"].as_array().unwrap() {
            served += 1;
            if ours_alone.iter().any(|name| webhook["name"] == *name) {
                continue;
            }
            let upstream = upstream["webhooks"].as_array().unwrap();
            let mut upstream = upstream.iter().find(|known| known["name"] == webhook["name"]).unwrap().clone();
            // What the API server adds.
            upstream.as_object_mut().unwrap().retain(|field, _| !field.ends_with("Selector"));
            let mut webhook = webhook.clone();
            assert_eq!(webhook["clientConfig"]["caBundle"], "YXV0aG9yaXR5");
            webhook["clientConfig"].as_object_mut().unwrap().remove("caBundle");
            assert_eq!(webhook, upstream);
        }
    }
    assert!(served > 15);
}

#[test]
fn aggregated_apis_are_as_observed() {
    let objects = installed(json!({}));
    for name in ["v1.subresources.kubevirt.io", "v1alpha3.subresources.kubevirt.io"] {
        let (mut ours, upstream) = (find(&objects, "APIService", name), seen("apiservices", name));
        assert_eq!(ours["metadata"]["labels"], upstream["labels"]);
        assert_eq!(ours["spec"].as_object_mut().unwrap().remove("caBundle"), Some(json!("YXV0aG9yaXR5")));
        assert_eq!(ours["spec"], upstream["spec"]);
    }
}

#[test]
fn the_node_policy_is_for_virt_handler_alone_and_can_be_left_out() {
    let policy = find(&installed(json!({})), "ValidatingAdmissionPolicy", "kubevirt-node-restriction-policy");
    assert_eq!(
        policy["spec"]["matchConditions"],
        json!([{
            "name": "virt-handler-user-only",
            "expression": "request.userInfo.username == \"system:serviceaccount:kubevirt:kubevirt-handler\"",
        }])
    );
    let without = installed(json!({"configuration": {"developerConfiguration": {
        "disabledFeatureGates": ["NodeRestriction"]}}}));
    assert!(without.keys().all(|id| !id.name.starts_with("kubevirt-node-restriction")));
}

#[test]
fn the_namespace_stays_while_there_is_a_kubevirt_object() {
    let objects = installed(json!({}));
    let policy = find(&objects, "ValidatingAdmissionPolicy", "kubevirt-uninstall-guard");
    let names: Vec<_> = policy["spec"]["matchConstraints"]["resourceRules"].as_array().unwrap().iter().collect();
    assert_eq!(names[0]["resourceNames"], json!(["kubevirt"]));
    let binding = find(&objects, "ValidatingAdmissionPolicyBinding", "kubevirt-uninstall-guard");
    assert_eq!(binding["spec"]["paramRef"]["parameterNotFoundAction"], "Allow");
}

#[test]
fn the_user_decides_on_placement_pulling_and_verbosity() {
    let objects = installed(json!({
        "imagePullPolicy": "Always", "imagePullSecrets": [{"name": "s"}],
        "infra": {"replicas": 3, "nodePlacement": {
            "nodeSelector": {"infra": "yes"}, "tolerations": [{"key": "x", "operator": "Exists"}],
            "affinity": {"nodeAffinity": {}}}},
        "workloads": {"nodePlacement": {"nodeSelector": {"vms": "yes"}}},
        "configuration": {"imagePullPolicy": "Never",
            "developerConfiguration": {"logVerbosity": {"virtHandler": 6}}},
        "customizeComponents": {"flags": {"controller": {"v": "4"}},
            "patches": [{"resourceType": "DaemonSet", "resourceName": "virt-handler", "type": "strategic",
                "patch": "{\"spec\":{\"template\":{\"spec\":{\"containers\":[{\"name\":\"virt-handler\",\"resources\":{\"limits\":{\"memory\":\"1Gi\"}}}]}}}}"}]},
    }));
    let api = &find(&objects, "Deployment", "virt-api")["spec"];
    assert_eq!(api["replicas"], 3);
    let pod = &api["template"]["spec"];
    assert_eq!(pod["nodeSelector"], json!({"infra": "yes", "kubernetes.io/os": "linux"}));
    assert_eq!(pod["affinity"]["nodeAffinity"], json!({}));
    assert!(pod["affinity"]["podAntiAffinity"].is_object());
    assert_eq!(pod["tolerations"].as_array().unwrap().len(), 4);
    assert_eq!(pod["imagePullSecrets"], json!([{"name": "s"}]));
    assert_eq!(pod["containers"][0]["imagePullPolicy"], "Always");

    let controller = &find(&objects, "Deployment", "virt-controller")["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(
        controller["args"],
        json!([
            "--port",
            "8443",
            "--launcher-image",
            "localhost/holdfast/virt-launcher:v1",
            "--image-pull-policy",
            "Never",
            "-v",
            "4",
        ])
    );
    let handler = &find(&objects, "DaemonSet", "virt-handler")["spec"]["template"]["spec"];
    assert_eq!(handler["nodeSelector"], json!({"vms": "yes", "kubernetes.io/os": "linux"}));
    assert_eq!(handler["containers"][0]["args"], json!(["--port", "8186", "-v", "6"]));
    assert_eq!(handler["containers"][0]["resources"]["limits"], json!({"memory": "1Gi"}));
    assert_eq!(handler["containers"][0]["resources"]["requests"]["cpu"], "10m");
}

#[test]
fn components_of_the_cluster_have_no_rights_on_their_nodes() {
    let objects = installed(json!({}));
    for name in ["virt-api", "virt-controller"] {
        let pod = find(&objects, "Deployment", name)["spec"]["template"]["spec"].clone();
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        let context = &pod["containers"][0]["securityContext"];
        assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}));
        assert_eq!(context["allowPrivilegeEscalation"], false);
        assert_eq!(context["readOnlyRootFilesystem"], true);
        assert!(pod["volumes"].as_array().unwrap().iter().all(|volume| volume.get("hostPath").is_none()));
    }
}
