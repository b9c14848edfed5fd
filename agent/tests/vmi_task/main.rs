//! The task of a VMI against a launcher with state, in real network namespaces with the real wiring.

#![allow(clippy::unwrap_used, reason = "clippy sees #[test] functions only; in a test a panic is the message")]

mod fake;
mod sandbox;

use std::time::Duration;

use fake::{Fake, Order, Seen};
use holdfast_agent::repairs::Repairs;
use holdfast_agent::vmi::launcher::{Launcher, LauncherError};
use holdfast_agent::vmi::{
    CommandError, NicInput, Timing, VmiContext, VmiInput, VmiMetrics, VmiReport, VmiTask, Wanted, record, wire,
};
use holdfast_agent_api::launcher::{DomainState, FailureClass, PauseReason};
use holdfast_net::kernel::{Wiring, WiringOptions};
use holdfast_net::model::Delivery;
use sandbox::{TestSandbox, ip};
use serde_json::json;

const UID: &str = "3b1c5d0e-0000-4000-8000-000000000001";
const PATIENCE: Duration = Duration::from_secs(20);

/// Not a test by itself: the process of [`Fake`].
#[test]
fn fake_launcher_process() {
    fake::main();
}

fn context(sandbox: &TestSandbox) -> VmiContext {
    let timing = Timing {
        check: Duration::from_millis(200),
        launcher_start: Duration::from_millis(500),
        launcher_refuses: Duration::from_millis(200),
        ..Timing::default()
    };
    VmiContext {
        state: sandbox.state(),
        wiring: Wiring::open(WiringOptions { ovsdb: None }).unwrap(),
        emulation: true,
        capabilities: Default::default(),
        repairs: Repairs::default(),
        timing,
        metrics: VmiMetrics::default(),
    }
}

/// A context for a launcher that takes its time to start.
fn patient(sandbox: &TestSandbox) -> VmiContext {
    let mut context = context(sandbox);
    context.timing.launcher_start = PATIENCE;
    context.timing.launcher_refuses = PATIENCE;
    context
}

/// A VMI with a masquerade NIC on eth0 and a bridge NIC, served by DHCP, on pod1.
fn input(sandbox: &TestSandbox) -> VmiInput {
    let vmi = json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
        "metadata": {"name": "web", "namespace": "default", "uid": UID},
        "spec": {
            "domain": {
                "cpu": {"cores": 2},
                "devices": {
                    "interfaces": [{"name": "default", "masquerade": {}}, {"name": "lan", "bridge": {}}],
                    "networkInterfaceMultiqueue": true
                }
            },
            "networks": [{"name": "default", "pod": {}}, {"name": "lan", "multus": {"networkName": "lan"}}]
        }
    });
    let nic = |name: &str, pod_interface: &str| NicInput {
        interface: name.to_owned(),
        network: name.to_owned(),
        pod_interface: pod_interface.parse().unwrap(),
        mac: None,
        delivery: None,
    };
    let mut lan = nic("lan", "pod1");
    lan.mac = Some("02:00:00:00:00:aa".parse().unwrap());
    lan.delivery = Some(Delivery {
        addresses: vec!["192.0.2.7/24".parse().unwrap()],
        gateways: vec!["192.0.2.1".parse().unwrap()],
        dhcp_v4: true,
        ..Delivery::default()
    });
    VmiInput {
        vmi: serde_json::from_value(vmi).unwrap(),
        sandbox: sandbox.sandbox(),
        nics: vec![nic("default", "eth0"), lan],
        wanted: Wanted::Run,
    }
}

fn two_nics() -> TestSandbox {
    TestSandbox::new(&[
        ("eth0", "02:00:00:00:01:01", "10.244.0.5/24"),
        ("pod1", "02:00:00:00:01:02", "198.51.100.9/24"),
    ])
}

async fn until(task: &VmiTask, what: &str, mut holds: impl FnMut(&VmiReport) -> bool) -> VmiReport {
    let mut report = task.report();
    // Cloned at once: what wait_for returns holds a lock, which a second look at the report would wait for.
    let search = async { report.wait_for(|report| holds(report)).await.unwrap().clone() };
    match tokio::time::timeout(PATIENCE, search).await {
        Ok(found) => found,
        Err(_) => panic!("not {what}; the last report is {:#?}", task.report().borrow()),
    }
}

