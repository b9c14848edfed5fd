//! What the tests share: namespaces of their own, VMs, programs, and the host on the underlay.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use holdfast_cluster_tests::api::{Api, conditions};
use hyper::Method;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::timeout;

/// Longest wait for a VM, or for anything else that takes a while here.
pub const LONG: Duration = Duration::from_secs(180);
/// Longest run of a program.
const PROGRAM: Duration = Duration::from_secs(60);
/// The test guest's image.
pub const GUEST: &str = "localhost/holdfast/testguest:v0.1.0";

/// A namespace of the cluster for one test, with a network `lan` in it. It goes with a test that fails, too, so that the
/// next one has the cluster for itself.
pub struct World {
    pub api: Api,
    pub namespace: String,
}

impl World {
    /// Makes the namespace, in place of one that a test before left.
    pub async fn new(name: &str) -> Self {
        let api = Api::connect().await.unwrap();
        let world = Self { api, namespace: format!("test-{name}") };
        world.remove().await;
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": world.namespace}});
        world.api.call(Method::POST, "/api/v1/namespaces", &namespace).await.unwrap().ok().unwrap();
        world.networks().await;
        world
    }

    async fn networks(&self) {
        let underlay = json!({"apiVersion": "holdfast.io/v1alpha1", "kind": "UnderlayNetwork",
            "metadata": {"name": "lan"}, "spec": {"backend": "ovs", "bridge": "br-lan", "datapath": "netdev",
            "subnets": [{"cidr": "192.0.2.0/24", "gateway": "192.0.2.1",
                "ranges": [{"start": "192.0.2.100", "end": "192.0.2.199"}]}]}});
        // The test before may have ended components; they are back before long.
        let make = async || {
            let made = self.api.call(Method::POST, "/apis/holdfast.io/v1alpha1/underlaynetworks", &underlay).await?;
            Ok(matches!(made.code, 201 | 409).then_some(()))
        };
        self.api.until("networks can be made", LONG, make).await.unwrap();
        self.network().await;
    }

    /// Makes the network `lan` of this namespace, where it is not there.
    pub async fn network(&self) {
        let config = json!({"cniVersion": "1.0.0", "type": "holdfast", "network": "lan"});
        let nad = json!({"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
            "metadata": {"name": "lan"}, "spec": {"config": config.to_string()}});
        let path = self.path("k8s.cni.cncf.io/v1", "network-attachment-definitions");
        let made = self.api.call(Method::POST, &path, &nad).await.unwrap();
        assert!(matches!(made.code, 201 | 409), "{}", made.body);
    }

    /// Path of a collection of this namespace, or of an object in it.
    pub fn path(&self, group: &str, rest: &str) -> String {
        let root = if group == "v1" { "/api/v1".to_owned() } else { format!("/apis/{group}") };
        format!("{root}/namespaces/{}/{rest}", self.namespace)
    }

    /// Creates an object.
    pub async fn post(&self, group: &str, plural: &str, object: &Value) -> Value {
        let path = self.path(group, plural);
        self.api.call(Method::POST, &path, object).await.unwrap().ok().unwrap()
    }

    /// A VM's VMI; none where it has none.
    pub async fn vmi(&self, name: &str) -> Option<Value> {
        self.api.get(&self.path("kubevirt.io/v1", &format!("virtualmachineinstances/{name}"))).await.unwrap()
    }

    /// Waits until a VMI is as it should be.
    pub async fn until_vmi(&self, name: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let look = async || Ok(self.vmi(name).await.filter(|vmi| is(vmi)));
        let found = self.api.until(&format!("VMI {name} {what}"), LONG, look).await;
        match found {
            Ok(vmi) => vmi,
            Err(error) => panic!("{error:#}\n{:#}", self.vmi(name).await.unwrap_or_default()),
        }
    }

    /// Waits until a VMI runs, and its guest tells its addresses.
    pub async fn ready(&self, name: &str) -> Value {
        self.until_vmi(name, "runs", |vmi| is_true(vmi, "Ready")).await;
        self.until_vmi(name, "has a guest agent", |vmi| is_true(vmi, "AgentConnected")).await
    }

    /// The launcher pod of a VM.
    pub async fn pod(&self, name: &str) -> Option<Value> {
        let selector = format!("pods?labelSelector=kubevirt.io%3Dvirt-launcher%2Cvmi.kubevirt.io%2Fid%3D{name}");
        let pods = self.api.get(&self.path("v1", &selector)).await.unwrap().unwrap();
        pods["items"].as_array().unwrap().first().cloned()
    }

    /// Calls a verb of a VM or VMI.
    pub async fn verb(&self, plural: &str, name: &str, verb: &str, body: &Value) {
        let path = self.path("subresources.kubevirt.io/v1", &format!("{plural}/{name}/{verb}"));
        self.api.call(Method::PUT, &path, body).await.unwrap().ok().unwrap();
    }

