//! Rights. What a guest that has broken out of its machine would find in its launcher: no token, and no rights behind
//! it. Those of the components are judged after the suite (tests/rights); what they do seldom is done here.

use holdfast_cluster_tests::api::conditions;
use hyper::Method;
use serde_json::{Value, json};

use crate::world::{LONG, World, is_true, on_node, plain_vm, run};

/// The programs of a pod, and what files of a service account's they see.
async fn inside(node: &str, uid: &str) -> String {
    let look = "for group in $(grep -ls \"$1\" /proc/[0-9]*/cgroup); do process=${group%/cgroup}; cat $process/comm; \
                find $process/root/run/secrets $process/root/var/run/secrets -name token 2>/dev/null; done; true";
    on_node(node, &["sh", "-c", look, "sh", uid]).await.unwrap()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_launcher_has_no_token() {
    let world = World::new("token").await;
    world.post("kubevirt.io/v1", "virtualmachines", &plain_vm("alone")).await;
    world.until_vmi("alone", "runs", |vmi| vmi["status"]["phase"] == "Running").await;
    let pod = world.pod("alone").await.unwrap();
    assert_eq!(pod["spec"]["automountServiceAccountToken"], false);
    assert!(!pod["spec"]["volumes"].to_string().contains("serviceAccountToken"), "{}", pod["spec"]["volumes"]);
    let (node, uid) = (text(&pod["spec"]["nodeName"]), text(&pod["metadata"]["uid"]));
    let seen = inside(&node, &uid).await;
    assert!(seen.contains("virt-launcher") && !seen.contains("token"), "{seen}");
    // One that has a token, so that not to see one means something.
    let handlers = "/api/v1/namespaces/kubevirt/pods?labelSelector=kubevirt.io%3Dvirt-handler";
    let handlers = world.api.get(handlers).await.unwrap().unwrap();
    let handler = &handlers["items"][0];
    let seen = inside(&text(&handler["spec"]["nodeName"]), &text(&handler["metadata"]["uid"])).await;
    assert!(seen.contains("virt-handler") && seen.contains("token"), "{seen}");

    // Its account may do what any account may, one that is not there as well.
    let rights = async |account: &str| {
        let user = format!("--as=system:serviceaccount:{}:{account}", world.namespace);
        let list = ["auth", "can-i", "--list", "--no-headers", "-n", &world.namespace, &user];
        let rights = run("kubectl", &list).await.unwrap();
        let mut rights: Vec<_> = rights.lines().map(str::to_owned).collect();
        rights.sort();
        rights
    };
    let anybody = rights("nobody").await;
    assert!(!anybody.is_empty());
    assert_eq!(rights(&text(&pod["spec"]["serviceAccountName"])).await, anybody);
    world.remove().await;
}

/// A VM's spec with a NIC on the pod network, for a node that is not there: it takes nothing but a place in memory.
fn waiting(labels: &Value) -> Value {
    json!({"metadata": {"labels": labels}, "spec": {
        "nodeSelector": {"kubernetes.io/hostname": "nowhere"},
        "domain": {"devices": {"interfaces": [{"name": "default", "masquerade": {}}]}, "memory": {"guest": "32Mi"}},
        "networks": [{"name": "default", "pod": {}}]}})
}

fn virtual_machine(name: &str, strategy: &str, template: Value) -> Value {
    json!({"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": {"name": name},
        "spec": {"runStrategy": strategy, "template": template}})
}

const VMS: (&str, &str) = ("kubevirt.io/v1", "virtualmachines");

/// What components do seldom, once each: without a right to it they would fail, and tests/rights would see nobody use it.
#[tokio::test]
async fn what_is_seldom_done_is_within_rights() {
    let world = World::new("seldom").await;
    sets(&world).await;
    sizes(&world).await;
    conflicting_addresses(&world).await;
    node_without_heartbeat(&world).await;
    changes_by_hand(&world).await;
    repeated_events(&world).await;
    world.remove().await;
}

/// Makes a set of one, and makes it a set of none.
async fn sets(world: &World) {
    let labels = json!({"of": "set"});
    let set = json!({"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstanceReplicaSet",
        "metadata": {"name": "set"},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": waiting(&labels)}});
    let labels = json!({"of": "pool"});
    let template =
        json!({"metadata": {"labels": labels}, "spec": virtual_machine("x", "Halted", waiting(&labels))["spec"]});
    let pool = json!({"apiVersion": "pool.kubevirt.io/v1beta1", "kind": "VirtualMachinePool",
        "metadata": {"name": "pool"},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "virtualMachineTemplate": template}});
    for (group, plural, set, member) in [
        ("kubevirt.io/v1", "virtualmachineinstancereplicasets", &set, "virtualmachineinstances"),
        ("pool.kubevirt.io/v1beta1", "virtualmachinepools", &pool, VMS.1),
    ] {
        world.post(group, plural, set).await;
        let name = text(&set["metadata"]["name"]);
        let members = world.path("kubevirt.io/v1", &format!("{member}?labelSelector=of%3D{name}"));
        let has = async |count: usize| {
            let look = async || {
                let list = world.api.get(&members).await?.unwrap_or_default();
                Ok((list["items"].as_array().map(Vec::len) == Some(count)).then_some(()))
            };
            world.api.until(&format!("{name} has {count}"), LONG, look).await.unwrap();
        };
        has(1).await;
        let path = world.path(group, &format!("{plural}/{name}"));
        world.api.call(Method::PATCH, &path, &json!({"spec": {"replicas": 0}})).await.unwrap().ok().unwrap();
        has(0).await;
        world.api.delete(&path).await.unwrap();
    }
}

/// VMs whose sizes are elsewhere, in the cluster and in the namespace; a change of one is held against what it was given.
async fn sizes(world: &World) {
    let group = "instancetype.kubevirt.io/v1beta1";
    for (prefix, cluster) in [("VirtualMachineCluster", true), ("VirtualMachine", false)] {
        let name = if cluster { "test-seldom" } else { "small" };
        let mut vm = virtual_machine(&name.replace("test-", ""), "Halted", waiting(&json!({})));
        vm["spec"]["template"]["spec"]["domain"].as_object_mut().unwrap().remove("memory");
        let mut made = Vec::new();
        for (kind, spec, of) in [
            ("Instancetype", json!({"cpu": {"guest": 1}, "memory": {"guest": "32Mi"}}), "instancetype"),
            ("Preference", json!({"cpu": {"preferredCPUTopology": "sockets"}}), "preference"),
        ] {
            let kind = format!("{prefix}{kind}");
            let object = json!({"apiVersion": group, "kind": kind, "metadata": {"name": name}, "spec": spec});
            let path = world.api.collection(group, &kind, &world.namespace).await.unwrap().unwrap();
            world.api.delete(&format!("{path}/{name}")).await.unwrap();
            world.api.call(Method::POST, &path, &object).await.unwrap().ok().unwrap();
            made.push(format!("{path}/{name}"));
            vm["spec"][of] = json!({"kind": kind, "name": name});
        }
        let vm = world.post(VMS.0, VMS.1, &vm).await;
        let path = world.path(VMS.0, &format!("{}/{}", VMS.1, text(&vm["metadata"]["name"])));
        let given = async || {
            let vm = world.api.get(&path).await?.unwrap_or_default();
            let status = &vm["status"];
            let has = |of: &str| status[of]["controllerRevisionRef"]["name"].is_string();
            Ok((has("instancetypeRef") && has("preferenceRef")).then_some(()))
        };
        world.api.until("the VM was given its sizes", LONG, given).await.unwrap();
        let change = json!({"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 1}}}});
        world.api.call(Method::PATCH, &path, &change).await.unwrap().ok().unwrap();
        for path in made {
            world.api.delete(&path).await.unwrap();
        }
    }
}

/// A spec as of [`waiting`] with a NIC on the network `lan`, of this Ethernet address.
fn on_lan(mac: &str) -> Value {
    let mut template = waiting(&json!({}));
    template["spec"]["domain"]["devices"]["interfaces"] = json!([{"name": "lan", "bridge": {}, "macAddress": mac}]);
    template["spec"]["networks"] = json!([{"name": "lan", "multus": {"networkName": "lan"}}]);
    template
}

/// Two VMs that want the same Ethernet address; whether one of them may move; and a VMI of its own that gives its back.
async fn conflicting_addresses(world: &World) {
    const MAC: &str = "02:00:00:00:02:66";
    const OWN: &str = "02:00:00:00:02:67";
    for name in ["first", "second"] {
        world.post(VMS.0, VMS.1, &virtual_machine(name, "Always", on_lan(MAC))).await;
        let told =
            |vmi: &Value| conditions(vmi).get("Synchronized").is_some_and(|told| told["reason"] == "AddressConflict");
        if name == "second" {
            world.until_vmi(name, "is told of the conflict", told).await;
        } else {
            world.until_vmi(name, "has its address", |vmi| vmi["status"]["phase"] == "Scheduling").await;
        }
    }
    let migration = json!({"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstanceMigration",
        "metadata": {"name": "m"}, "spec": {"vmiName": "first"}});
    world.post("kubevirt.io/v1", "virtualmachineinstancemigrations?dryRun=All", &migration).await;

    let bare = json!({"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "metadata": {"name": "bare"},
        "spec": on_lan(OWN)["spec"]});
    world.post("kubevirt.io/v1", "virtualmachineinstances", &bare).await;
    world.until_vmi("bare", "has its address", |vmi| vmi["status"]["phase"] == "Scheduling").await;
    let lease = async || {
        let list = world.api.get("/apis/holdfast.io/v1alpha1/macleases").await?.unwrap_or_default();
        let all = list["items"].as_array().into_iter().flatten();
        anyhow::Ok(all.into_iter().find(|lease| lease["spec"]["address"] == OWN).cloned())
    };
    let held = lease().await.unwrap().unwrap();
    world.api.delete(&world.path("kubevirt.io/v1", "virtualmachineinstances/bare")).await.unwrap();
    let released = async || Ok(lease().await?.is_none_or(|lease| lease["status"] != held["status"]).then_some(()));
    world.api.until("the address is given back", LONG, released).await.unwrap();
}

/// A node of which nothing was heard for long takes no more VMs.
async fn node_without_heartbeat(world: &World) {
    let path = "/api/v1/nodes/test-silent";
    let node = json!({"metadata": {"name": "test-silent", "labels": {"kubevirt.io/schedulable": "true"},
        "annotations": {"kubevirt.io/heartbeat": "2026-01-02T03:04:05Z"}}, "spec": {"unschedulable": true}});
    world.api.delete(path).await.unwrap();
    world.api.call(Method::POST, "/api/v1/nodes", &node).await.unwrap().ok().unwrap();
    let marked = async || {
        let node = world.api.get(path).await?.unwrap_or_default();
        Ok((node["metadata"]["labels"]["kubevirt.io/schedulable"] == "false").then_some(()))
    };
    world.api.until("the node is marked", LONG, marked).await.unwrap();
    world.api.delete(path).await.unwrap();
}

/// The operator takes back what others change.
async fn changes_by_hand(world: &World) {
    for path in ["deployments/virt-controller", "daemonsets/virt-handler"] {
        let path = format!("/apis/apps/v1/namespaces/kubevirt/{path}");
        // No pod is replaced for it.
        world.api.call(Method::PATCH, &path, &json!({"spec": {"minReadySeconds": 1}})).await.unwrap().ok().unwrap();
        let undone = async || {
            let object = world.api.get(&path).await?.unwrap_or_default();
            Ok((object["spec"]["minReadySeconds"].as_u64().unwrap_or_default() == 0).then_some(()))
        };
        world.api.until(&format!("the change of {path} is taken back"), LONG, undone).await.unwrap();
    }
}

/// What happens again is counted in the event that told of it first.
async fn repeated_events(world: &World) {
    world.post(VMS.0, VMS.1, &plain_vm("again")).await;
    world.until_vmi("again", "runs", |vmi| is_true(vmi, "Ready")).await;
    for verb in ["pause", "unpause", "pause"] {
        world.verb("virtualmachineinstances", "again", verb, &json!({})).await;
        let paused = verb == "pause";
        world.until_vmi("again", verb, |vmi| conditions(vmi).contains_key("Paused") == paused).await;
    }
    let events = world.path("events.k8s.io/v1", "events");
    let counted = async || {
        let list = world.api.get(&events).await?.unwrap_or_default();
        Ok(list["items"].as_array().into_iter().flatten().any(|event| event["series"].is_object()).then_some(()))
    };
    world.api.until("an event is counted", LONG, counted).await.unwrap();
}
