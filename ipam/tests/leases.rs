//! Leases in files: the lock, its end, and what a SIGKILL leaves.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use holdfast_api::lease::Claim;
use holdfast_ipam::leases::{
    AllocateError, Allocation, FileStore, Lease, LeaseError, LeaseKind, LeaseStore, OpenError, Place, Request,
    allocate, bind, is_quarantined, release, sweep, unbind,
};
use holdfast_ipam::network::{Addressing, Neighbour, resolve};
use serde_json::json;

fn network() -> Addressing {
    let config = json!({
        "cniVersion": "1.1.0", "name": "lab", "segment": "lab", "type": "holdfast", "backend": "linux-bridge", "bridge": "br0",
        "subnets": [
            {"cidr": "192.0.2.0/24", "gateway": "192.0.2.1", "ranges": [{"start": "192.0.2.10", "end": "192.0.2.13"}],
             "exclude": ["192.0.2.200/32"]},
            {"cidr": "2001:db8::/64"}],
    });
    resolve(&config, None, &BTreeMap::new()).unwrap().addressing
}

fn claim(name: &str) -> Claim {
    Claim {
        uid: format!("uid-{name}"),
        kind: "VirtualMachine".into(),
        namespace: "lab".into(),
        name: name.into(),
        network: "lan".into(),
    }
}

async fn ask(store: &FileStore, name: &str, ips: &[&str]) -> Result<Allocation, AllocateError> {
    ask_of(network(), store, name, ips).await
}

async fn ask_of(network: Addressing, store: &FileStore, name: &str, ips: &[&str]) -> Result<Allocation, AllocateError> {
    let ips: Vec<IpAddr> = ips.iter().map(|ip| ip.parse().unwrap()).collect();
    let claim = claim(name);
    allocate(store, &Request { network: &network, claim: &claim, mac: None, ips: &ips, labels: &[] }).await
}

fn count(root: &Path) -> usize {
    ["ipleases", "macleases"].iter().map(|kind| fs::read_dir(root.join(kind)).unwrap().count()).sum()
}

#[tokio::test]
async fn a_claim_keeps_what_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::open(folder.path()).unwrap();
    let first = ask(&store, "a", &[]).await.unwrap();
    assert_eq!(first.addresses.len(), 2);
    assert!(network().subnets[0].ranges[0].start <= first.addresses[0].ip());
    assert_eq!(first.addresses[0].prefix(), 24);
    assert_eq!(ask(&store, "a", &[]).await.unwrap(), first);
    drop(store);
    let store = FileStore::open(folder.path()).unwrap();
    assert_eq!(ask(&store, "a", &[]).await.unwrap(), first);
    assert_ne!(ask(&store, "b", &[]).await.unwrap().addresses[0], first.addresses[0]);
}

#[tokio::test]
async fn a_conflict_names_the_holder_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::open(folder.path()).unwrap();
    ask(&store, "a", &["192.0.2.77"]).await.unwrap();
    let before = count(folder.path());
    let error = ask(&store, "b", &["192.0.2.78", "192.0.2.77"]).await.unwrap_err();
    let text = error.to_string();
    assert_eq!(text, "address 192.0.2.77 on segment `lab` is held by VirtualMachine `lab/a`, network `lan`");
    assert_eq!((count(folder.path()), error.reason()), (before, "AddressConflict"));
    // 192.0.2.78 was taken for a moment, and is free again.
    ask(&store, "c", &["192.0.2.78"]).await.unwrap();
}

#[tokio::test]
async fn what_must_not_be_given_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::open(folder.path()).unwrap();
    for ip in ["192.0.2.0", "192.0.2.1", "192.0.2.255", "192.0.2.200"] {
        let error = ask(&store, "a", &[ip]).await.unwrap_err();
        assert!(matches!(error, AllocateError::Reserved { .. }), "{ip}: {error}");
    }
    let error = ask(&store, "a", &["198.51.100.1"]).await.unwrap_err();
    assert!(error.to_string().contains("192.0.2.0/24, 2001:db8::/64"), "{error}");
    for name in ["a", "b", "c", "d"] {
        ask(&store, name, &[]).await.unwrap();
    }
    let before = count(folder.path());
    let error = ask(&store, "e", &[]).await.unwrap_err();
    assert!(matches!(error, AllocateError::Exhausted { .. }), "{error}");
    assert_eq!(count(folder.path()), before);
    // Outside the ranges, but of the subnet, and asked for.
    ask(&store, "e", &["192.0.2.99"]).await.unwrap();
}

