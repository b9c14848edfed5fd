//! What fails around VMs: the API server, and the product's own components. VMs and their network do not notice.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;

use hyper::Method;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::world::{LONG, World, is_true, lan, on_lan, on_node, plain_vm, run, virtctl, vm, xtask};

/// How long the API server is away.
const OUTAGE: Duration = Duration::from_secs(60);

/// Pings from the underlay, 100 times a second.
struct Pings {
    ping: Child,
    /// The numbers of those that were answered, and how many ping(8) says that it sent.
    answered: JoinHandle<(BTreeSet<u64>, u64)>,
}

impl Pings {
    fn start(address: &str) -> Self {
        let mut ping = Command::new("nsenter")
            .args([lan().as_str(), "--", "ping", "-n", "-i", "0.01", address])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(ping.stdout.take().unwrap()).lines();
        let number = |text: &str| text.split(|c: char| !c.is_ascii_digit()).find_map(|number| number.parse().ok());
        let answered = tokio::spawn(async move {
            let (mut answered, mut sent) = (BTreeSet::new(), 0);
            while let Some(line) = lines.next_line().await.unwrap() {
                if let Some((_, rest)) = line.split_once("icmp_seq=") {
                    answered.extend(number(rest));
                } else if line.contains("packets transmitted") {
                    sent = number(&line).unwrap();
                }
            }
            (answered, sent)
        });
        Self { ping, answered }
    }

    /// Ends them: each was answered but those that were on their way.
    async fn none_was_lost(mut self) {
        /// What may be on its way: a second's, for a guest without KVM on a machine that is busy.
        const UNDER_WAY: u64 = 100;
        let id = self.ping.id().expect("ping runs").to_string();
        run("kill", &["-INT", &id]).await.unwrap();
        self.ping.wait().await.unwrap();
        let (answered, sent) = self.answered.await.unwrap();
        let last = answered.last().copied().unwrap_or_default();
        assert!(sent > 3000, "{sent} sent");
        assert!(sent - last <= UNDER_WAY, "{sent} were sent, and none was answered after {last}");
        let lost: Vec<_> = (1..last).filter(|number| !answered.contains(number)).collect();
        assert!(lost.is_empty(), "of {sent}, 100 a second, these were lost: {lost:?}");
    }
}

