//! The product goes, and the cluster is as if it had never been there. Then it is installed again, for other tests.

use std::path::Path;
use std::time::Duration;

use holdfast_cluster_tests::api::{Api, conditions};
use hyper::Method;
use serde_json::{Value, json};

use crate::world::{LONG, World, is_true, on_node, plain_vm, run_for};

/// What the operator's manifest brings, and what goes when that is deleted.
const OPERATOR: &str = "../../deploy/kubevirt-operator.yaml";
const KUBEVIRT: &str = "/apis/kubevirt.io/v1/namespaces/kubevirt/kubevirts";
/// Longest wait for an installation to come or to go.
const INSTALLATION: Duration = Duration::from_secs(240);

/// Whether a name is one of ours.
fn is_ours(name: &str) -> bool {
    ["kubevirt", "holdfast", "virt-"].iter().any(|part| name.contains(part))
}

/// All objects of the cluster that have our name, of each kind that can be listed. The kind of networks has none: it
/// stays on purpose (docs/operator.md). While kinds go, listing may fail: then that is what is there.
async fn objects() -> Vec<String> {
    let listed = async || {
        let kinds = run_for(LONG, "kubectl", &["api-resources", "--verbs=list", "--output=name"]).await?;
        // They tell what happened.
        let kinds: Vec<&str> = kinds.lines().filter(|kind| !kind.starts_with("events")).collect();
        assert!(kinds.len() > 20, "{kinds:?}");
        let columns = "--output=custom-columns=:kind,:metadata.namespace,:metadata.name";
        let list = ["get", &kinds.join(","), "--all-namespaces", "--ignore-not-found", "--no-headers", columns];
        run_for(LONG, "kubectl", &list).await
    };
    let text = listed().await.unwrap_or_else(|error| format!("holdfast: {error}"));
    text.lines().filter(|line| is_ours(line)).map(str::to_owned).collect()
}

/// What bears our name on a Node object: labels, annotations, conditions. Capacity is kubelet's (docs/node.md).
async fn marks(api: &Api) -> Vec<String> {
    let nodes = api.get("/api/v1/nodes").await.unwrap().unwrap();
    let nodes = nodes["items"].as_array().unwrap().clone();
    let mut marks = Vec::new();
    for node in nodes {
        let keys =
            |value: &Value| value.as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect::<Vec<_>>();
        let metadata = &node["metadata"];
        let all = [keys(&metadata["labels"]), keys(&metadata["annotations"]), conditions(&node).into_keys().collect()];
        let ours = |name: &String| is_ours(&name.to_lowercase()) || name == "cpumanager";
        marks.extend(all.concat().into_iter().filter(ours).map(|mark| format!("{} {mark}", metadata["name"])));
    }
    marks
}

/// What bears our name in the file system of a node, where the product and kubelet keep files; and our links.
async fn files(node: &str) -> Vec<String> {
    let find = "find /run /etc/cni /opt/cni /var/lib/kubelet /var/lib/cni /var/lib/holdfast /tmp \
        -not -path '/run/containerd/*' -not -path '/run/netns/*' \
        '(' -iname '*holdfast*' -o -iname '*kubevirt*' -o -iname '*virt-*' ')' 2>/dev/null
        ip -o link | grep -o 'hf[^:@]*'
        ovs-vsctl list-ports br-lan | grep -v uplink0
        nft list tables | grep -i holdfast
        pidof virt-handler virt-launcher qemu-system-x86_64; true";
    let text = on_node(node, &["sh", "-c", find]).await.unwrap();
    text.lines().map(|line| format!("{node}: {line}")).collect()
}

async fn all_files() -> Vec<String> {
    [files("node1").await, files("node2").await].concat()
}

#[tokio::test]
async fn the_cluster_is_as_it_was() {
    // Something is there that has to go first.
    let world = World::new("uninstall").await;
    let mut vm = plain_vm("last");
    vm["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = json!(0);
    world.post("kubevirt.io/v1", "virtualmachines", &vm).await;
    world.until_vmi("last", "runs", |vmi| vmi["status"]["phase"] == "Running").await;
    let api = &world.api;
    assert!(!objects().await.is_empty() && !marks(api).await.is_empty() && all_files().await.len() > 4);
    let before = api.get(&format!("{KUBEVIRT}/kubevirt")).await.unwrap().unwrap();

    // In the wrong order nothing happens, and the right one is told.
    for object in ["namespace/kubevirt", "crd/kubevirts.kubevirt.io"] {
        let error = run_for(LONG, "kubectl", &["delete", object, "--wait=false"]).await.unwrap_err();
        assert!(error.contains("`kubectl -n kubevirt delete kubevirt kubevirt`"), "{object}: {error}");
    }
    let delete = ["-n", "kubevirt", "delete", "kv", "kubevirt", "--timeout=240s"];
    run_for(INSTALLATION, "kubectl", &delete).await.unwrap();
    let operator = Path::new(env!("CARGO_MANIFEST_DIR")).join(OPERATOR).display().to_string();
    run_for(INSTALLATION, "kubectl", &["delete", "-f", &operator, "--timeout=240s"]).await.unwrap();
    let left = async || {
        let mut left = [marks(api).await, all_files().await].concat();
        left.extend(objects().await);
        left
    };
    // Kubelets and the garbage collector take their time.
    let clean = api.until("nothing is left", LONG, async || Ok(left().await.is_empty().then_some(()))).await;
    let rest = if clean.is_err() { left().await } else { Vec::new() };

    // Before anything is judged, for other tests follow.
    run_for(LONG, "kubectl", &["apply", "-f", &operator]).await.unwrap();
    let kubevirt = json!({"apiVersion": "kubevirt.io/v1", "kind": "KubeVirt",
        "metadata": {"name": "kubevirt", "namespace": "kubevirt"}, "spec": before["spec"]});
    let make = async || {
        // Neither the kind nor its webhook are there at once.
        let made = api.call(Method::POST, KUBEVIRT, &kubevirt).await?;
        Ok(matches!(made.code, 201 | 409).then_some(()))
    };
    api.until("the KubeVirt object is taken", INSTALLATION, make).await.unwrap();
    let look = async || {
        let found = api.get(&format!("{KUBEVIRT}/kubevirt")).await?;
        Ok(found.filter(|kubevirt| is_true(kubevirt, "Available")))
    };
    api.until("the product is Available", INSTALLATION, look).await.unwrap();
    assert!(rest.is_empty(), "{rest:#?}");
    world.remove().await;
    // And it works.
    let world = World::new("again").await;
    world.post("kubevirt.io/v1", "virtualmachines", &plain_vm("first")).await;
    world.until_vmi("first", "runs", |vmi| is_true(vmi, "Ready")).await;
    world.remove().await;
}