#[tokio::test]
async fn what_one_network_of_a_segment_keeps_back_none_gives_out() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::open(folder.path()).unwrap();
    let subnet = json!({"cidr": "192.0.2.0/28", "gateway": "192.0.2.12", "exclude": ["192.0.2.10/31"],
        "dns": {"servers": ["192.0.2.53"]}});
    let other = Neighbour { name: "lan".to_owned(), subnets: serde_json::from_value(json!([subnet])).unwrap() };
    let lan2 = || Addressing { neighbours: vec![other.clone()], ..network() };
    for ip in ["192.0.2.10", "192.0.2.11", "192.0.2.12", "192.0.2.15", "192.0.2.53"] {
        let error = ask_of(lan2(), &store, "a", &[ip]).await.unwrap_err();
        let begin = format!("address {ip} on segment `lab` is kept back by UnderlayNetwork `lan`");
        assert!(error.to_string().starts_with(&begin), "{error}");
        assert_eq!(error.reason(), "AddressInvalid");
    }
    // Of the four addresses of the range.
    let got = ask_of(lan2(), &store, "a", &[]).await.unwrap();
    assert_eq!(got.addresses[0].to_string(), "192.0.2.13/24");
    let error = ask_of(lan2(), &store, "b", &[]).await.unwrap_err();
    assert_eq!(error.reason(), "AddressesExhausted");
    assert!(error.to_string().contains("; what UnderlayNetwork `lan` keeps back"), "{error}");
    // Who has one since before keeps it.
    let before = ask(&store, "c", &[]).await.unwrap();
    assert_eq!(ask_of(lan2(), &store, "c", &[]).await.unwrap(), before);
}

#[tokio::test]
async fn a_network_that_goes_is_for_those_who_are_there() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::open(folder.path()).unwrap();
    let going = || Addressing { deleting: true, underlay: Some("lan".to_owned()), ..network() };
    let held = ask(&store, "a", &[]).await.unwrap();
    assert_eq!(ask_of(going(), &store, "a", &[]).await.unwrap(), held);
    let error = ask_of(going(), &store, "b", &[]).await.unwrap_err();
    assert!(error.to_string().starts_with("UnderlayNetwork `lan` is being deleted"), "{error}");
    assert_eq!(error.reason(), "FailedAttachNetwork");
    release(&store, "lab", &claim("a")).await.unwrap();
    assert!(ask_of(going(), &store, "a", &[]).await.is_err(), "what was given up is not taken back");
}

#[tokio::test]
async fn what_is_not_asked_for_any_more_is_given_up_once_it_is_out_of_use() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::open(folder.path()).unwrap();
    ask(&store, "a", &["192.0.2.77"]).await.unwrap();
    let place = Place { node: "n".into(), pod: "p".into(), container_id: "c".into() };
    bind(&store, "lab", &claim("a"), &place).await.unwrap();
    ask(&store, "a", &["192.0.2.78"]).await.unwrap();
    let quarantined = || async {
        let leases = store.list(LeaseKind::Ip).await.unwrap();
        leases.iter().filter(|lease| is_quarantined(lease)).map(Lease::address).collect::<Vec<_>>()
    };
    assert!(quarantined().await.is_empty());
    unbind(&store, "lab", &claim("a"), "c").await.unwrap();
    ask(&store, "a", &["192.0.2.78"]).await.unwrap();
    assert_eq!(quarantined().await, ["192.0.2.77"]);
}

