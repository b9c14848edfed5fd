//! Networks as their users meet them: what keeps a VM off one is told on the VM; an address comes back with its VM, and
//! stays while it runs; how full a network is.

use std::time::{Duration, Instant};

use holdfast_cluster_tests::api::conditions;
use hyper::Method;
use serde_json::{Value, json};

use crate::world::{LONG, World, is_true, on_lan, on_node, run, vm};

/// Shorter than a quarantine.
const AT_ONCE: Duration = Duration::from_secs(45);
/// Soon enough that nobody else gets the address in between.
const AGAIN: Duration = Duration::from_secs(20);
const LEASES: &str = "/apis/holdfast.io/v1alpha1";
const UNDERLAYS: &str = "/apis/holdfast.io/v1alpha1/underlaynetworks";

/// A NetworkAttachmentDefinition of this configuration.
async fn definition(world: &World, name: &str, config: &Value) {
    let nad = json!({"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
        "metadata": {"name": name}, "spec": {"config": config.to_string()}});
    world.post("k8s.cni.cncf.io/v1", "network-attachment-definitions", &nad).await;
}

/// A VM that is on a network of that name beside the pod network.
fn on(network: &str) -> Value {
    let mut vm = vm(network, "192.0.2.1");
    let template = &mut vm["spec"]["template"];
    template["metadata"].as_object_mut().unwrap().remove("annotations");
    template["spec"]["networks"][1]["multus"]["networkName"] = json!(network);
    vm
}

