//! The manifests in the documents, one page for each way of attaching, as they stand there. attach-macvtap.md refers to
//! an example, which `macvtap.rs` runs.

use std::fs;
use std::path::Path;

use crate::world::{IMAGE, LONG, World, eventually, image};

/// All manifests of a page.
fn manifests(page: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("docs").join(page);
    let text = fs::read_to_string(&path).unwrap();
    let blocks = text.split("```yaml\n").skip(1).map(|rest| rest.split_once("```").unwrap().0);
    let manifests: Vec<_> = blocks.filter(|block| block.contains("apiVersion:")).collect();
    assert!(!manifests.is_empty(), "{page} holds no manifest");
    manifests.join("---\n").replace(IMAGE, &image())
}

/// The addresses of their guests' only NICs: those that the page asks for, or whatever the pod network gives.
const PAGES: [(&str, &str, Option<&str>); 4] = [
    ("attach-masquerade.md", "behind-nat", None),
    ("attach-pod-bridge.md", "as-pod", None),
    ("attach-ovs.md", "on-ovs", Some("192.0.2.20")),
    ("attach-linux-bridge.md", "on-bridge", Some("198.51.100.60")),
];

#[test]
fn each_page_s_manifest_boots_a_guest_that_answers() {
    let mut world = World::new();
    let pid = world.machine.pid();
    world.host.sh("ip link add br0 type bridge; ip link set br0 up");
    world.host.sh(&format!("ip link add eno2 type veth peer name office netns {pid}; ip link set eno2 master br0 up"));
    world.machine.sh("ip addr add 198.51.100.1/24 dev office; ip link set office up");
    for (page, ..) in PAGES {
        world.write(&format!("{page}.yaml"), &manifests(page));
    }
    for (page, vm, asked) in PAGES {
        let vmi = world.running(vm, None);
        let address = vmi["status"]["interfaces"][0]["ipAddress"].as_str().unwrap();
        assert!(asked.is_none_or(|asked| asked == address), "{page}: {address}");
        let from = if asked.is_some() { &world.machine } else { &world.host };
        world.answers_from(from, address);
        let (nic, uid) = (&vmi["status"]["interfaces"][0], vmi["metadata"]["uid"].as_str().unwrap());
        let log = world.guest_log(uid);
        let told = log.lines().find(|line| line.starts_with("T-NET ")).unwrap();
        let inside = if vm == "behind-nat" { "10.0.2.2" } else { address };
        assert!(told.contains(inside) && told.contains(nic["mac"].as_str().unwrap()), "{page}: {told}");
    }
    // Of port 80 alone that page lets in.
    let nat = world.get("vmi", "behind-nat").unwrap()["status"]["interfaces"][0]["ipAddress"].clone();
    let echo = format!("exec 3<>/dev/tcp/{}/7", nat.as_str().unwrap());
    assert!(!world.host.command("timeout").args(["3", "bash", "-c", &echo]).output().unwrap().status.success());
    for (page, ..) in PAGES {
        world.remove(&format!("{page}.yaml"));
    }
    let known = |left: &String| left.starts_with("link br0") || left.starts_with("link eno2");
    eventually("nothing is left", LONG, || world.leftovers().iter().all(known).then_some(()));
    world.stop();
}
