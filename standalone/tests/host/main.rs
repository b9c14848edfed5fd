//! holdfastd as a whole: real sandboxes, real switches, a guest that boots.

#![allow(clippy::unwrap_used)]

mod console;
mod hotplug;
mod kills;
mod macvtap;
mod masquerade;
mod matrix;
mod pages;
mod pings;
mod world;

use std::fs;
use std::time::{Duration, Instant};

use console::Console;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pings::Pings;
use serde_json::Value;
use world::{LAN, LONG, World, eventually, vm};

/// Sooner than the agent looks without a reason.
const SOON: Duration = Duration::from_secs(10);

fn nic<'a>(vmi: &'a Value, name: &str) -> &'a Value {
    vmi["status"]["interfaces"].as_array().unwrap().iter().find(|nic| nic["name"] == name).unwrap()
}

fn uid(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().unwrap()
}

/// From a folder to a guest on the wire, through every verb, to nothing at all.
#[test]
fn a_vm_keeps_its_mac_and_address_until_it_is_deleted() {
    let mut world = World::new();
    world.write("lan.yaml", LAN);
    world.write("vm.yaml", &vm("a", "Always", r#"{holdfast.io/ip-addresses: '{"lan": "192.0.2.10"}'}"#, "lan"));
    let first = world.running("a", None);
    world.answers("192.0.2.10");
    let mac = nic(&first, "lan")["mac"].clone();
    assert_eq!(nic(&first, "lan")["ipAddress"], "192.0.2.10");

    for pid in world.launchers() {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        for line in
            ["Uid:\t107\t107\t107\t107", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"]
        {
            assert!(status.contains(line), "{line} is not in\n{status}");
        }
        let others = fs::read_dir(format!("/proc/{pid}/root/var/lib")).unwrap().count();
        assert_eq!(others, 0, "nothing of the host's state is visible");
    }

    Console::open(&world, "a").close();
    world.must(&["pause", "vm", "a"]);
    world.condition("vm", "a", "Paused", "PausedByUser");
    let refused = world.virtctl(&["soft-reboot", "a"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("VMI is paused"));
    world.must(&["unpause", "vmi", "a"]);

    world.must(&["restart", "a"]);
    let second = world.running("a", Some(uid(&first)));
    assert_eq!(
        (&nic(&second, "lan")["mac"], &nic(&second, "lan")["ipAddress"]),
        (&mac, &nic(&first, "lan")["ipAddress"])
    );
    world.answers("192.0.2.10");

    adoption(&mut world, &second);
    succession(&world, &second);

    world.must(&["stop", "a", "--force", "--grace-period", "0"]);
    eventually("a stops", LONG, || (world.get("vm", "a")?["status"]["printableStatus"] == "Stopped").then_some(()));
    eventually("its sandbox goes", LONG, || world.launchers().is_empty().then_some(()));
    assert_eq!(
        world.get("ipl", "lan.c000020a").unwrap()["spec"]["claim"]["name"],
        "a",
        "a stopped VM keeps its address"
    );
    world.must(&["start", "a"]);
    let third = world.running("a", Some(uid(&second)));
    assert_eq!(nic(&third, "lan")["mac"], mac);

    stop_workers(&world);
    world.must(&["delete", "vm", "a"]);
    assert!(!world.path("m/vm.yaml").exists(), "its document went with it");
    world.remove("lan.yaml");
    eventually("networks go", LONG, || world.get("unet", "lan").is_none().then_some(()));
    eventually("nothing is left", LONG, || world.leftovers().is_empty().then_some(()));
    world.stop();
    assert_eq!(world.leftovers(), Vec::<String>::new());
}

/// The launchers proper, below the first process of each sandbox.
fn workers(world: &World) -> Vec<Pid> {
    let worker = |reaper: i32| {
        let children = fs::read_to_string(format!("/proc/{reaper}/task/{reaper}/children")).ok()?;
        let named = |pid: &&str| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|n| n == "virt-launcher\n");
        children.split_whitespace().find(named)?.parse().ok().map(Pid::from_raw)
    };
    world.launchers().into_iter().filter_map(worker).collect()
}

/// Makes launchers hang: deletion must not wait for them for ever.
fn stop_workers(world: &World) {
    workers(world).into_iter().for_each(|worker| kill(worker, Signal::SIGSTOP).unwrap());
}

/// The launcher proper dies and is started again; it takes over the guest, which has run on.
fn succession(world: &World, vmi: &Value) {
    let mut console = Console::open(world, "a");
    console.log_in();
    console.run("touch /tmp/ran-before");
    console.close();
    let before = workers(world);
    before.iter().for_each(|worker| kill(*worker, Signal::SIGKILL).unwrap());
    eventually("a launcher takes over", LONG, || {
        let now = workers(world);
        (now.len() == before.len() && now.iter().all(|pid| !before.contains(pid))).then_some(())
    });
    eventually("it does what it is told", LONG, || {
        world.virtctl(&["pause", "vmi", "a"]).status.success().then_some(())
    });
    world.condition("vmi", "a", "Paused", "PausedByUser");
    world.must(&["unpause", "vmi", "a"]);
    let mut console = Console::again(world, "a");
    console.run("test -e /tmp/ran-before");
    console.close();
    assert_eq!(uid(&world.running("a", None)), uid(vmi));
}

/// holdfastd dies and comes back; the guest answers all the time, and what it wrote to memory is there.
fn adoption(world: &mut World, vmi: &Value) {
    let launchers = world.launchers();
    let pings = Pings::start(world, "192.0.2.10");
    for _ in 0..3 {
        world.kill();
        world.start();
    }
    world.answers("192.0.2.10");
    let heard = pings.end();
    assert!(heard.lost == 0 && heard.answers > 20, "{heard:?}");
    assert_eq!(world.launchers(), launchers);
    let adopted = world.running("a", None);
    assert_eq!((uid(&adopted), &adopted["status"]), (uid(vmi), &adopted["status"]));
    world.must(&["pause", "vmi", "a"]);
    world.must(&["unpause", "vmi", "a"]);
    world.stop();
    world.start();
    assert_eq!(world.launchers(), launchers);
}

/// A guest that takes another's address, and says so to everyone, is not heard; one on a network that lets it, is.
#[test]
fn a_guest_speaks_for_itself_alone() {
    let mut world = World::new();
    let own = r#"{holdfast.io/ip-addresses: '{"lan": "192.0.2.10"}'}"#;
    for (security, name) in [("true", "secured"), ("false", "free")] {
        world.write("lan.yaml", &LAN.replace("  datapath:", &format!("  portSecurity: {security}\n  datapath:")));
        let listed = || Some(world.get("unet", "lan")?["spec"]["portSecurity"].to_string());
        eventually("the network is as written", LONG, || (listed()? == security).then_some(()));
        world.write("vm.yaml", &vm(name, "Always", own, "lan"));
        world.running(name, None);
        world.answers("192.0.2.10");
        let mut console = Console::open(&world, name);
        console.log_in();
        let lan = "$(ip -o addr show to 192.0.2.10 | cut -d' ' -f2)";
        console.run(&format!("ip addr add 192.0.2.99/24 dev {lan}"));
        console.run(&format!("arping -U -c 2 -I {lan} 192.0.2.99 >/dev/null"));
        assert_eq!(world.machine.try_sh("busybox ping -c 1 -w 3 192.0.2.99"), security == "false", "{name}");
        let known = world.machine.sh("ip neigh show 192.0.2.99").contains("lladdr");
        assert_eq!(known, security == "false", "{name}");
        world.answers("192.0.2.10");
        if security == "true" {
            // It forgets its flows with each end.
            for with_database in [true, false] {
                let pings = Pings::start(&world, "192.0.2.10");
                world.restart_switch(with_database);
                let begin = Instant::now();
                eventually("the switch is told again", SOON, || (world.flows().len() > 10).then_some(()));
                println!("with the database: {with_database}: told again {:?} after it was started", begin.elapsed());
                world.answers("192.0.2.10");
                let heard = pings.end();
                println!("the guest: {} lost, silent for {:?}", heard.lost, heard.silence);
            }
        }
        console.close();
        world.must(&["delete", "vm", name]);
        eventually("it goes", LONG, || world.launchers().is_empty().then_some(()));
        world.machine.sh("ip neigh flush all");
    }
    world.remove("lan.yaml");
    eventually("nothing is left", LONG, || world.leftovers().is_empty().then_some(()));
    let flows = world.flows();
    assert_eq!(flows.len(), 1, "{flows:?}");
    world.stop();
}

/// The second VM that asks for an address is told who has it, and touches nothing; it runs when the first is gone.
#[test]
fn an_address_has_one_holder() {
    let world = World::new();
    let ask = r#"{holdfast.io/ip-addresses: '{"lan": "192.0.2.10"}'}"#;
    world.write("lan.yaml", LAN);
    world.write("first.yaml", &vm("first", "Always", ask, "lan"));
    let first = world.running("first", None);
    world.write("second.yaml", &vm("second", "Always", ask, "lan"));
    let message = world.condition("vmi", "second", "Synchronized", "AddressConflict");
    for part in ["192.0.2.10", "lan", "VirtualMachine `default/first`"] {
        assert!(message.contains(part), "{part} is not in {message}");
    }
    assert_eq!(world.condition("vm", "second", "Synchronized", "AddressConflict"), message);
    assert!(world.must(&["describe", "vmi", "second"]).contains("Warning"));
    let pending = world.get("vmi", "second").unwrap();
    assert_eq!(pending["status"]["phase"], "Pending");
    assert_eq!(world.launchers().len(), 1);
    assert_eq!(world.vsctl("list-ports br-lan").lines().count(), 2, "the wire and the first VM");
    assert_eq!(uid(&world.running("first", None)), uid(&first), "the first is untouched");
    world.remove("first.yaml");
    world.running("second", None);
    world.answers("192.0.2.10");
}

/// Everything that can be missing or wrong: said on the VM and its VMI, with nothing left behind, and mended when the
/// reason goes.
#[test]
fn what_is_wrong_is_said_and_leaves_nothing() {
    let world = World::new();
    let good = vm("a", "Always", "{}", "lan");
    world.write("wrong.yaml", &good.replace("name: a\n", "name: wrong\n").replace("guest: 128Mi", "gest: 128Mi"));
    world.write(
        "unserved.yaml",
        &good
            .replace("name: a\n", "name: unserved\n")
            .replace("domain:\n", "domain:\n        launchSecurity: {sev: {}}\n"),
    );
    world.write("half.yaml", "apiVersion: kubevirt.io/v1\nkind: [");
    for (name, part) in [("wrong", "gest"), ("unserved", "launchSecurity")] {
        let message = world.condition("vm", name, "Failure", "InvalidManifest");
        assert!(message.contains(part), "{message}");
        assert!(world.must(&["describe", "vm", name]).contains("InvalidManifest"));
    }
    let listed = world.virtctl(&["get", "vm"]);
    assert!(String::from_utf8_lossy(&listed.stderr).contains("half.yaml: "), "{listed:?}");

    world.write("a.yaml", &good);
    let message = world.condition("vmi", "a", "Synchronized", "FailedAttachNetwork");
    assert!(message.contains("NetworkAttachmentDefinition `default/lan` does not exist"), "{message}");
    world.write("lan.yaml", &LAN.replace("br-lan", "br-none"));
    let message = eventually("the bridge is missed", LONG, || {
        let message = world.condition("vmi", "a", "Synchronized", "FailedAttachNetwork");
        message.contains("br-none").then_some(message)
    });
    assert!(message.contains("network `lan`"), "{message}");
    eventually("nothing but leases is left", LONG, || {
        world.leftovers().iter().all(|left| left.contains("leases/") || left.contains("revisions/")).then_some(())
    });
    world.write("lan.yaml", LAN);
    world.running("a", None);

    world.write("image.yaml", &good.replace("name: a\n", "name: image\n").replace("oci:/", "oci:/nowhere/"));
    let message = world.condition("vmi", "image", "Synchronized", "ErrImagePull");
    assert!(message.contains("no OCI image layout"), "{message}");
    eventually("the VM says so", LONG, || {
        (world.get("vm", "image")?["status"]["printableStatus"] == "ErrImagePull").then_some(())
    });
    world.write("a.yaml", &good.replace("128Mi", "nonsense"));
    world.condition("vm", "a", "Failure", "InvalidManifest");
    world.running("a", None);
    assert_eq!(world.launchers().len(), 1);
}