#[tokio::test]
async fn many_at_once_never_share() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::open(folder.path()).unwrap();
    let names: Vec<String> = (0..40).map(|n| format!("vm{n}")).collect();
    let asked = names.iter().map(|name| ask(&store, name, &[]));
    let got = futures::future::join_all(asked).await;
    let addresses: Vec<_> = got.iter().flatten().map(|allocation| allocation.addresses[0]).collect();
    assert_eq!(addresses.len(), 4);
    assert_eq!(addresses.iter().collect::<std::collections::BTreeSet<_>>().len(), 4);
    let same = futures::future::join_all((0..20).map(|_| ask(&store, "vm-same", &["192.0.2.50"]))).await;
    assert!(same.windows(2).all(|pair| pair[0].as_ref().unwrap() == pair[1].as_ref().unwrap()));
}

#[tokio::test]
async fn a_released_address_waits_out_its_quarantine() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::open(folder.path()).unwrap();
    let first = ask(&store, "a", &["192.0.2.77"]).await.unwrap();
    release(&store, "lab", &claim("a")).await.unwrap();
    release(&store, "lab", &claim("a")).await.unwrap();
    assert_eq!(sweep(&store, Duration::from_secs(60)).await.unwrap(), 0);
    let error = ask(&store, "b", &["192.0.2.77"]).await.unwrap_err();
    assert!(error.to_string().ends_with("Z, and in quarantine for a minute)"), "{error}");
    // Its own claim may come back, and then it stays.
    assert_eq!(ask(&store, "a", &[]).await.unwrap(), first);
    assert_eq!(sweep(&store, Duration::ZERO).await.unwrap(), 0);
    release(&store, "lab", &claim("a")).await.unwrap();
    // One address of each family, and the MAC.
    assert_eq!(sweep(&store, Duration::ZERO).await.unwrap(), 3);
    assert_eq!(count(folder.path()), 0);
    ask(&store, "b", &["192.0.2.77"]).await.unwrap();
}

#[tokio::test]
async fn who_is_made_again_under_its_name_waits_for_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::open(folder.path()).unwrap();
    let ask = async |claim: &Claim| {
        let (network, ips) = (network(), ["192.0.2.77".parse().unwrap()]);
        let mac = Some("02:00:00:00:00:77".parse().unwrap());
        allocate(&store, &Request { network: &network, claim, mac, ips: &ips, labels: &[] }).await
    };
    let first = ask(&claim("a")).await.unwrap();
    let again = Claim { uid: "another".into(), ..claim("a") };
    let held = ask(&again).await.unwrap_err();
    assert_eq!(held.reason(), "AddressConflict", "the one before has not let go: {held}");
    release(&store, "lab", &claim("a")).await.unwrap();
    for stranger in [
        Claim { namespace: "other".into(), ..again.clone() },
        Claim { network: "wan".into(), ..again.clone() },
        Claim { kind: "VirtualMachineInstance".into(), ..again.clone() },
        claim("b"),
    ] {
        assert!(ask(&stranger).await.is_err(), "{stranger:?}");
    }
    let second = ask(&again).await.unwrap();
    assert_eq!((second.mac, second.addresses[0]), (first.mac, first.addresses[0]));
    let leases = store.list(LeaseKind::Ip).await.unwrap();
    let lease = leases.iter().find(|lease| lease.address() == "192.0.2.77").unwrap();
    assert_eq!((lease.claim(), is_quarantined(lease)), (&again, false));
    // What the one before is told now changes nothing any more.
    release(&store, "lab", &claim("a")).await.unwrap();
    assert_eq!(ask(&again).await.unwrap(), second);
    assert!(ask(&claim("a")).await.is_err());
}

#[tokio::test]
async fn a_status_is_written_by_who_has_read_it_last() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::open(folder.path()).unwrap();
    ask(&store, "a", &["192.0.2.77"]).await.unwrap();
    let name = "lab.c000024d";
    let stale = store.get(LeaseKind::Ip, name).await.unwrap().unwrap();
    let place = Place { node: "n".into(), pod: "p".into(), container_id: "c".into() };
    bind(&store, "lab", &claim("a"), &place).await.unwrap();
    let bound = store.get(LeaseKind::Ip, name).await.unwrap().unwrap();
    assert_eq!(bound.status().unwrap().container_id.as_deref(), Some("c"));
    assert!(matches!(store.update_status(stale.clone()).await, Err(LeaseError::Changed { .. })));
    assert!(matches!(store.delete(stale).await, Err(LeaseError::Changed { .. })));
    unbind(&store, "lab", &claim("a"), "another").await.unwrap();
    assert_eq!(store.get(LeaseKind::Ip, name).await.unwrap().unwrap(), bound);
    unbind(&store, "lab", &claim("a"), "c").await.unwrap();
    assert_eq!(store.get(LeaseKind::Ip, name).await.unwrap().unwrap().status().unwrap().node, None);
}

