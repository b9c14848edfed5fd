//! A VM whose VMI is made to go before its guest has ended: it never runs twice.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::world::{LONG, World, on_lan, run, vm};

const ADDRESS: &str = "192.0.2.22";
/// How long the guest, which hears no request to power off, is waited for.
const GRACE: u64 = 30;
/// Reason of the condition that says why there is no pod.
const REASON: &str = "FormerPodExists";

/// A VM with an address on the underlay, whose guest does nothing when it is asked to power off.
fn deaf() -> Value {
    let mut vm = vm("deaf", ADDRESS);
    let spec = &mut vm["spec"]["template"]["spec"];
    spec["terminationGracePeriodSeconds"] = json!(GRACE);
    let script = "#!/bin/sh\necho '#!/bin/sh' >/sbin/shutdown\nrm -rf /etc/acpi/PWRF\n";
    let disk = json!({"name": "seed", "disk": {"bus": "virtio"}});
    spec["domain"]["devices"]["disks"].as_array_mut().unwrap().push(disk);
    let volume = json!({"name": "seed", "cloudInitNoCloud": {"userData": script}});
    spec["volumes"].as_array_mut().unwrap().push(volume);
    vm
}

/// A node that takes no pods for a while.
struct Cordoned(String);

impl Cordoned {
    async fn new(node: &str) -> Self {
        let cordoned = Self(node.to_owned());
        run("kubectl", &["cordon", node]).await.unwrap();
        cordoned
    }
}

impl Drop for Cordoned {
    fn drop(&mut self) {
        let uncordoned = std::process::Command::new("kubectl").args(["uncordon", &self.0]).status();
        println!("{} takes pods again: {uncordoned:?}", self.0);
    }
}

/// The launcher pods that have not ended.
async fn running_pods(world: &World) -> Vec<Value> {
    let path = world.path("v1", "pods?labelSelector=kubevirt.io%3Dvirt-launcher");
    let pods = world.api.get(&path).await.unwrap().unwrap()["items"].as_array().unwrap().clone();
    pods.into_iter().filter(|pod| !matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))).collect()
}

fn uid(object: &Value) -> String {
    object["metadata"]["uid"].as_str().unwrap().to_owned()
}

fn condition(object: &Value, reason: &str) -> Option<Value> {
    let conditions = object["status"]["conditions"].as_array()?;
    conditions.iter().find(|condition| condition["reason"] == reason).cloned()
}

/// Lets the VMI go while its guest runs, and sees the VM run again with its address, never two pods of it at once.
async fn let_go(world: &World) {
    let first = world.vmi("deaf").await.unwrap();
    let node = first["status"]["nodeName"].as_str().unwrap().to_owned();
    let mac = first["status"]["interfaces"][1]["mac"].clone();
    let old = running_pods(world).await;
    let [old] = &old[..] else { panic!("{old:?}") };
    let cordoned = Cordoned::new(&node).await;

    let patch = ["patch", "vmi", "deaf", "--type=merge", "--patch={\"metadata\":{\"finalizers\":[]}}"];
    run("kubectl", &[&["-n", &world.namespace], &patch[..]].concat()).await.unwrap();
    let delete = ["delete", "vmi", "deaf", "--wait=false"];
    run("kubectl", &[&["-n", &world.namespace], &delete[..]].concat()).await.unwrap();

    let mut told = BTreeSet::new();
    let vm = world.path("kubevirt.io/v1", "virtualmachines/deaf");
    let again = async || {
        let pods = running_pods(world).await;
        let names: Vec<_> = pods.iter().map(|pod| (&pod["metadata"]["name"], &pod["spec"]["nodeName"])).collect();
        assert!(names.len() <= 1, "two pods of the VM at once: {names:?}");
        let vmi = world.vmi("deaf").await.unwrap_or_default();
        let vm = world.api.get(&vm).await?.unwrap();
        for (kind, object) in [("VMI", &vmi), ("VM", &vm)] {
            let Some(condition) = condition(object, REASON) else { continue };
            assert_eq!((&condition["type"], &condition["status"]), (&json!("Synchronized"), &json!("False")));
            let message = condition["message"].as_str().unwrap();
            assert!(message.contains(old["metadata"]["name"].as_str().unwrap()), "{message}");
            assert!(message.contains(&node), "{message}");
            told.insert(kind);
        }
        let is_new = vmi["metadata"]["uid"].is_string() && uid(&vmi) != uid(&first);
        let other = vmi["status"]["nodeName"].is_string() && vmi["status"]["nodeName"] != json!(node);
        Ok((is_new && other && crate::world::is_true(&vmi, "Ready")).then_some(vmi))
    };
    let second = world.api.until("the VM runs on the other node", LONG, again).await.unwrap();
    assert_eq!(told, BTreeSet::from(["VM", "VMI"]), "it was told why it waited");
    assert_eq!(condition(&second, REASON), None);
    assert_eq!(second["status"]["interfaces"][1]["mac"], mac);
    let answer = async || Ok(on_lan(&["ping", "-c1", "-W1", ADDRESS]).await.ok());
    world.api.until("it answers at its address", LONG, answer).await.unwrap();
    drop(cordoned);
}

#[tokio::test]
async fn a_vm_never_runs_twice_whatever_becomes_of_its_vmi() {
    let world = World::new("twice").await;
    world.post("kubevirt.io/v1", "virtualmachines", &deaf()).await;
    world.ready("deaf").await;
    let_go(&world).await;

    // With its finalizer, and its pod let go of: the pod is its own still, and goes before it.
    let second = world.ready("deaf").await;
    let delete = ["-n", &world.namespace, "delete", "vmi", "deaf", "--wait=false", "--cascade=orphan"];
    run("kubectl", &delete).await.unwrap();
    let again = async || {
        let pods = running_pods(&world).await;
        assert!(pods.len() <= 1, "two pods of the VM at once: {pods:?}");
        let vmi = world.vmi("deaf").await.unwrap_or_default();
        let is_new = vmi["metadata"]["uid"].is_string() && uid(&vmi) != uid(&second);
        Ok((is_new && crate::world::is_true(&vmi, "Ready")).then_some(()))
    };
    world.api.until("the VM runs again", LONG, again).await.unwrap();
    world.remove().await;
}
