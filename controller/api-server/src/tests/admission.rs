//! Webhooks.

use axum::http::Method;
use serde_json::{Value, json};

use super::world::{World, vmi};

#[tokio::test]
async fn underlay_networks_are_validated() {
    let there = json!({"apiVersion": "holdfast.io/v1alpha1", "kind": "UnderlayNetwork", "metadata": {"name": "office"},
        "spec": {"backend": "ovs", "bridge": "br0", "subnets": [{"cidr": "192.0.2.0/24"}]}});
    let list = json!({"metadata": {}, "items": [there]});
    let world = World::new(&[("/apis/holdfast.io/v1alpha1/underlaynetworks", list)]).await;
    let review = async |spec: Value| {
        let object = json!({"apiVersion": "holdfast.io/v1alpha1", "kind": "UnderlayNetwork",
            "metadata": {"name": "lan"}, "spec": spec});
        let request = json!({"uid": "u", "name": "lan", "operation": "CREATE", "userInfo": {}, "object": object});
        world.review("/underlaynetworks-validate", request).await
    };
    assert_eq!(review(json!({"backend": "ovs", "bridge": "br0"})).await, json!({"uid": "u", "allowed": true}));
    let refused = review(json!({"backend": "ovs", "bridge": "br0", "mtu": 1})).await;
    assert_eq!(refused["status"]["details"]["causes"][0]["field"], "spec.mtu");
    let again = json!({"backend": "ovs", "bridge": "br0", "subnets": [{"cidr": "192.0.2.128/25"}]});
    let refused = review(again).await["status"]["message"].clone();
    assert!(refused.as_str().unwrap().contains("set segment `office` here"), "{refused}");
}

#[tokio::test]
async fn an_eviction_marks_a_vm_that_moves() {
    let (path, mut instance) = vmi("w1", "Running", json!([{"type": "LiveMigratable", "status": "True"}]));
    instance["spec"]["evictionStrategy"] = "LiveMigrate".into();
    let pod = json!({
        "metadata": {"name": "virt-launcher-w1-x", "labels": {"kubevirt.io": "virt-launcher"},
            "annotations": {"kubevirt.io/domain": "w1"}},
        "spec": {"nodeName": "one", "containers": []},
    });
    let world = World::new(&[(&path, instance), ("/api/v1/namespaces/default/pods/virt-launcher-w1-x", pod)]).await;
    let review = async |name: &str, dry_run: bool| {
        let request = json!({"uid": "u", "name": name, "namespace": "default", "operation": "CREATE",
            "userInfo": {}, "object": {}, "dryRun": dry_run});
        world.review("/pod-eviction-validate", request).await
    };
    let marked = || world.api_server.objects.lock().unwrap()[&path]["status"]["evacuationNodeName"].clone();
    for dry_run in [true, false] {
        assert_eq!(marked(), Value::Null);
        let refused = review("virt-launcher-w1-x", dry_run).await;
        assert_eq!((&refused["allowed"], &refused["status"]["code"]), (&json!(false), &json!(429)));
        assert_eq!(refused["status"]["message"], "Eviction triggered evacuation of VMI \"default/w1\"");
    }
    assert_eq!(marked(), "one");
    // Once is enough.
    let patches = || world.asked().iter().filter(|(method, ..)| method == Method::PATCH).count();
    let before = patches();
    assert_eq!(review("virt-launcher-w1-x", false).await["allowed"], false);
    assert_eq!(patches(), before);
    assert_eq!(review("gone", false).await["allowed"], true);
}

#[tokio::test]
async fn machines_are_defaulted_with_what_they_refer_to() {
    let world = World::new(&[("/api/v1/namespaces/default", json!({"metadata": {"name": "default"}}))]).await;
    let object = json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": {"name": "w1", "namespace": "default"},
        "spec": {"runStrategy": "Halted", "template": {"spec": {"domain": {"devices": {}}}}},
    });
    let request = json!({"uid": "u", "name": "w1", "namespace": "default", "operation": "CREATE",
        "userInfo": {"username": "jane"}, "object": object});
    let answer = world.review("/virtualmachines-mutate", request.clone()).await;
    assert_eq!((&answer["allowed"], &answer["patchType"]), (&json!(true), &json!("JSONPatch")), "{answer}");
    let patches = world.asked().iter().filter(|(method, ..)| method != Method::GET).count();
    assert_eq!(patches, 0, "nothing is written");
    let (code, _, _) = world.ask_with(None, Method::POST, "/virtualmachines-mutate", b"rubbish").await.unwrap();
    assert_eq!(code, 400);
    let (code, _, _) = world.ask_with(None, Method::GET, "/virtualmachines-mutate", b"").await.unwrap();
    assert_eq!(code, 405);
    let large = vec![b' '; (3 << 20) + 1];
    let (code, _, _) = world.ask_with(None, Method::POST, "/virtualmachines-mutate", &large).await.unwrap();
    assert_eq!(code, 413);
}

#[tokio::test]
async fn exactly_what_a_machine_refers_to_is_read() {
    let path = "/apis/instancetype.kubevirt.io/v1beta1/namespaces/default/virtualmachineinstancetypes/small";
    let small = json!({"apiVersion": "instancetype.kubevirt.io/v1beta1", "kind": "VirtualMachineInstancetype",
        "metadata": {"name": "small", "namespace": "default"},
        "spec": {"cpu": {"guest": 1}, "memory": {"guest": "128Mi"}}});
    let world = World::new(&[(path, small)]).await;
    let review = async |name: &str| {
        let object = json!({
            "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine",
            "metadata": {"name": "w1", "namespace": "default"},
            "spec": {"runStrategy": "Halted", "instancetype": {"kind": "VirtualMachineInstancetype", "name": name},
                "template": {"spec": {"domain": {"cpu": {"cores": 2}, "devices": {}}}}},
        });
        let request = json!({"uid": "u", "name": "w1", "namespace": "default", "operation": "CREATE",
            "userInfo": {"username": "jane"}, "object": object});
        let answer = world.review("/virtualmachines-validate", request).await;
        (answer, world.asked().iter().map(|(_, path, _)| path.clone()).collect::<Vec<_>>())
    };
    // The decision depends on what was read: the size says how many CPUs there are, and so does the template.
    let (refused, asked) = review("small").await;
    assert_eq!(asked, [path]);
    assert_eq!(refused["allowed"], false, "{refused}");
    assert!(refused["status"]["message"].as_str().unwrap().contains("domain.cpu.cores"), "{refused}");
    // A name that would lead elsewhere leads nowhere.
    let (refused, asked) = review("../../../../../api/v1/namespaces/default/secrets/x").await;
    assert_eq!(asked, [path]);
    assert_eq!(refused["allowed"], false, "{refused}");
}
