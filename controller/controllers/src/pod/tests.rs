#![allow(clippy::unwrap_used)]

use holdfast_api::kubevirt::VirtualMachineInstance;
use holdfast_ipam::nic::wanted;
use serde_json::{Value, json};

use super::template::{DEFAULT_GRACE, POD_GRACE};
use super::*;
use crate::context::Launcher;

fn vmi(spec: Value) -> VirtualMachineInstance {
    serde_json::from_value(json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
        "metadata": {"name": "mig", "namespace": "default", "uid": "9cd44044-f743-41de-93e4-4b4341daf7d9",
            "labels": {"app": "x"},
            "annotations": {"kubevirt.io/pci-topology-version": "v3", "kubevirt.io/vm-generation": "2", "mine": "1"}},
        "spec": spec,
    }))
    .unwrap()
}

fn plain() -> Value {
    json!({
        "architecture": "amd64", "terminationGracePeriodSeconds": 15,
        "domain": {
            "cpu": {"model": "host-model"}, "machine": {"type": "q35"}, "memory": {"guest": "96Mi"}, "resources": {},
            "devices": {"interfaces": [{"name": "default", "masquerade": {}}]}},
        "networks": [{"name": "default", "pod": {}}],
    })
}

fn pod(vmi: &VirtualMachineInstance, emulation: bool) -> Value {
    let bare = r#"{"type": "bridge"}"#;
    let list = holdfast_ipam::network::NetworkList::parse(bare, "x").unwrap();
    let nics: Vec<_> = wanted(vmi)
        .unwrap()
        .into_iter()
        .map(|wanted| {
            let nic = wanted.foreign(&list, "x").unwrap();
            (wanted, nic)
        })
        .collect();
    let launcher = Launcher { image: "launcher:1".into(), pull_policy: "IfNotPresent".into() };
    let input = Input { vmi, nics: &nics, launcher: &launcher, pull_secrets: &[], emulation, cpu_ratio: None };
    serde_json::to_value(launcher_pod(&input)).unwrap()
}

/// What upstream's pod of the same VMI was seen to have, as far as it shall be the same.
#[test]
fn a_plain_pod_is_as_upstreams() {
    let pod = pod(&vmi(plain()), true);
    let meta = &pod["metadata"];
    let expected = json!({
        "app": "x", "kubevirt.io": "virt-launcher", "kubevirt.io/created-by": "9cd44044-f743-41de-93e4-4b4341daf7d9",
        "vm.kubevirt.io/name": "mig", "vmi.kubevirt.io/id": "mig"});
    assert_eq!(meta["labels"], expected);
    assert_eq!(
        meta["ownerReferences"],
        json!([{"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "name": "mig",
            "uid": "9cd44044-f743-41de-93e4-4b4341daf7d9", "controller": true, "blockOwnerDeletion": true}])
    );
    let annotation = |key: &str| meta["annotations"][key].as_str();
    for (key, value) in [
        ("descheduler.alpha.kubernetes.io/request-evict-only", Some("")),
        ("kubectl.kubernetes.io/default-container", Some("compute")),
        ("kubevirt.io/domain", Some("mig")),
        ("kubevirt.io/migrationTransportUnix", Some("true")),
        ("kubevirt.io/pci-topology-version", Some("v3")),
        ("kubevirt.io/vm-generation", None),
        ("mine", Some("1")),
        ("k8s.v1.cni.cncf.io/networks", None),
    ] {
        assert_eq!(annotation(key), value, "{key}");
    }
    assert_eq!(
        annotation("holdfast.io/nics"),
        Some(r#"[{"ifname":"eth0","interface":"default","network":"default"}]"#)
    );
    let spec = &pod["spec"];
    for (field, value) in [
        ("restartPolicy", json!("Never")),
        ("terminationGracePeriodSeconds", json!(30)),
        ("automountServiceAccountToken", json!(false)),
        ("enableServiceLinks", json!(false)),
        ("hostname", json!("mig")),
        ("readinessGates", json!([{"conditionType": "kubevirt.io/virtual-machine-unpaused"}])),
        (
            "nodeSelector",
            json!({"kubernetes.io/arch": "amd64", "kubevirt.io/schedulable": "true",
                "machine-type.node.kubevirt.io/q35": "true"}),
        ),
        (
            "affinity",
            json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [
                    {"key": "node-labeller.kubevirt.io/obsolete-host-model", "operator": "DoesNotExist"}]}]}}}),
        ),
    ] {
        assert_eq!(spec[field], value, "{field}");
    }
    let container = &spec["containers"][0];
    assert_eq!(spec["containers"].as_array().unwrap().len(), 1);
    assert_eq!(spec["initContainers"], Value::Null);
    assert_eq!(container["name"], "compute");
    assert_eq!(container["resources"]["limits"], json!({"devices.kubevirt.io/tun": "1"}));
    let requests = &container["resources"]["requests"];
    assert_eq!((&requests["cpu"], &requests["ephemeral-storage"]), (&json!("100m"), &json!("50M")));
    assert_eq!(requests["devices.kubevirt.io/tun"], "1");
}

