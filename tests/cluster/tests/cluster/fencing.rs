//! A node that fails: its VM starts elsewhere when somebody has said that the node is off, and not before.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::world::{LONG, World, left_on, on_lan, run, vm, xtask, xtask_command};

const ADDRESS: &str = "192.0.2.21";
const TAINT: &str = "node.kubernetes.io/out-of-service";
/// How often it is asked for in one go.
const QUESTIONS: &str = "2";
/// How long the VM is seen to stay where it is once Kubernetes has given its pod up.
const HELD: Duration = Duration::from_secs(20);

/// A node that was killed. It is brought back at the latest when this is dropped, for other tests need it.
struct Killed(String);

impl Killed {
    async fn new(node: &str) -> Self {
        let killed = Self(node.to_owned());
        xtask(&["node", "kill", node]).await.unwrap();
        killed
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let ready = format!("node/{}", self.0);
        let untaint = ["taint", "node", &self.0, &format!("{TAINT}-")];
        let started = xtask_command(&["node", "start", &self.0]).status();
        // Without the taint it says `not found`, and all is well.
        let untainted = Command::new("kubectl").args(untaint).status();
        let back = Command::new("kubectl").args(["wait", &ready, "--for=condition=Ready", "--timeout=120s"]).status();
        println!("{} is back: {started:?} {untainted:?} {back:?}", self.0);
    }
}

/// Pods of the VM, whatever has become of them.
async fn pods(world: &World) -> Vec<Value> {
    let path = world.path("v1", "pods?labelSelector=kubevirt.io%3Dvirt-launcher");
    world.api.get(&path).await.unwrap().unwrap()["items"].as_array().unwrap().clone()
}

/// The MAC of each answer to a few questions for the address on the underlay. Two machines would answer each.
async fn answers() -> Vec<String> {
    // It fails where nobody answers.
    let question = ["busybox", "arping", "-b", "-c", QUESTIONS, "-w", "2", "-I", "eth0", ADDRESS];
    let text = on_lan(&question).await.unwrap_or_default();
    let answers = text.lines().filter(|line| line.contains("reply from"));
    // The numbers come without their leading zeros.
    let mac = |text: &str| text.split(':').map(|byte| format!("{byte:0>2}")).collect::<Vec<_>>().join(":");
    answers.map(|line| mac(&line.split(['[', ']']).nth(1).unwrap_or_default().to_lowercase())).collect()
}

/// Asserts that no two machines have the address; whether one has, and by this MAC.
async fn one_answers(mac: &str) -> bool {
    let answers = answers().await;
    assert!(answers.len() <= QUESTIONS.parse().unwrap(), "two machines have the address: {answers:?}");
    assert!(answers.iter().all(|other| other == mac), "somebody else has the address: {answers:?}");
    !answers.is_empty()
}

/// A VM whose pod Kubernetes gives up soon after its node, and which rather begins where virt-controller is not: so that
/// it is no wonder that nobody starts it elsewhere.
async fn fenced(world: &World) -> Value {
    let path = "/api/v1/namespaces/kubevirt/pods?labelSelector=kubevirt.io%3Dvirt-controller";
    let controllers = world.api.get(path).await.unwrap().unwrap();
    let mut vm = vm("fenced", ADDRESS);
    let spec = &mut vm["spec"]["template"]["spec"];
    let term = json!({"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "NotIn",
        "values": [controllers["items"][0]["spec"]["nodeName"]]}]});
    spec["affinity"] = json!({"nodeAffinity":
        {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": term}]}});
    let gone = |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5});
    spec["tolerations"] = json!([gone("node.kubernetes.io/unreachable"), gone("node.kubernetes.io/not-ready")]);
    vm
}

fn uid(object: &Value) -> String {
    object["metadata"]["uid"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_vm_leaves_a_dead_node_when_that_is_fenced() {
    let world = World::new("fencing").await;
    world.post("kubevirt.io/v1", "virtualmachines", &fenced(&world).await).await;
    let first = world.ready("fenced").await;
    let node = first["status"]["nodeName"].as_str().unwrap().to_owned();
    let mac = first["status"]["interfaces"][1]["mac"].as_str().unwrap().to_owned();
    let answer = async || Ok(one_answers(&mac).await.then_some(()));
    world.api.until("the VM answers on the underlay", LONG, answer).await.unwrap();

    let killed = Killed::new(&node).await;
    assert!(!one_answers(&mac).await, "its VM has died with it");
    // Kubernetes finds out, and gives the pod up. That is no reason to start it elsewhere, and nobody does.
    let mut held = None;
    let end = Instant::now() + LONG;
    while held.is_none_or(|since: Instant| since.elapsed() < HELD) {
        let there = pods(&world).await;
        let uids: BTreeSet<_> = there.iter().map(|pod| pod["spec"]["nodeName"].clone().to_string()).collect();
        assert_eq!((there.len(), uids), (1, BTreeSet::from([json!(node).to_string()])));
        assert_eq!(world.vmi("fenced").await.map(|vmi| uid(&vmi)), Some(uid(&first)));
        assert!(!one_answers(&mac).await, "somebody else has its address");
        if there[0]["metadata"]["deletionTimestamp"].is_string() {
            held.get_or_insert_with(Instant::now);
        }
        assert!(Instant::now() < end, "its pod was not given up");
    }

    let taint = format!("{TAINT}=nodeshutdown:NoExecute");
    run("kubectl", &["taint", "node", &node, &taint]).await.unwrap();
    let second = world.until_vmi("fenced", "is another", |vmi| uid(vmi) != uid(&first)).await;
    let second_uid = uid(&second);
    let second = world.ready("fenced").await;
    assert_eq!(uid(&second), second_uid);
    assert_ne!(second["status"]["nodeName"], json!(node));
    assert_eq!(second["status"]["interfaces"][1]["mac"], json!(mac));
    world.api.until("it answers from there", LONG, answer).await.unwrap();

    // The node comes back, and nothing of the old VM with it: one machine answers, from now until the node is clean.
    drop(killed);
    let other = second["status"]["nodeName"].as_str().unwrap().to_owned();
    let clean = async || {
        let answered = one_answers(&mac).await;
        Ok((answered && left_on(&node).await.is_empty()).then_some(()))
    };
    world.api.until("nothing of the old VM is left on its node", LONG, clean).await.unwrap();
    // That this is how a VM would be seen there, the other node shows.
    assert!(left_on(&other).await.len() > 2, "its process, its records and its port");
    let handlers = "/api/v1/namespaces/kubevirt/pods?labelSelector=kubevirt.io%3Dvirt-handler";
    let ready = async || {
        let all = world.api.get(handlers).await?.unwrap();
        let all = all["items"].as_array().unwrap().clone();
        Ok((all.len() == 2 && all.iter().all(|pod| crate::world::is_true(pod, "Ready"))).then_some(()))
    };
    world.api.until("virt-handler serves on both nodes", LONG, ready).await.unwrap();
    world.remove().await;
}