#[tokio::test]
async fn an_outage_of_the_api_server_is_not_noticed() {
    let world = World::new("outage").await;
    let address = "192.0.2.20";
    world.post("kubevirt.io/v1", "virtualmachines", &vm("steady", address)).await;
    world.ready("steady").await;
    let answers = async || Ok(on_lan(&["ping", "-c1", "-W1", address]).await.ok());
    world.api.until("the VM answers", LONG, answers).await.unwrap();
    let pings = Pings::start(address);
    xtask(&["component", "kill", "kube-apiserver"]).await.unwrap();
    let outage = Instant::now() + OUTAGE;
    while Instant::now() < outage {
        // The outage itself is what is tested: that it is one is all there is to look at.
        assert!(world.api.get("/readyz").await.is_err(), "the API server is there");
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    xtask(&["component", "start", "kube-apiserver"]).await.unwrap();
    let create = async || {
        let path = world.path("kubevirt.io/v1", "virtualmachines");
        let made = world.api.call(Method::POST, &path, &plain_vm("after")).await;
        Ok(made.ok().filter(|answer| answer.code == 201))
    };
    world.api.until("a VM can be made again", LONG, create).await.unwrap();
    // On both nodes, and so the one of the VM that is pinged, too.
    kill(&world, "virt-handler").await;
    // Controllers, virt-handler and kubelets are back when a new VM runs.
    world.until_vmi("after", "runs", |vmi| is_true(vmi, "Ready")).await;
    pings.none_was_lost().await;
    // And the VM that ran all the time is looked after again.
    let virtctl = virtctl().display().to_string();
    let call = async |verb| run(&virtctl, &[verb, "vmi", "steady", "-n", &world.namespace]).await;
    let paused = async || Ok(call("pause").await.ok());
    world.api.until("the VM is paused", LONG, paused).await.unwrap();
    world.until_vmi("steady", "says that it is paused", |vmi| is_true(vmi, "Paused")).await;
    call("unpause").await.unwrap();
    world.until_vmi("steady", "says that it runs", |vmi| !is_true(vmi, "Paused") && is_true(vmi, "Ready")).await;
    world.remove().await;
}

/// Follows the launcher pods of a namespace: each has a line with its UID when it comes, and more.
fn watch_pods(namespace: &str) -> Child {
    let template = "--output=jsonpath={.metadata.uid}{\"\\n\"}";
    Command::new("kubectl")
        .args(["-n", namespace, "get", "pods", "--selector=kubevirt.io=virt-launcher", "--watch", template])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// Ends all processes of this name on the nodes, with no time for a last word. They may be starting just now.
async fn kill(world: &World, name: &str) {
    // The name as the kernel has it; none is there on a node without the component.
    let script = format!("kill -9 $(pidof {name})");
    let killed = async || {
        let mut killed = None;
        for node in ["node1", "node2"] {
            killed = on_node(node, &["sh", "-c", &script]).await.ok().or(killed);
        }
        Ok(killed)
    };
    world.api.until(&format!("{name} is there and killed"), LONG, killed).await.unwrap();
}

#[tokio::test]
async fn components_die_in_the_middle_of_many_starts() {
    const MANY: usize = 30;
    let world = World::new("burst").await;
    let name = |n: usize| format!("b{n:02}");
    let mut watch = watch_pods(&world.namespace);
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    for n in 0..MANY {
        let mut vm = plain_vm(&name(n));
        let spec = &mut vm["spec"]["template"]["spec"];
        spec["volumes"] = json!([]);
        spec["domain"]["devices"]["disks"] = json!([]);
        spec["domain"]["memory"]["guest"] = json!("96Mi");
        spec["terminationGracePeriodSeconds"] = json!(0);
        world.post("kubevirt.io/v1", "virtualmachines", &vm).await;
    }
    // Each dies at another point of the way.
    world.api.until("some run", LONG, async || Ok((running(&world).await >= 2).then_some(()))).await.unwrap();
    kill(&world, "virt-controller").await;
    world.api.until("more run", LONG, async || Ok((running(&world).await >= 6).then_some(()))).await.unwrap();
    kill(&world, "virt-handler").await;
    let now = running(&world).await;
    let forced = ["-n", "kubevirt", "delete", "pod", "--selector=kubevirt.io in (virt-api, virt-controller)"];
    run("kubectl", &[&forced[..], &["--grace-period=0", "--force"]].concat()).await.unwrap();
    assert!(now < MANY, "all ran before anything had died");
    for n in 0..MANY {
        world.until_vmi(&name(n), "runs", |vmi| vmi["status"]["phase"] == "Running").await;
    }
    let mut made = BTreeSet::new();
    let pods = world.path("v1", "pods?labelSelector=kubevirt.io%3Dvirt-launcher");
    let pods = world.api.get(&pods).await.unwrap().unwrap();
    let there: BTreeSet<String> =
        pods["items"].as_array().unwrap().iter().map(|pod| pod["metadata"]["uid"].as_str().unwrap().into()).collect();
    // The watch has told of all those that were ever made when it has told of those that are there.
    while !made.is_superset(&there) {
        made.insert(timeout(LONG, lines.next_line()).await.unwrap().unwrap().unwrap());
    }
    // It begins with a list of none.
    made.remove("");
    assert_eq!(there.len(), MANY);
    println!("{} pods were made for {MANY} VMs", made.len());
    for uid in made.difference(&there) {
        // Without virt-handler there is no device for a moment: kubelet refuses a pod that comes just then, for good.
        let events = format!("events?fieldSelector=involvedObject.uid%3D{uid}%2Creason%3DUnexpectedAdmissionError");
        let events = world.api.get(&world.path("v1", &events)).await.unwrap().unwrap();
        assert!(!events["items"].as_array().unwrap().is_empty(), "pod {uid} was made beside another");
    }
    world.remove().await;
}

/// How many VMIs run.
async fn running(world: &World) -> usize {
    let vmis = world.api.get(&world.path("kubevirt.io/v1", "virtualmachineinstances")).await.unwrap().unwrap();
    vmis["items"].as_array().unwrap().iter().filter(|vmi| vmi["status"]["phase"] == "Running").count()
}