    /// Removes the namespace with all that is in it, and waits until it is gone: nothing may hold it up.
    pub async fn remove(&self) {
        self.api.delete(&format!("/api/v1/namespaces/{}", self.namespace)).await.unwrap();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // A test that came to its end has removed it, or has its reasons.
        if !std::thread::panicking() {
            return;
        }
        // A program of its own: the runtime cannot be waited for here.
        let bound = PROGRAM.as_secs().to_string();
        let delete = [&bound, "kubectl", "delete", "namespace", &self.namespace, "--ignore-not-found"];
        match std::process::Command::new("timeout").args(delete).stdin(Stdio::null()).output() {
            Ok(output) if output.status.success() => {}
            Ok(output) => eprintln!("{}: {}", self.namespace, String::from_utf8_lossy(&output.stderr)),
            Err(error) => eprintln!("failed to run kubectl: {error}"),
        }
    }
}

/// Whether a condition is True.
pub fn is_true(object: &Value, condition: &str) -> bool {
    conditions(object).get(condition).is_some_and(|found| found["status"] == "True")
}

/// A VM with the test guest, a masquerade NIC on the pod network and one on the network `lan`, at `address`.
pub fn vm(name: &str, address: &str) -> Value {
    let mut vm = plain_vm(name);
    let template = &mut vm["spec"]["template"];
    template["metadata"]["annotations"] = json!({"holdfast.io/ip-addresses": json!({"lan": [address]}).to_string()});
    let spec = &mut template["spec"];
    spec["domain"]["devices"]["interfaces"] =
        json!([{"name": "default", "masquerade": {}}, {"name": "lan", "bridge": {}}]);
    spec["networks"] = json!([{"name": "default", "pod": {}}, {"name": "lan", "multus": {"networkName": "lan"}}]);
    vm
}

/// A VM with the test guest and a masquerade NIC.
pub fn plain_vm(name: &str) -> Value {
    json!({"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": {"name": name},
        "spec": {"runStrategy": "Always", "template": {"metadata": {"labels": {"vm": name}}, "spec": {
            "domain": {"memory": {"guest": "128Mi"}, "devices": {
                "disks": [{"name": "root", "disk": {"bus": "virtio"}}],
                "interfaces": [{"name": "default", "masquerade": {}}], "rng": {}}},
            "networks": [{"name": "default", "pod": {}}],
            "terminationGracePeriodSeconds": 10,
            "volumes": [{"name": "root", "containerDisk": {"image": GUEST}}]}}}})
}

/// Runs a program to its end; its output, if it succeeded.
pub async fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    run_for(PROGRAM, program, arguments).await
}

/// The same with another deadline.
pub async fn run_for(deadline: Duration, program: &str, arguments: &[&str]) -> Result<String, String> {
    let child = Command::new(program).args(arguments).stdin(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(deadline, child).await.map_err(|_| format!("{program} did not end"))?;
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// Name of the test cluster.
fn cluster() -> String {
    std::env::var("HOLDFAST_CLUSTER").unwrap_or_else(|_| "cluster".to_owned())
}

/// Argument of nsenter(1) for the network namespace of the host on the underlay.
pub fn lan() -> String {
    format!("--net=/run/netns/hf-{}-lan", cluster())
}

/// Runs a program on the host on the underlay.
pub async fn on_lan(arguments: &[&str]) -> Result<String, String> {
    let namespace = lan();
    let all: Vec<&str> = [namespace.as_str(), "--"].into_iter().chain(arguments.iter().copied()).collect();
    run("nsenter", &all).await
}

/// A program that the chore has built before the tests, by the variable that tells where.
fn built(variable: &str, name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::env::var_os(variable).map_or_else(|| root.join("target/debug").join(name), PathBuf::from)
}

/// virtctl.
pub fn virtctl() -> PathBuf {
    built("HOLDFAST_VIRTCTL", "virtctl")
}

/// Runs `cargo xtask cluster` with these arguments on the test cluster.
pub async fn xtask(arguments: &[&str]) -> Result<String, String> {
    let name = cluster();
    let all: Vec<&str> = ["cluster", "--name", &name].into_iter().chain(arguments.iter().copied()).collect();
    run(&built("HOLDFAST_XTASK", "xtask").display().to_string(), &all).await
}

/// The same as a command, for where nothing can be waited for.
pub fn xtask_command(arguments: &[&str]) -> std::process::Command {
    let mut command = std::process::Command::new(built("HOLDFAST_XTASK", "xtask"));
    command.args(["cluster", "--name", &cluster()]).args(arguments);
    command
}

/// Runs a program in all namespaces of a node.
pub async fn on_node(node: &str, arguments: &[&str]) -> Result<String, String> {
    xtask(&[&["shell", "--on", node, "--"], arguments].concat()).await
}

/// What of VMs is on a node: processes, the agent's records and notes, ports of the underlay's bridge.
pub async fn left_on(node: &str) -> Vec<String> {
    // None of the programs fails where nothing is there.
    let look = "pidof qemu-system-x86_64 virt-launcher
        ls -A /var/lib/holdfast/attachments /var/lib/holdfast/bindings /run/holdfast/deleted 2>/dev/null
        ovs-vsctl list-ports br-lan; true";
    let text = on_node(node, &["sh", "-c", look]).await.unwrap();
    let ordinary = |line: &str| line.is_empty() || line.ends_with(':') || line == "uplink0";
    text.lines().filter(|line| !ordinary(line)).map(|line| format!("{node}: {line}")).collect()
}

/// The same on all nodes.
pub async fn left_on_nodes() -> Vec<String> {
    [left_on("node1").await, left_on("node2").await].concat()
}
