//! NICs that join and leave a guest that runs, by editing its VM.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::console::Console;
use crate::world::{LAN, LONG, World, eventually, vm};

/// The VM `a` with a NIC on `lan` of this Ethernet address, in this state; without it where there is no state.
fn with_nic(state: Option<&str>) -> String {
    let text = vm("a", "Always", r#"{holdfast.io/ip-addresses: '{"lan": "192.0.2.10"}'}"#, "lan");
    let nic = "          - {name: lan, bridge: {}}\n";
    let network = "      - {name: lan, multus: {networkName: lan}}\n";
    let annotations = r#"      annotations: {holdfast.io/ip-addresses: '{"lan": "192.0.2.10"}'}"#;
    assert!(text.contains(nic) && text.contains(network) && text.contains(annotations));
    // The addresses are asked for by the VM: what it asks for when it starts is for its template.
    let text = text.replace(&format!("{annotations}\n"), "      labels: {kind: test}\n");
    match state {
        None => text.replace(nic, "").replace(network, ""),
        Some(state) => text
            .replace(nic, &format!("          - {{name: lan, bridge: {{}}, macAddress: '{MAC}', state: {state}}}\n")),
    }
}

const MAC: &str = "02:00:00:00:0a:0a";

fn nic(world: &World) -> Option<Value> {
    let vmi = world.get("vmi", "a")?;
    let nics = vmi["status"]["interfaces"].as_array()?;
    nics.iter().find(|nic| nic["name"] == "lan").cloned()
}

/// Waits until the NIC is a device of the guest; returns its status.
fn plugged(world: &World) -> Value {
    eventually("the NIC is plugged", LONG, || {
        nic(world).filter(|nic| nic["infoSource"].as_str().unwrap().contains("domain"))
    })
}

/// The sandbox's links, and how many leases of the NIC's Ethernet address there are.
fn traces(world: &World) -> (String, usize) {
    let sandbox = fs::read_dir(world.path("r/netns")).unwrap().next().unwrap().unwrap().path();
    let links = world.host.sh(&format!("nsenter --net={} ip -o link", sandbox.display()));
    let leases = fs::read_dir(world.path("s/leases/macleases")).unwrap().flatten();
    let texts = leases.filter_map(|lease| fs::read_to_string(lease.path()).ok());
    (links, texts.filter(|text| text.contains(MAC)).count())
}

/// The guest's command that gives the NIC its address, once it is there.
fn configure() -> String {
    format!(
        "n=; while [ -z \"$n\" ]; do n=$(grep -l {MAC} /sys/class/net/*/address | cut -d/ -f5); sleep 0.2; done; \
         ip link set $n up; udhcpc -q -n -i $n -s /etc/dhcp -t 10 -T 1 >/dev/null 2>&1"
    )
}

/// Plugged, its link switched, unplugged, plugged again and given up, over the death of the agent in between.
#[test]
fn a_nic_joins_and_leaves_a_guest_that_runs() {
    let mut world = World::new();
    world.write("lan.yaml", LAN);
    world.write("vm.yaml", &with_nic(None));
    let vmi = world.running("a", None);
    let mut console = Console::open(&world, "a");
    console.log_in();
    let (links, leases) = traces(&world);
    assert!(!links.contains("pod") && leases == 0, "{links}");
    let before = links.lines().count();

    // A network that is not there is said, and said no more when it is not asked for.
    world.write("vm.yaml", &with_nic(Some("up")).replace("networkName: lan", "networkName: nowhere"));
    let message = world.condition("vmi", "a", "Synchronized", "FailedAttachNetwork");
    assert!(message.contains("default/nowhere"), "{message}");
    world.write("vm.yaml", &with_nic(Some("absent")));
    eventually("it is not asked for any more", LONG, || {
        let vmi = world.get("vmi", "a")?;
        let conditions = vmi["status"]["conditions"].as_array()?;
        let networks = vmi["spec"]["networks"].as_array()?.len();
        (networks == 1 && conditions.iter().all(|condition| condition["type"] != "Synchronized")).then_some(())
    });

    world.write("vm.yaml", &with_nic(Some("up")));
    let status = plugged(&world);
    assert_eq!((&status["mac"], &status["linkState"]), (&Value::from(MAC), &Value::from("up")));
    let address = status["ipAddress"].as_str().unwrap().to_owned();
    console.run(&configure());
    world.answers(&address);
    assert!(world.vsctl("list-ports br-lan").lines().count() == 2);
    assert_eq!(traces(&world).1, 1);

    // Its link goes down and up again: the guest sees it, and nothing passes.
    let carrier = |wanted: u8| {
        format!("c=; while [ \"$c\" != {wanted} ]; do c=$(cat /sys/class/net/$n/carrier); sleep 0.2; done")
    };
    world.write("vm.yaml", &with_nic(Some("down")));
    console.run(&carrier(0));
    eventually("the status says down", LONG, || nic(&world).filter(|nic| nic["linkState"] == "down"));
    assert!(!world.machine.try_sh(&format!("busybox ping -q -c 1 -W 1 {address}")));
    world.write("vm.yaml", &with_nic(Some("up")));
    console.run(&carrier(1));
    world.answers(&address);

    // Unplugged: nothing of it is left but its addresses, which the VM keeps.
    world.write("vm.yaml", &with_nic(Some("absent")));
    let gone = |world: &World| {
        eventually("the NIC is unplugged", LONG, || {
            let vmi = world.get("vmi", "a")?;
            let is_left = vmi["spec"]["networks"].as_array()?.iter().any(|network| network["name"] == "lan");
            (!is_left && nic(world).is_none()).then_some(())
        });
        eventually("no link is left", LONG, || (traces(world).0.lines().count() == before).then_some(()));
        assert_eq!(world.vsctl("list-ports br-lan").trim(), "up0");
    };
    gone(&world);
    console.run(&format!("! grep -q {MAC} /sys/class/net/*/address"));
    assert_eq!(traces(&world).1, 1);

    console.close();

    // Again, at the same address, with an agent that dies at once.
    for moment in [0, 60] {
        let die = |world: &mut World| {
            std::thread::sleep(Duration::from_millis(moment));
            world.kill();
            world.start();
        };
        world.write("vm.yaml", &with_nic(Some("up")));
        die(&mut world);
        assert_eq!(plugged(&world)["ipAddress"], address.as_str());
        let mut console = Console::again(&world, "a");
        console.run(&configure());
        world.answers(&address);
        console.close();
        world.write("vm.yaml", &with_nic(Some("absent")));
        die(&mut world);
        gone(&world);
    }

    // Out of the template, its addresses are given back. It was the same guest all the time.
    world.write("vm.yaml", &with_nic(None));
    eventually("its addresses are given back", LONG, || (traces(&world).1 == 0).then_some(()));
    assert_eq!(world.get("vmi", "a").unwrap()["metadata"]["uid"], vmi["metadata"]["uid"]);
    let vm = world.get("vm", "a").unwrap();
    let conditions = vm["status"]["conditions"].as_array().unwrap();
    assert!(conditions.iter().all(|condition| condition["type"] != "RestartRequired"), "{conditions:?}");

    world.remove("vm.yaml");
    world.remove("lan.yaml");
    eventually("the VM goes", LONG, || world.get("vm", "a").is_none().then_some(()));
    world.stop();
}