#[test]
fn nothing_in_it_is_privileged() {
    let pod = pod(&vmi(plain()), false);
    let spec = &pod["spec"];
    assert_eq!(
        spec["securityContext"],
        json!({"runAsUser": 107, "runAsGroup": 107, "runAsNonRoot": true, "fsGroup": 107,
            "seccompProfile": {"type": "RuntimeDefault"}})
    );
    assert_eq!(
        spec["containers"][0]["securityContext"],
        json!({"runAsUser": 107, "runAsGroup": 107, "runAsNonRoot": true, "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}})
    );
    let folders: Vec<_> = spec["volumes"].as_array().unwrap().iter().map(|v| &v["emptyDir"]).collect();
    assert!(folders.iter().all(|folder| folder.is_object()), "{folders:?}");
    let limits = &spec["containers"][0]["resources"]["limits"];
    for device in ["kvm", "tun", "vhost-net"] {
        assert_eq!(limits[format!("devices.kubevirt.io/{device}")], "1", "{device}");
    }
}

#[test]
fn memory_is_the_guests_and_the_overhead() {
    const MIB: i64 = 1 << 20;
    let of = |change: fn(&mut Value)| {
        let mut spec = plain();
        change(&mut spec);
        let vmi = vmi(spec);
        (overhead(&vmi, true), pod(&vmi, true)["spec"]["containers"][0]["resources"].clone())
    };
    let base = (4 + 6 + 4 + 16) * MIB + (36 + 128) * MIB + 2 * MIB + 96 * MIB / 512;
    let (bytes, resources) = of(|_| {});
    assert_eq!(bytes, base + 16 * MIB);
    assert_eq!(resources["requests"]["memory"], (bytes + 96 * MIB).to_string());
    let (bytes, _) = of(|spec| spec["domain"]["devices"]["autoattachGraphicsDevice"] = json!(false));
    assert_eq!(bytes, base);
    let (bytes, resources) = of(|spec| {
        spec["domain"]["cpu"] = json!({"sockets": 2, "cores": 3, "threads": 1});
        spec["domain"]["resources"] =
            json!({"requests": {"memory": "128Mi", "cpu": "2"}, "limits": {"memory": "256Mi", "cpu": "4"}});
    });
    assert_eq!(bytes, base + 16 * MIB + 5 * 2 * MIB);
    assert_eq!(resources["requests"]["memory"], (bytes + 128 * MIB).to_string());
    assert_eq!(resources["limits"]["memory"], (bytes + 256 * MIB).to_string());
    assert_eq!((&resources["requests"]["cpu"], &resources["limits"]["cpu"]), (&json!("2"), &json!("4")));
}

#[test]
fn volumes_are_where_the_launcher_looks() {
    let mut spec = plain();
    spec["volumes"] = json!([
        {"name": "root", "containerDisk": {"image": "r/i:1", "imagePullPolicy": "Always", "imagePullSecret": "pull"}},
        {"name": "data", "hostDisk": {"path": "/data/vms/a.img", "type": "DiskOrCreate", "capacity": "1Gi"}},
        {"name": "init", "cloudInitNoCloud": {"secretRef": {"name": "s"}}},
        {"name": "plain", "cloudInitNoCloud": {"userData": "#"}},
        {"name": "scratch", "emptyDisk": {"capacity": "1Gi"}}]);
    let pod = pod(&vmi(spec), true);
    let spec = &pod["spec"];
    assert_eq!(spec["imagePullSecrets"], json!([{"name": "pull"}]));
    let find = |list: &Value, name: &str| -> Value {
        list.as_array().unwrap().iter().find(|entry| entry["name"] == name).cloned().unwrap_or_default()
    };
    let mounts = &spec["containers"][0]["volumeMounts"];
    assert_eq!(find(&spec["volumes"], "disk-root")["image"], json!({"reference": "r/i:1", "pullPolicy": "Always"}));
    assert_eq!(find(mounts, "disk-root")["mountPath"], "/var/run/kubevirt/container-disks/root");
    assert_eq!(
        find(&spec["volumes"], "host-data")["hostPath"],
        json!({"path": "/data/vms", "type": "DirectoryOrCreate"})
    );
    assert_eq!(find(mounts, "host-data")["mountPath"], "/var/run/kubevirt-private/vmi-disks/data");
    let sources = &find(&spec["volumes"], "secret-init")["projected"]["sources"];
    assert_eq!(sources[0]["secret"], json!({"name": "s"}));
    assert_eq!(
        sources[1]["secret"],
        json!({"name": "s", "items": [{"key": "userData", "path": "userdata"}], "optional": true})
    );
    assert_eq!(find(mounts, "secret-init")["mountPath"], "/var/run/kubevirt-private/secret/init");
    assert_eq!(spec["volumes"].as_array().unwrap().len(), 6 + 3);
}

#[test]
fn networks_are_told_to_meta_plugins() {
    let mut spec = plain();
    spec["domain"]["devices"]["interfaces"] = json!([
        {"name": "lan", "bridge": {}, "macAddress": "02:00:00:00:00:01"}, {"name": "main", "bridge": {}}]);
    spec["networks"] = json!([
        {"name": "lan", "multus": {"networkName": "infra/lan"}},
        {"name": "main", "multus": {"networkName": "main", "default": true}}]);
    let pod = pod(&vmi(spec), true);
    let annotations = &pod["metadata"]["annotations"];
    let networks: Value = serde_json::from_str(annotations["k8s.v1.cni.cncf.io/networks"].as_str().unwrap()).unwrap();
    let ifname = holdfast_ipam::nic::interface_name("lan", false);
    assert_eq!(
        networks,
        json!([{"name": "lan", "namespace": "infra", "interface": ifname, "mac": "02:00:00:00:00:01"}])
    );
    assert_eq!(annotations["v1.multus-cni.io/default-network"], "default/main");
}

#[test]
fn names_are_always_the_same_and_never_too_long() {
    let mut vmi = vmi(plain());
    let name = pod_name(&vmi);
    assert!(name.starts_with("virt-launcher-mig-") && name.len() == "virt-launcher-mig-".len() + 5, "{name}");
    assert_eq!(pod_name(&vmi), name);
    vmi.metadata.uid = Some("other".into());
    assert_ne!(pod_name(&vmi), name);
    vmi.metadata.name = Some("n".repeat(200));
    let pod = pod(&vmi, true);
    assert_eq!(pod["metadata"]["name"].as_str().unwrap().len(), 63);
    let label = pod["metadata"]["labels"]["vmi.kubevirt.io/id"].as_str().unwrap();
    assert_eq!(label.len(), 63);
    assert_eq!(pods_of(&"n".repeat(200)), format!("kubevirt.io=virt-launcher,vmi.kubevirt.io/id={label}"));
    assert_eq!(pods_of("mig.a"), "kubevirt.io=virt-launcher,vmi.kubevirt.io/id=mig.a");
    assert_eq!(pod["spec"]["hostname"].as_str().unwrap().len(), 63);
}

#[test]
fn grace_is_the_guests_and_some() {
    let mut spec = plain();
    spec.as_object_mut().unwrap().remove("terminationGracePeriodSeconds");
    let pod = pod(&vmi(spec), true);
    assert_eq!(pod["spec"]["terminationGracePeriodSeconds"], DEFAULT_GRACE + POD_GRACE);
    let arguments = pod["spec"]["containers"][0]["args"].as_array().unwrap();
    assert_eq!(arguments.last().unwrap(), "30");
}

#[test]
fn facts_are_what_matters_of_a_pod() {
    let pod = serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "n", "uid": "u", "deletionTimestamp": "2026-01-01T00:00:00Z",
            "ownerReferences": [{"apiVersion": "v", "kind": "k", "name": "vmi", "uid": "o", "controller": true}]},
        "spec": {"containers": [], "nodeName": "n1"},
        "status": {"phase": "Running", "qosClass": "Burstable",
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
            "containerStatuses": [
                {"name": "other", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": {}},
                {"name": "compute", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                 "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}]}}))
    .unwrap();
    let facts = PodFacts::of(pod);
    assert_eq!((facts.owner.as_str(), facts.node.as_deref(), facts.deleting), ("o", Some("n1"), true));
    assert!(facts.is_ready() && !facts.is_over());
    assert_eq!(facts.compute, ComputeState::Running);
    assert_eq!(facts.condition("Ready").unwrap().last_transition_time, None);
    assert_eq!(facts.nics, []);
}

#[test]
fn a_pod_that_is_let_go_of_is_its_vmis_still() {
    let mut vmi = vmi(plain());
    vmi.metadata.name = Some("n".repeat(200));
    let mut object = pod(&vmi, true);
    let owner = |object: &Value| {
        let facts = PodFacts::of(serde_json::from_value(object.clone()).unwrap());
        (Some(facts.owner), Some(facts.owner_name))
    };
    let expected = (vmi.metadata.uid, vmi.metadata.name);
    assert_eq!(owner(&object), expected);
    object["metadata"].as_object_mut().unwrap().remove("ownerReferences");
    assert_eq!(owner(&object), expected);
}

#[test]
fn the_addresses_of_a_pod_are_those_of_its_annotation() {
    let facts = |text: String| {
        let annotations = json!({"holdfast.io/nics": text});
        PodFacts::of(serde_json::from_value(json!({"metadata": {"annotations": annotations}})).unwrap())
    };
    let claim = json!({"uid": "u", "kind": "VirtualMachine", "namespace": "n", "name": "a", "network": "lan"});
    let nics = json!([
        {"interface": "default", "network": "default", "ifname": "eth0"},
        {"interface": "lan", "network": "lan", "ifname": "pod1", "lease": {"claim": claim, "mac": "02:00:00:00:00:01",
            "addresses": ["192.0.2.7/24", "::ffff:192.0.2.8/128"], 
            "delivery": holdfast_net::model::Delivery::default(), "vmOwned": true}}]);
    let expected = LeasedNic {
        claim: serde_json::from_value(claim).unwrap(),
        mac: "02:00:00:00:00:01".parse().unwrap(),
        addresses: vec!["192.0.2.7".parse().unwrap(), "192.0.2.8".parse().unwrap()],
    };
    assert_eq!(facts(nics.to_string()).nics, [expected]);
    assert_eq!(facts("{".to_owned()).nics, []);
}