/// The condition of a VM that says why it does not start.
async fn told(world: &World, name: &str, reason: &str) -> String {
    let says = |object: &Value| conditions(object).get("Synchronized").is_some_and(|told| told["reason"] == reason);
    let vmi = world.until_vmi(name, &format!("is told of {reason}"), says).await;
    let path = world.path("kubevirt.io/v1", &format!("virtualmachines/{name}"));
    let look = async || Ok(world.api.get(&path).await?.filter(says));
    world.api.until("its VM says the same", LONG, look).await.unwrap();
    conditions(&vmi)["Synchronized"]["message"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn what_keeps_a_vm_off_a_network_is_told() {
    let world = World::new("untold").await;
    let path = format!("{UNDERLAYS}/test-nobridge");
    world.api.delete(&path).await.unwrap();
    let underlay = json!({"apiVersion": "holdfast.io/v1alpha1", "kind": "UnderlayNetwork",
        "metadata": {"name": "test-nobridge"}, "spec": {"backend": "ovs", "bridge": "br-none", "datapath": "netdev"}});
    world.api.call(Method::POST, UNDERLAYS, &underlay).await.unwrap().ok().unwrap();
    definition(&world, "nobridge", &json!({"cniVersion": "1.0.0", "type": "holdfast", "network": "test-nobridge"}))
        .await;
    definition(&world, "macvlan", &json!({"cniVersion": "1.0.0", "type": "macvlan", "master": "eth0"})).await;
    for network in ["nobridge", "macvlan"] {
        world.post("kubevirt.io/v1", "virtualmachines", &on(network)).await;
    }
    // The kubelet says it, in an event of the pod.
    let message = told(&world, "nobridge", "FailedCreatePodSandBox").await;
    for part in ["`spec.bridge` of UnderlayNetwork `test-nobridge` is `br-none`", "`br-lan`"] {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
    // What no guest can be on is known before there is a pod.
    let message = told(&world, "macvlan", "FailedAttachNetwork").await;
    assert!(message.contains("of CNI type `macvlan`") && message.contains("`holdfast`"), "{message}");
    assert!(world.pod("macvlan").await.is_none());
    world.remove().await;
    world.api.delete(&path).await.unwrap();
}

#[tokio::test]
async fn a_vm_that_is_made_again_has_its_address_at_once() {
    let world = World::new("again").await;
    let address = "192.0.2.177";
    let mut vm = vm("again", address);
    vm["spec"]["template"]["spec"]["domain"]["devices"]["interfaces"][1]["macAddress"] = json!("02:00:00:00:01:77");
    let path = world.path("kubevirt.io/v1", "virtualmachines/again");
    let used = async || -> anyhow::Result<i64> {
        let lan = world.api.get(&format!("{UNDERLAYS}/lan")).await?.unwrap_or_default();
        let usage = &lan["status"]["addresses"];
        assert!(usage["total"].is_null() || usage["total"] == 100, "{usage}");
        Ok(usage["used"].as_i64().unwrap_or_default())
    };

    world.post("kubevirt.io/v1", "virtualmachines", &vm).await;
    world.until_vmi("again", "runs", |vmi| is_true(vmi, "Ready")).await;
    let counted = async || Ok((used().await? > 0).then_some(()));
    world.api.until("its address is counted", LONG, counted).await.unwrap();

    // Another address is for the next start.
    let asked = json!({"holdfast.io/ip-addresses": json!({"lan": "192.0.2.178"}).to_string()});
    let change = json!({"spec": {"template": {"metadata": {"annotations": asked}}}});
    world.api.call(Method::PATCH, &path, &change).await.unwrap().ok().unwrap();
    let restart = async || Ok(world.api.get(&path).await?.filter(|vm| is_true(vm, "RestartRequired")));
    world.api.until("the VM asks for a restart", LONG, restart).await.unwrap();

    world.api.delete(&path).await.unwrap();
    let begin = Instant::now();
    world.post("kubevirt.io/v1", "virtualmachines", &vm).await;
    world.until_vmi("again", "runs once more", |vmi| is_true(vmi, "Ready")).await;
    assert!(begin.elapsed() < AT_ONCE, "it took {:?}", begin.elapsed());
    let leases = world.api.get("/apis/holdfast.io/v1alpha1/ipleases").await.unwrap().unwrap();
    let all = leases["items"].as_array().unwrap();
    let lease = all.iter().find(|lease| lease["spec"]["address"] == address).unwrap();
    let vm = world.api.get(&path).await.unwrap().unwrap();
    assert_eq!(lease["spec"]["claim"]["uid"], vm["metadata"]["uid"]);
    world.remove().await;
}

/// The one lease of a kind that a VM holds.
async fn lease_of(world: &World, plural: &str, vm: &str) -> anyhow::Result<Option<Value>> {
    let all = world.api.get(&format!("{LEASES}/{plural}")).await?.unwrap_or_default();
    let of = |lease: &&Value| {
        let claim = &lease["spec"]["claim"];
        claim["namespace"] == world.namespace.as_str() && claim["name"] == vm
    };
    Ok(all["items"].as_array().and_then(|all| all.iter().find(of)).cloned())
}

#[tokio::test]
async fn a_running_vm_keeps_its_leases() {
    let world = World::new("kept").await;
    world.post("kubevirt.io/v1", "virtualmachines", &vm("kept", "192.0.2.179")).await;
    let runs = world.until_vmi("kept", "runs", |vmi| is_true(vmi, "Ready")).await;
    let mut before = Vec::new();
    for plural in ["macleases", "ipleases"] {
        before.push((plural, lease_of(&world, plural, "kept").await.unwrap().unwrap()));
    }

    for (plural, lease) in &before {
        let path = format!("{LEASES}/{plural}/{}", lease["metadata"]["name"].as_str().unwrap());
        let refused = world.api.call(Method::DELETE, &path, &json!({})).await.unwrap();
        assert_eq!(refused.code, 403, "{}", refused.body);
        let message = refused.body["message"].as_str().unwrap();
        let holder = format!("VirtualMachine {}/kept", world.namespace);
        assert!(message.contains(&holder) && message.contains("goes when that is deleted"), "{message}");
    }

    // As one that the policy lets.
    for (plural, lease) in &before {
        let name = lease["metadata"]["name"].as_str().unwrap();
        let account = "--as=system:serviceaccount:kubevirt:kubevirt-controller";
        run("kubectl", &[account, "delete", plural, name, "--wait=false"]).await.unwrap();
    }
    for (plural, lease) in &before {
        let look = async || {
            let now = lease_of(&world, plural, "kept").await?;
            Ok(now.filter(|now| now["metadata"]["uid"] != lease["metadata"]["uid"]))
        };
        let again = world.api.until(&format!("{plural} are made again"), AGAIN, look).await.unwrap();
        assert_eq!(again["metadata"]["name"], lease["metadata"]["name"]);
        assert_eq!(again["spec"], lease["spec"]);
    }
    let path = world.path("v1", "events?fieldSelector=reason%3DLeaseRestored");
    let told = async || {
        let events = world.api.get(&path).await?.unwrap_or_default();
        let messages: Vec<&str> =
            events["items"].as_array().unwrap().iter().flat_map(|e| e["message"].as_str()).collect();
        let has = |lease: &Value| messages.iter().any(|m| m.contains(lease["metadata"]["name"].as_str().unwrap()));
        // Where they were missed at two looks, the API shows the first event and counts the other.
        Ok(before.iter().any(|(_, lease)| has(lease)).then_some(()))
    };
    world.api.until("it is told", LONG, told).await.unwrap();
    let after = world.vmi("kept").await.unwrap();
    assert_eq!(after["metadata"]["uid"], runs["metadata"]["uid"]);
    assert!(is_true(&after, "Ready"));
    world.remove().await;
}

/// Waits for an event of this object that says what was mended.
async fn mended(world: &World, about: &Value, what: &str) {
    let uid = about["metadata"]["uid"].as_str().unwrap();
    let path = world.path("v1", &format!("events?fieldSelector=involvedObject.uid%3D{uid}%2Creason%3DNetworkRepaired"));
    let look = async || {
        let events = world.api.get(&path).await?.unwrap_or_default();
        let told =
            events["items"].as_array().is_some_and(|all| all.iter().any(|e| e["message"].to_string().contains(what)));
        Ok(told.then_some(()))
    };
    world.api.until(&format!("an event tells of `{what}`"), AT_ONCE, look).await.unwrap();
}

#[tokio::test]
async fn what_is_changed_on_a_node_is_mended_and_told() {
    let world = World::new("mended").await;
    let address = "192.0.2.21";
    world.post("kubevirt.io/v1", "virtualmachines", &vm("mended", address)).await;
    let vmi = world.until_vmi("mended", "runs", |vmi| is_true(vmi, "Ready")).await;
    let node = vmi["status"]["nodeName"].as_str().unwrap();
    let answers = async || Ok(on_lan(&["ping", "-c1", "-W1", address]).await.ok());
    world.api.until("the VM answers", LONG, answers).await.unwrap();
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "plain",
        "annotations": {"k8s.v1.cni.cncf.io/networks": "lan"}}, "spec": {"nodeName": node, "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "c", "image": "localhost/test/busybox:1", "imagePullPolicy": "IfNotPresent",
            "command": ["sleep", "3600"]}]}});
    world.post("v1", "pods", &pod).await;
    let path = world.path("v1", "pods/plain");
    let runs = async || Ok(world.api.get(&path).await?.filter(|pod| pod["status"]["phase"] == "Running"));
    let pod = world.api.until("the pod runs", LONG, runs).await.unwrap();

    // Everybody's ports.
    let ports = "for p in $(ovs-vsctl list-ports br-lan | grep ^hf); do ovs-vsctl del-port $p; done";
    on_node(node, &["sh", "-c", ports]).await.unwrap();
    mended(&world, &vmi, "port hf").await;
    mended(&world, &pod, "port hf").await;
    world.api.until("the VM answers again", LONG, answers).await.unwrap();
    // In the VM's pod, where nothing of the node is seen.
    let inside = "nsenter -t $(pidof -s qemu-system-x86_64) -n ip link set k6t-eth0 mtu 1300";
    on_node(node, &["sh", "-c", inside]).await.unwrap();
    mended(&world, &vmi, "set k6t-eth0 mtu").await;
    world.remove().await;
}
