//! A VM and its addresses: on the pod network by a Service, on the underlay by itself, and they stay.

use hyper::Method;
use serde_json::{Value, json};

use crate::world::{LONG, World, on_lan, run, vm};

const ADDRESS: &str = "192.0.2.10";

/// A pod that runs on the node where the VM does not.
fn client(node: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "client"}, "spec": {
        "nodeName": node, "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "c", "image": "localhost/test/busybox:1", "imagePullPolicy": "IfNotPresent",
            "command": ["sleep", "3600"]}]}})
}

/// The interfaces of a VMI's status by name: address and where it was learnt.
fn address(vmi: &Value, name: &str) -> String {
    let interfaces = vmi["status"]["interfaces"].as_array().cloned().unwrap_or_default();
    let found = interfaces.iter().find(|interface| interface["name"] == name).cloned().unwrap_or_default();
    found["ipAddress"].as_str().unwrap_or_default().to_owned()
}

async fn answers_on_the_underlay(world: &World, what: &str) {
    let look = async || Ok(on_lan(&["ping", "-c1", "-W1", ADDRESS]).await.ok());
    world.api.until(&format!("{ADDRESS} answers {what}"), LONG, look).await.unwrap();
    let page = format!("http://{ADDRESS}/");
    let look = async || Ok(on_lan(&["curl", "-sS", "-m5", &page]).await.ok());
    world.api.until(&format!("{page} is served {what}"), LONG, look).await.unwrap();
}

#[tokio::test]
async fn addresses_stay_through_restart_pod_loss_and_drain() {
    let world = World::new("machine").await;
    world.post("kubevirt.io/v1", "virtualmachines", &vm("web", ADDRESS)).await;
    let vmi = world.ready("web").await;
    answers_on_the_underlay(&world, "after the start").await;
    // The guest agent tells the same as we leased.
    let vmi = world
        .until_vmi("web", "tells its addresses", |vmi| address(vmi, "lan") == ADDRESS)
        .await
        .as_object()
        .map_or(vmi.clone(), |_| vmi);
    let first = world.vmi("web").await.unwrap();
    assert_eq!(address(&first, "lan"), ADDRESS);
    let mac = |vmi: &Value| vmi["status"]["interfaces"][1]["mac"].clone();
    let (node, hardware) = (vmi["status"]["nodeName"].as_str().unwrap().to_owned(), mac(&first));

    // A Service reaches it from the other node.
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"selector": {"vm": "web"}, "ports": [{"port": 80}]}});
    let service = world.post("v1", "services", &service).await;
    let other = if node == "node1" { "node2" } else { "node1" };
    world.post("v1", "pods", &client(other)).await;
    let page = format!(
        "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 3 {} 80 | grep -q 200",
        service["spec"]["clusterIP"].as_str().unwrap()
    );
    let namespace = world.namespace.clone();
    let look = async || Ok(run("kubectl", &["-n", &namespace, "exec", "client", "--", "sh", "-c", &page]).await.ok());
    world.api.until("the Service answers from the other node", LONG, look).await.unwrap();

    let uid = |vmi: &Value| vmi["metadata"]["uid"].clone();
    world.verb("virtualmachines", "web", "restart", &json!({})).await;
    let second = world.until_vmi("web", "is another", |vmi| uid(vmi) != uid(&first)).await;
    world.ready("web").await;
    answers_on_the_underlay(&world, "after a restart").await;

    let pod = world.pod("web").await.unwrap();
    let pod = world.path("v1", &format!("pods/{}", pod["metadata"]["name"].as_str().unwrap()));
    world.api.call(Method::DELETE, &pod, &json!({})).await.unwrap().ok().unwrap();
    let third = world.until_vmi("web", "is another", |vmi| uid(vmi) != uid(&second)).await;
    world.ready("web").await;
    answers_on_the_underlay(&world, "after the launcher pod was deleted").await;

    let third = world
        .until_vmi("web", "has a node", |vmi| vmi["status"]["nodeName"].is_string())
        .await
        .as_object()
        .map_or(third.clone(), |object| Value::Object(object.clone()));
    let node = third["status"]["nodeName"].as_str().unwrap().to_owned();
    let drained = run(
        "kubectl",
        &[
            "drain",
            &node,
            "--ignore-daemonsets",
            "--delete-emptydir-data",
            "--force",
            "--pod-selector=kubevirt.io=virt-launcher",
            "--timeout=60s",
        ],
    )
    .await;
    let fourth = world.until_vmi("web", "is another", |vmi| uid(vmi) != uid(&third)).await;
    world.ready("web").await;
    let moved = world.vmi("web").await.unwrap();
    run("kubectl", &["uncordon", &node]).await.unwrap();
    drained.unwrap();
    assert_ne!(moved["status"]["nodeName"], json!(node), "{fourth}");
    answers_on_the_underlay(&world, "after a drain").await;
    let last = world.until_vmi("web", "tells its addresses", |vmi| address(vmi, "lan") == ADDRESS).await;
    assert_eq!(mac(&last), hardware);
    world.remove().await;
}
