//! Deletions of anything, at any moment, in any order: all of it ends, and leaves nothing.
//!
//! The order is random and follows from a seed, which is printed: `HOLDFAST_SEED=N` repeats it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::Method;
use serde_json::{Value, json};

use crate::world::{LONG, World, left_on_nodes, plain_vm, run, vm};

/// Creations and deletions.
const STEPS: usize = 40;
/// Longest pause between two of them: within it a VM comes about half of its way.
const PAUSE_MS: u64 = 1500;
/// Objects at a time, so that some come so far as to run.
const MOST: usize = 8;
/// The documented quarantine of an address, and what a look at it may come late.
const QUARANTINE: Duration = Duration::from_secs(60 + 40);

/// A random order that can be had again: splitmix64.
struct Order(u64);

impl Order {
    fn new() -> Self {
        let given = std::env::var("HOLDFAST_SEED").ok().map(|text| text.parse().unwrap());
        let time = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let seed = given.unwrap_or_else(time);
        println!("HOLDFAST_SEED={seed}");
        Self(seed)
    }

    /// A number below `end`.
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    fn choose<T: Clone>(&mut self, all: &[T]) -> Option<T> {
        let index = self.below(u64::try_from(all.len()).unwrap().max(1));
        all.get(usize::try_from(index).unwrap()).cloned()
    }

    /// A moment.
    async fn pause(&mut self) {
        tokio::time::sleep(Duration::from_millis(self.below(PAUSE_MS))).await;
    }
}

/// Kinds that are deleted, with the group of each.
const KINDS: [(&str, &str); 4] = [
    ("kubevirt.io/v1", "virtualmachines"),
    ("kubevirt.io/v1", "virtualmachineinstances"),
    ("v1", "pods"),
    ("k8s.cni.cncf.io/v1", "network-attachment-definitions"),
];

/// Ways to delete.
const WAYS: [&[&str]; 6] = [
    &[],
    &[],
    &["--grace-period=0", "--force"],
    &["--grace-period=1"],
    &["--cascade=foreground"],
    &["--cascade=orphan"],
];

/// A small VM, with or without an address on the underlay.
fn machine(order: &mut Order, name: &str) -> Value {
    let mut machine = if order.below(2) == 0 { plain_vm(name) } else { vm(name, "") };
    let template = &mut machine["spec"]["template"];
    // With what the API server escapes when it writes a revision of this anew.
    template["metadata"]["annotations"] = json!({"note": "a < b && b > c"});
    let spec = &mut template["spec"];
    spec["volumes"] = json!([]);
    spec["domain"]["devices"]["disks"] = json!([]);
    spec["domain"]["memory"]["guest"] = json!("96Mi");
    // Such a guest hears no request to power off.
    spec["terminationGracePeriodSeconds"] = json!(order.below(2) * 3);
    machine
}

/// Creates something, under a name that nothing had before. What is refused because the namespace goes is not there.
async fn create(order: &mut Order, world: &World, number: usize) {
    let name = format!("d{number}");
    let (kind, object) = match order.below(5) {
        0 => {
            let annotations = json!({"k8s.v1.cni.cncf.io/networks": if order.below(2) == 0 { "lan" } else { "" }});
            let pod = json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": name, "annotations": annotations},
                "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "c",
                    "image": "localhost/test/busybox:1", "imagePullPolicy": "IfNotPresent",
                    "command": ["sleep", "3600"]}]}});
            (KINDS[2], pod)
        }
        1 => {
            let template = machine(order, &name)["spec"]["template"].clone();
            let vmi = json!({"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
                "metadata": {"name": name}, "spec": template["spec"]});
            (KINDS[1], vmi)
        }
        _ => (KINDS[0], machine(order, &name)),
    };
    world.post(kind.0, kind.1, &object).await;
    // One that was deleted is there for those that come.
    world.network().await;
}

