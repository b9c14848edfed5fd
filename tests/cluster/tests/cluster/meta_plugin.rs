//! Our plugin below a meta plugin: deploy/examples/multus.yaml, with the calls that Multus makes of it, by the reference
//! libcni (cnitool), of the product as it is installed on a node.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::world::{LONG, World, on_lan, on_node};

const NODE: &str = "node1";
const FOLDER: &str = "/tmp/meta-plugin";

/// What the file says: the delegate's configuration, the pod, and what the pod asks for.
struct Example {
    config: Value,
    pod: Value,
    asked: Value,
}

fn example() -> Example {
    let text = include_str!("../../../../deploy/examples/multus.yaml");
    let documents = serde_norway::Deserializer::from_str(text);
    let mut documents = documents.map(|document| Value::deserialize(document).unwrap());
    let (definition, mut pod) = (documents.next().unwrap(), documents.next().unwrap());
    let annotations = pod["metadata"]["annotations"].take();
    let asked: Value = serde_json::from_str(annotations["k8s.v1.cni.cncf.io/networks"].as_str().unwrap()).unwrap();
    assert_eq!(asked[0]["name"], definition["metadata"]["name"]);
    let config = serde_json::from_str(definition["spec"]["config"].as_str().unwrap()).unwrap();
    Example { config, pod, asked: asked[0].clone() }
}

/// A call of Multus: the pod in CNI_ARGS, what the annotation asks for as the arguments of capabilities.
struct Call {
    network: String,
    environment: Vec<String>,
    netns: String,
}

impl Call {
    async fn make(&self, verb: &str) -> Result<String, String> {
        let environment = self.environment.iter().map(String::as_str);
        let call = ["cnitool", verb, &self.network, &self.netns];
        on_node(NODE, &["env"].into_iter().chain(environment).chain(call).collect::<Vec<_>>()).await
    }

    /// The same with other values of these variables.
    fn with(&self, changes: &[(&str, &str)]) -> Self {
        let mut environment = self.environment.clone();
        environment.extend(changes.iter().map(|(name, value)| format!("{name}={value}")));
        Self { network: self.network.clone(), environment, netns: self.netns.clone() }
    }