#[tokio::test]
async fn a_folder_has_one_process_and_no_free_address_by_accident() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::open(folder.path()).unwrap();
    assert!(matches!(FileStore::open(folder.path()), Err(OpenError::Locked(_))));
    ask(&store, "a", &["192.0.2.77"]).await.unwrap();
    drop(store);
    // A file that somebody has spoilt: its address is not free.
    fs::write(folder.path().join("ipleases/lab.c000024d.json"), "{").unwrap();
    fs::write(folder.path().join("ipleases/.half"), "{").unwrap();
    let store = FileStore::open(folder.path()).unwrap();
    assert!(!folder.path().join("ipleases/.half").exists());
    assert!(matches!(ask(&store, "b", &["192.0.2.77"]).await, Err(AllocateError::Store(_))));
}

/// Names the folder to the child of the test below; unset, that child's work is not done.
const CHILD: &str = "HOLDFAST_TEST_LEASE_FOLDER";

/// Allocates without end and says what it has been given; killed from outside.
#[test]
fn child_that_allocates_until_it_is_killed() {
    let Some(folder) = std::env::var_os(CHILD) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let store = FileStore::open(Path::new(&folder)).unwrap();
    for n in 2..255 {
        let address = format!("192.0.2.{n}");
        let result = runtime.block_on(ask(&store, &format!("vm{n}"), &[&address]));
        if result.is_ok() {
            println!("has {address} vm{n}");
        }
    }
}

#[tokio::test]
async fn a_sigkill_leaves_whole_leases_or_none() {
    for lines in [1, 3, 8, 13] {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_allocates_until_it_is_killed", "--nocapture"])
            .env(CHILD, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let told: Vec<String> = output.filter(|line| line.contains("has 192")).take(lines).collect();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(told.len(), lines);

        let store = FileStore::open(folder.path()).unwrap();
        let leases = store.list(LeaseKind::Ip).await.unwrap();
        // Each file is a lease, and each lease that was told of is there and held by whom it was given to.
        assert_eq!(fs::read_dir(folder.path().join("ipleases")).unwrap().count(), leases.len());
        for line in told {
            let mut words = line.split_whitespace().skip_while(|word| *word != "has").skip(1);
            let (address, name) = (words.next().unwrap(), words.next().unwrap());
            let lease = leases.iter().find(|lease| lease.address() == address).unwrap();
            assert_eq!(lease.claim().name, name);
            assert!(ask(&store, "thief", &[address]).await.is_err());
            assert!(!is_quarantined(lease));
            assert!(matches!(lease, Lease::Ip(_)));
        }
    }
}

/// A lease is synced before anybody is told of it: a name without content is one that nobody was told of.
#[tokio::test]
async fn what_a_power_cut_leaves_of_an_unkept_lease_is_free() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::open(folder.path()).unwrap();
    let unkept = ask(&store, "a", &["192.0.2.10"]).await.unwrap();
    ask(&store, "b", &["192.0.2.11"]).await.unwrap();
    drop(store);
    let file = |address: &str| folder.path().join(format!("ipleases/lab.{address}.json"));
    fs::write(file("c000020a"), "").unwrap();
    // What was once whole, and is something else by now, was somebody's.
    fs::write(file("c000020b"), "{").unwrap();
    for file in fs::read_dir(folder.path().join("macleases")).unwrap() {
        fs::write(file.unwrap().path(), [0; 100]).unwrap();
    }
    let store = FileStore::open(folder.path()).unwrap();
    assert!(!file("c000020a").exists());
    assert_eq!(fs::read_dir(folder.path().join("macleases")).unwrap().count(), 0);
    assert_eq!(ask(&store, "a", &["192.0.2.10"]).await.unwrap(), unkept);
    ask(&store, "c", &["192.0.2.11"]).await.unwrap_err();
}
