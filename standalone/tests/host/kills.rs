//! Whatever ends at whatever moment: all that was asked for comes about, no address is lost or had twice, and nothing is
//! left in the end.
//!
//! The order is random and follows from a seed, which is printed: `HOLDFAST_SEED=N` repeats it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fastrand::Rng;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::workers;
use crate::world::{LAN, LONG, World, eventually, vm};

/// How often something is killed.
const KILLS: usize = 200;
/// VMs at a time.
const MOST: usize = 10;
/// How long a VM may take to run once nothing is killed any more: one that failed often waits before it is tried again.
const SETTLE: Duration = Duration::from_secs(360);
/// Longest wait before a kill: within it a VM comes from its manifest to its guest.
const PAUSE_MS: u64 = 700;

fn rng() -> Rng {
    let given = std::env::var("HOLDFAST_SEED").ok().map(|text| text.parse().unwrap());
    let seed = given.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs());
    println!("HOLDFAST_SEED={seed}");
    Rng::with_seed(seed)
}

/// A VM without a disk: its firmware is what runs.
fn manifest(name: &str, note: u32) -> String {
    let whole = vm(name, "Always", &format!("{{note: '{note}'}}"), "lan");
    let (machine, _) = whole.split_once("      volumes:").unwrap();
    let disks = "          disks:\n          - {name: root, disk: {bus: virtio}}\n";
    assert!(machine.contains(disks));
    machine.replace(disks, "").replace("128Mi", "64Mi").replace("GracePeriodSeconds: 5", "GracePeriodSeconds: 0")
}

/// Asks for something.
fn change(world: &World, rng: &mut Rng, vms: &mut BTreeSet<String>, number: usize) {
    let chosen = rng.choice(vms.iter()).cloned();
    match (rng.u8(..10), chosen) {
        (0..6, _) | (_, None) if vms.len() < MOST => {
            let name = format!("v{number}");
            world.write(&format!("{name}.yaml"), &manifest(&name, 0));
            vms.insert(name);
        }
        (0..3, Some(name)) => world.write(&format!("{name}.yaml"), &manifest(&name, rng.u32(..))),
        // It may be refused: the VM is not there yet, or does not run.
        (3..6, Some(name)) => drop(world.virtctl(&["restart", &name])),
        (_, Some(name)) => {
            world.remove(&format!("{name}.yaml"));
            vms.remove(&name);
        }
        (_, None) => {}
    }
}

/// Kills something, and starts again what nobody else does.
fn kill_one(world: &mut World, rng: &mut Rng) -> &'static str {
    let launchers: Vec<_> = match rng.u8(..20) {
        0..13 => {
            world.kill();
            world.start();
            return "holdfastd";
        }
        13 => {
            world.restart_switch(false);
            return "ovs-vswitchd";
        }
        14..17 => world.launchers().into_iter().map(Pid::from_raw).collect(),
        _ => workers(world),
    };
    if let Some(pid) = rng.choice(launchers) {
        // It may have ended by itself.
        let _ = kill(pid, Signal::SIGKILL);
    }
    "a launcher"
}

/// MAC and addresses of a VMI on the network `lan`, once it has them.
fn identity(vmi: &Value) -> Option<(String, String)> {
    let nic = vmi["status"]["interfaces"].as_array()?.iter().find(|nic| nic["name"] == "lan")?;
    Some((nic["mac"].as_str()?.to_owned(), nic["ipAddress"].as_str()?.to_owned()))
}

#[test]
fn at_any_moment() {
    let mut rng = rng();
    let mut world = World::new();
    world.write("lan.yaml", LAN);
    let mut vms = BTreeSet::new();
    let mut known = BTreeMap::new();
    let mut killed = BTreeMap::<_, usize>::new();
    for number in 0..KILLS {
        change(&world, &mut rng, &mut vms, number);
        std::thread::sleep(Duration::from_millis(rng.u64(..PAUSE_MS)));
        *killed.entry(kill_one(&mut world, &mut rng)).or_default() += 1;
        if let Some(name) = rng.choice(vms.iter())
            && let Some(identity) = world.get("vmi", name).as_ref().and_then(identity)
        {
            let before = known.entry(name.clone()).or_insert_with(|| identity.clone());
            assert_eq!(*before, identity, "{name} has other addresses after kill {number}");
        }
    }
    println!("killed: {killed:?}; {} VMs had addresses by the way", known.len());
    assert!(known.len() >= MOST, "few VMs came so far as to have an address");
    let mut addresses = BTreeSet::new();
    for name in &vms {
        let identity = eventually(&format!("{name} runs, with its addresses"), SETTLE, || {
            let vmi = world.get("vmi", name)?;
            identity(&vmi).filter(|_| vmi["status"]["phase"] == "Running")
        });
        assert_eq!(known.get(name).unwrap_or(&identity), &identity, "{name} has other addresses");
        assert!(addresses.insert(identity.0.clone()), "two have {}", identity.0);
        assert!(addresses.insert(identity.1.clone()), "two have {}", identity.1);
    }
    // One that was deleted while its launcher died may be waited for until its time to start is over.
    eventually("no other VM is left", SETTLE, || (world.launchers().len() == vms.len()).then_some(()));
    vms.iter().for_each(|name| world.remove(&format!("{name}.yaml")));
    eventually("all VMs go", LONG, || fs::read_dir(world.path("s/vms")).unwrap().next().is_none().then_some(()));
    world.remove("lan.yaml");
    eventually("nothing is left", LONG, || world.leftovers().is_empty().then_some(()));
    world.stop();
    assert_eq!(world.leftovers(), Vec::<String>::new());
}