    async fn in_pod(&self, arguments: &[&str]) -> Result<String, String> {
        let netns = format!("--net={}", self.netns);
        on_node(NODE, &[&["nsenter", &netns], arguments].concat()).await
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// The network namespace of the pod with this address.
async fn netns(address: &str) -> String {
    let look =
        format!("for n in /run/netns/*; do nsenter --net=$n ip -o addr | grep -q ' {address}/' && echo $n; done; true");
    let found = on_node(NODE, &["sh", "-c", &look]).await.unwrap();
    assert_eq!(found.lines().count(), 1, "{address}: {found}");
    found.trim().to_owned()
}

#[tokio::test]
async fn add_check_and_del_as_multus_calls_them() {
    let world = World::new("meta").await;
    let Example { config, mut pod, asked } = example();
    pod["metadata"]["namespace"] = json!(world.namespace);
    // Nodes here fetch no images.
    pod["spec"]["containers"][0]["image"] = json!("localhost/test/busybox:1");
    pod["spec"]["nodeName"] = json!(NODE);
    world.post("v1", "pods", &pod).await;
    let path = world.path("v1", "pods/client");
    let running = async || Ok(world.api.get(&path).await?.filter(|pod| pod["status"]["phase"] == "Running"));
    let pod = world.api.until("the pod runs", LONG, running).await.unwrap();

    let write = format!("mkdir -p {FOLDER} && printf %s \"$1\" > {FOLDER}/delegate.conf");
    on_node(NODE, &["sh", "-c", &write, "sh", &config.to_string()]).await.unwrap();
    let (ifname, mac, address) = (text(&asked["interface"]), text(&asked["mac"]), text(&asked["ips"][0]));
    let call = Call {
        network: text(&config["name"]),
        netns: netns(pod["status"]["podIP"].as_str().unwrap()).await,
        environment: vec![
            "CNI_PATH=/opt/cni/bin".to_owned(),
            format!("NETCONFPATH={FOLDER}"),
            format!("CNI_IFNAME={ifname}"),
            format!(
                "CNI_ARGS=IgnoreUnknown=true;K8S_POD_NAMESPACE={};K8S_POD_NAME=client;K8S_POD_INFRA_CONTAINER_ID=0123;\
                 K8S_POD_UID={}",
                world.namespace,
                text(&pod["metadata"]["uid"])
            ),
            format!("CAP_ARGS={}", json!({"ips": asked["ips"], "mac": mac})),
        ],
    };

    let result: Value = serde_json::from_str(&call.make("add").await.unwrap()).unwrap();
    assert_eq!(result["cniVersion"], config["cniVersion"]);
    let interfaces = result["interfaces"].as_array().unwrap();
    let inside = interfaces.iter().position(|interface| interface["name"] == json!(ifname)).unwrap();
    assert_eq!(interfaces[inside]["sandbox"], json!(call.netns));
    assert_eq!(interfaces[inside]["mac"], json!(mac));
    assert_eq!(result["ips"], json!([{"address": address, "gateway": "192.0.2.1", "interface": inside}]));
    let shown = call.in_pod(&["ip", "-o", "addr", "show", "dev", &ifname]).await.unwrap();
    assert!(shown.contains(&format!(" {address} ")), "{shown}");
    let bare = address.split('/').next().unwrap();
    let answers = async || Ok(on_lan(&["ping", "-c1", "-W1", bare]).await.ok());
    world.api.until("the pod answers on the underlay", LONG, answers).await.unwrap();
    let leases = world.api.get("/apis/holdfast.io/v1alpha1/ipleases").await.unwrap().unwrap();
    let lease = leases["items"].as_array().unwrap().iter().find(|lease| lease.to_string().contains(bare)).unwrap();
    assert!(lease.to_string().contains("\"client\""), "{lease}");

    // Others get neither of both addresses.
    for (other, asked) in [
        ("net2", json!({"ips": asked["ips"], "mac": "02:00:00:00:02:33"})),
        ("net3", json!({"ips": ["192.0.2.51/24"], "mac": mac})),
    ] {
        let refused =
            call.with(&[("CNI_IFNAME", other), ("CAP_ARGS", &asked.to_string())]).make("add").await.unwrap_err();
        assert!(refused.contains("is held by") && refused.contains("client"), "{refused}");
    }

    call.make("check").await.unwrap();
    call.in_pod(&["ip", "addr", "flush", "dev", &ifname]).await.unwrap();
    let broken = call.make("check").await.unwrap_err();
    assert!(broken.contains(bare), "{broken}");

    call.make("del").await.unwrap();
    let gone = async || Ok(call.in_pod(&["ip", "link", "show", &ifname]).await.err());
    world.api.until("the interface is gone", LONG, gone).await.unwrap();
    // Again, as after a DEL whose answer was lost, and without the pod.
    call.make("del").await.unwrap();
    world.api.delete(&path).await.unwrap();
    call.make("del").await.unwrap();
    on_node(NODE, &["rm", "-r", FOLDER]).await.unwrap();
    world.remove().await;
}

#[tokio::test]
async fn a_pod_that_nobody_knows_is_one_without_networks() {
    // Made and removed as runtimes do it: ip(8) would mount a file system of its own, and leave it.
    const NETNS: &str = "/run/netns/meta-plugin";
    const REMOVE: &str = "umount /run/netns/meta-plugin; rm /run/netns/meta-plugin";
    let world = World::new("unknown").await;
    let _ = on_node(NODE, &["sh", "-c", REMOVE]).await;
    on_node(NODE, &["sh", "-c", &format!("touch {NETNS} && unshare --net={NETNS} true")]).await.unwrap();
    let list = on_node(NODE, &["cat", "/etc/cni/net.d/0-holdfast.conflist"]).await.unwrap();
    let list: Value = serde_json::from_str(&list).unwrap();
    let call = Call {
        network: text(&list["name"]),
        netns: NETNS.to_owned(),
        environment: vec![
            "CNI_PATH=/opt/cni/bin".to_owned(),
            "NETCONFPATH=/etc/cni/net.d".to_owned(),
            "CNI_IFNAME=eth0".to_owned(),
            format!("CNI_ARGS=IgnoreUnknown=true;K8S_POD_NAMESPACE={};K8S_POD_NAME=ghost", world.namespace),
        ],
    };
    let result: Value = serde_json::from_str(&call.make("add").await.unwrap()).unwrap();
    assert_eq!(result["ips"].as_array().map(Vec::len), Some(1), "{result}");
    call.make("del").await.unwrap();
    on_node(NODE, &["sh", "-c", REMOVE]).await.unwrap();
    world.remove().await;
}