async fn running(task: &VmiTask) -> VmiReport {
    until(task, "running", |report| report.domain.state == DomainState::Running && report.launcher_pid.is_some()).await
}

fn seen(fake: &Fake) -> Seen {
    fake.order(&Order::Tell)
}

/// Waits until the fake was told something.
async fn until_told(fake: &Fake, what: &str, mut holds: impl FnMut(&Seen) -> bool) -> Seen {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let seen = seen(fake);
        if holds(&seen) {
            return seen;
        }
        assert!(tokio::time::Instant::now() < deadline, "the launcher was not told: {what}: {seen:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nics_are_wired_and_their_dhcp_reaches_the_launcher() {
    let sandbox = two_nics();
    let task = VmiTask::spawn(patient(&sandbox), input(&sandbox));
    let fake = Fake::start(Some(&sandbox.id), &sandbox.share(), UID);
    let report = running(&task).await;
    assert_eq!(report.failure, None);
    let nic = |at: usize| (report.nics[at].name.as_str(), report.nics[at].mac.to_string(), report.nics[at].masquerade);
    assert_eq!(nic(0), ("default", "02:00:00:00:01:01".to_owned(), true));
    assert_eq!(nic(1), ("lan", "02:00:00:00:00:aa".to_owned(), false));
    assert_eq!(report.nics[0].addresses, ["10.244.0.5/24".parse().unwrap()]);
    assert_eq!(report.nics[1].addresses, ["192.0.2.7/24".parse().unwrap()]);

    let seen = seen(&fake);
    assert_eq!((seen.syncs, seen.nics.len(), seen.sockets, seen.emulation), (1, 2, 2, true));
    for nic in &seen.nics {
        let tap = sandbox.link(nic.tap.as_str());
        assert_eq!(tap["linkinfo"]["info_data"]["user"].to_string().trim_matches('"'), "107", "{tap:#}");
        assert_eq!(nic.queues, 2);
    }
    assert!(sandbox.link("eth0")["addr_info"].to_string().contains("10.244.0.5"), "masquerade keeps the pod's");
    assert!(!sandbox.link("pod1")["addr_info"].to_string().contains("198.51.100.9"), "the guest has it now");
    for at in 0..2 {
        fake.order::<Result<(), String>>(&Order::SendDhcp { nic: at, socket: at }).unwrap();
    }

    let record = record::load(&sandbox.state(), &sandbox.id).unwrap();
    let recorded = &record[&"pod1".parse().unwrap()];
    assert_eq!(recorded.mac.to_string(), "02:00:00:00:01:02");
    assert_eq!(recorded.addresses, ["198.51.100.9/24".parse().unwrap()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_restarts_changes_nothing() {
    let sandbox = two_nics();
    let fake = Fake::start(Some(&sandbox.id), &sandbox.share(), UID);
    let task = VmiTask::spawn(patient(&sandbox), input(&sandbox));
    let before = running(&task).await;
    let links = sandbox.links();
    drop(task);

    let again = VmiTask::spawn(patient(&sandbox), input(&sandbox));
    assert_eq!(running(&again).await, before);
    let told = until_told(&fake, "a sync of the new agent", |seen| seen.syncs == 2).await;
    assert_eq!(sandbox.links(), links);
    let context = context(&sandbox);
    let (_, steps) = wire::wire(&context.wiring, &context.state, &input(&sandbox), &[]).await.unwrap();
    assert!(steps.is_empty(), "the plan is not empty: {steps:?}");
    assert_eq!(told.sockets, 2);
    fake.order::<Result<(), String>>(&Order::SendDhcp { nic: 1, socket: 1 }).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_connection_is_made_again() {
    let sandbox = two_nics();
    let fake = Fake::start(Some(&sandbox.id), &sandbox.share(), UID);
    let context = patient(&sandbox);
    let task = VmiTask::spawn(context.clone(), input(&sandbox));
    running(&task).await;
    let links = sandbox.links();
    assert!(fake.order::<bool>(&Order::Cut));
    until_told(&fake, "a sync on the new connection", |seen| seen.syncs == 2).await;
    running(&task).await;
    assert_eq!(sandbox.links(), links);
    assert!(context.metrics.launcher_disconnects.get() >= 1);

    task.pause().await.unwrap();
    let paused = DomainState::Paused { reason: PauseReason::User };
    until(&task, "paused", |report| report.domain.state == paused).await;
    assert!(matches!(task.pause().await, Err(CommandError::AlreadyPaused)));
    assert!(matches!(task.soft_reboot().await, Err(CommandError::Paused)));
    task.unpause().await.unwrap();
    running(&task).await;
    assert_eq!(task.unpause().await.unwrap_err().to_string(), "VMI is not paused");
    assert!(matches!(task.guest_info().await, Err(CommandError::NoGuestAgent)));
    task.reset().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn drift_is_repaired() {
    let sandbox = two_nics();
    let _fake = Fake::start(Some(&sandbox.id), &sandbox.share(), UID);
    let mut context = patient(&sandbox);
    // What is repaired is so because the kernel tells of it.
    context.timing.check = Duration::from_secs(3600);
    let task = VmiTask::spawn(context.clone(), input(&sandbox));
    running(&task).await;
    let mut times = 0;
    for (change, repair) in [
        (&["link", "set", "k6t-eth0", "mtu", "1300"][..], "set k6t-eth0 mtu 1450"),
        (&["address", "flush", "dev", "k6t-eth0"], "add address 10.0.2.1/24"),
        (&["link", "delete", "tap0"], "create tap tap0"),
    ] {
        ip(&[&["-n", &sandbox.id], change].concat());
        let report = until(&task, "repaired", |report| report.repairs.0 > times).await;
        assert!(report.repairs.1.contains(repair), "{:?}", report.repairs);
        times = report.repairs.0;
    }
    assert_eq!(sandbox.link("k6t-eth0")["mtu"], 1450);
    let tables = nft(&sandbox.id, &["list", "tables"]);
    let table = tables.lines().next().unwrap();
    nft(&sandbox.id, &[&["delete"], &table.split_whitespace().collect::<Vec<_>>()[..]].concat());
    let report = until(&task, "repaired", |report| report.repairs.0 > times).await;
    assert!(report.repairs.1.contains("table"), "{:?}", report.repairs);
    assert!(context.metrics.drift_repairs.get() >= 4);
}

/// Runs nft(8) in a namespace.
fn nft(netns: &str, arguments: &[&str]) -> String {
    let output =
        std::process::Command::new("ip").args(["netns", "exec", netns, "nft"]).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_is_told_by_event_by_file_or_by_silence() {
    for (last_words, event) in [(false, true), (true, false), (false, false)] {
        let sandbox = two_nics();
        let mut fake = Fake::start(Some(&sandbox.id), &sandbox.share(), UID);
        let task = VmiTask::spawn(patient(&sandbox), input(&sandbox));
        running(&task).await;
        if last_words || event {
            assert!(fake.order::<bool>(&Order::End { last_words, event }));
        } else {
            fake.kill();
        }
        let report = until(&task, "final", |report| report.final_state().is_some()).await;
        let end = report.final_state().unwrap();
        let expected = if last_words || event { (true, "Shutdown") } else { (false, "LauncherLost") };
        assert_eq!((end.succeeded, end.reason.as_str()), expected);
        assert!(matches!(task.pause().await, Err(CommandError::NotRunning)));

        // An agent that was away meanwhile learns it, too; but for the event, which is over.
        drop(task);
        let late = VmiTask::spawn(context(&sandbox), input(&sandbox));
        let report = until(&late, "final", |report| report.final_state().is_some()).await;
        let expected = if last_words { (true, "Shutdown") } else { (false, "LauncherLost") };
        let end = report.final_state().unwrap();
        assert_eq!((end.succeeded, end.reason.as_str()), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_is_passed_on_once() {
    let sandbox = two_nics();
    let fake = Fake::start(Some(&sandbox.id), &sandbox.share(), UID);
    let task = VmiTask::spawn(patient(&sandbox), input(&sandbox));
    running(&task).await;
    task.shutdown(30);
    let report = until(&task, "stopping", |report| report.domain.state == DomainState::ShuttingDown).await;
    assert_eq!(seen(&fake).shutdown, Some(30));
    assert!(report.stopping.is_none() || report.stopping == Some(30));
    until(&task, "known to be stopping", |report| report.stopping == Some(30)).await;
    assert!(fake.order::<bool>(&Order::End { last_words: true, event: true }));
    let report = until(&task, "final", |report| report.final_state().is_some()).await;
    assert!(report.final_state().unwrap().succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_from_elsewhere_is_refused() {
    let sandbox = two_nics();
    let fake = Fake::start(None, &sandbox.share(), UID);
    let task = VmiTask::spawn(patient(&sandbox), input(&sandbox));
    let report = until(&task, "refused", |report| report.failure.is_some()).await;
    let failure = report.failure.unwrap();
    assert_eq!((failure.class, failure.reason.as_str()), (FailureClass::Conflict, "LauncherRefused"));
    assert!(failure.message.contains("does not live in the network namespace"), "{}", failure.message);
    assert_eq!(seen(&fake).syncs, 0);

    let other = two_nics();
    let _launcher = Fake::start(Some(&other.id), &other.share(), "another-uid");
    let launcher = Launcher::of(&input(&other));
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let error = loop {
        match launcher.attach(Duration::from_secs(5)).await {
            Err(LauncherError::Absent { .. }) => assert!(tokio::time::Instant::now() < deadline),
            Err(error) => break error,
            Ok(_) => panic!("the launcher of another VMI was taken"),
        }
    };
    assert!(matches!(error, LauncherError::OtherVmi { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_wired_is_told_by_name_and_nothing_is_started() {
    let sandbox = two_nics();
    let fake = Fake::start(Some(&sandbox.id), &sandbox.share(), UID);
    let mut wrong = input(&sandbox);
    wrong.nics[1].pod_interface = "pod9".parse().unwrap();
    let links = sandbox.links();
    let task = VmiTask::spawn(patient(&sandbox), wrong);
    let report = until(&task, "failed", |report| report.failure.is_some()).await;
    let message = report.failure.unwrap().message;
    assert!(message.contains("`pod9`"), "{message}");
    assert_eq!(seen(&fake).syncs, 0);
    assert_eq!(sandbox.links(), links);

    // A change of the input is enough.
    task.update(input(&sandbox));
    let report = running(&task).await;
    assert_eq!(report.failure, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_touched_before_it_is_on_record() {
    let sandbox = two_nics();
    // A folder where the record's temporary file would be: it cannot be written.
    let blocker = sandbox.state().join("bindings").join(format!("{}.tmp", sandbox.id));
    std::fs::create_dir_all(&blocker).unwrap();
    let links = sandbox.links();
    let task = VmiTask::spawn(patient(&sandbox), input(&sandbox));
    let report = until(&task, "failed", |report| report.failure.is_some()).await;
    assert_eq!(report.failure.unwrap().reason, "RecordUnavailable");
    assert_eq!(sandbox.links(), links);
    std::fs::remove_dir(&blocker).unwrap();
    until(&task, "wired", |report| report.nics.len() == 2).await;
    assert_ne!(sandbox.links(), links);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_dies_half_way_is_finished_by_the_next() {
    let whole = two_nics();
    let context = patient(&whole);
    wire::wire(&context.wiring, &context.state, &input(&whole), &[]).await.unwrap();
    let names = |sandbox: &TestSandbox| {
        let names = sandbox.links().into_iter().map(|link| link["ifname"].to_string());
        names.collect::<std::collections::BTreeSet<_>>()
    };
    let record_of = |sandbox: &TestSandbox| record::load(&sandbox.state(), &sandbox.id).unwrap();

    let mut cut_short = 0;
    for micros in (0..20).map(|step| step * 4000) {
        let sandbox = two_nics();
        let task = VmiTask::spawn(patient(&sandbox), input(&sandbox));
        // The moment of its death; the rest waits for conditions.
        tokio::time::sleep(Duration::from_micros(micros)).await;
        let done = task.report().borrow().nics.len() == 2;
        drop(task);
        cut_short += usize::from(!done);
        // A step of the dead one may still be under way, which makes the next one try again.
        let next = VmiTask::spawn(patient(&sandbox), input(&sandbox));
        until(&next, "wired", |report| report.nics.len() == 2 && report.failure.is_none()).await;
        assert_eq!(names(&sandbox), names(&whole), "after {micros} us");
        assert_eq!(record_of(&sandbox), record_of(&whole), "after {micros} us");
    }
    assert!(cut_short > 0, "no task was cut short");
}