/// The names of a kind, in the order of the API server.
async fn names(world: &World, (group, plural): (&str, &str)) -> Vec<String> {
    let list = world.api.get(&world.path(group, plural)).await.unwrap().unwrap();
    let items = list["items"].as_array().unwrap().clone();
    items.iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

/// Deletes something in some way.
async fn delete(order: &mut Order, world: &World) {
    // Networks are few, so that they would go too often.
    let kind = KINDS[usize::try_from(order.below(13)).unwrap() / 4];
    let Some(name) = order.choose(&names(world, kind).await) else { return };
    let way = order.choose(&WAYS).unwrap();
    println!("delete {} {name} {way:?}", kind.1);
    let arguments = [&["-n", &world.namespace, "delete", kind.1, &name, "--wait=false"], way].concat();
    if let Err(error) = run("kubectl", &arguments).await {
        // It went by itself meanwhile.
        assert!(error.contains("NotFound") || error.contains("not found"), "{arguments:?}: {error}");
    }
}

/// IPLeases and MACLeases of the namespaces.
async fn leases(worlds: &[&World]) -> Vec<String> {
    let mut found = Vec::new();
    for plural in ["ipleases", "macleases"] {
        let list = worlds[0].api.get(&format!("/apis/holdfast.io/v1alpha1/{plural}")).await.unwrap().unwrap();
        let items = list["items"].as_array().unwrap().clone();
        let ours = |lease: &&Value| worlds.iter().any(|world| lease.to_string().contains(&world.namespace));
        found.extend(items.iter().filter(ours).map(Value::to_string));
    }
    found
}

#[tokio::test]
async fn whatever_is_deleted_at_any_moment_ends_clean() {
    let mut order = Order::new();
    let (world, doomed) = (World::new("deletes").await, World::new("doomed").await);
    let mut seen = 0;
    for step in 0..STEPS {
        let world = if order.below(3) == 0 { &doomed } else { &world };
        let there = names(world, KINDS[0]).await.len() + names(world, KINDS[1]).await.len();
        if there < MOST && order.below(5) < 3 {
            create(&mut order, world, step).await;
        } else {
            delete(&mut order, world).await;
        }
        seen = seen.max(leases(&[world]).await.len());
        order.pause().await;
    }
    assert!(seen > 0, "no VM came so far as to have an address");

    // A namespace goes with all that is in it, in the middle of its life.
    for step in STEPS..STEPS + 4 {
        create(&mut order, &doomed, step).await;
        order.pause().await;
    }
    let path = format!("/api/v1/namespaces/{}", doomed.namespace);
    doomed.api.call(Method::DELETE, &path, &json!({})).await.unwrap().ok().unwrap();
    // And one object after the other, whatever is left.
    for _ in 0..STEPS {
        let mut left = 0;
        for kind in KINDS {
            left += names(&world, kind).await.len();
        }
        if left == 0 {
            break;
        }
        delete(&mut order, &world).await;
    }
    for kind in [KINDS[0], KINDS[1]] {
        run("kubectl", &["-n", &world.namespace, "delete", kind.1, "--all", "--wait=false"]).await.unwrap();
    }
    run("kubectl", &["-n", &world.namespace, "delete", KINDS[2].1, "--all", "--wait=false"]).await.unwrap();
    for kind in &KINDS[..3] {
        let gone = async || Ok(names(&world, *kind).await.is_empty().then_some(()));
        let went = world.api.until(&format!("all {} are gone", kind.1), LONG, gone).await;
        if let Err(error) = went {
            let path = world.path(kind.0, kind.1);
            panic!("{error:#}\n{:#}", world.api.get(&path).await.unwrap().unwrap());
        }
    }
    world.remove().await;
    doomed.remove().await;

    let clean = async || Ok(left_on_nodes().await.is_empty().then_some(()));
    let cleaned = world.api.until("nothing is left on the nodes", LONG, clean).await;
    assert!(cleaned.is_ok(), "{:#?}", left_on_nodes().await);
    let returned = async || Ok(leases(&[&world, &doomed]).await.is_empty().then_some(()));
    let returned = world.api.until("all addresses are given back", QUARANTINE, returned).await;
    assert!(returned.is_ok(), "{:#?}", leases(&[&world, &doomed]).await);
}
