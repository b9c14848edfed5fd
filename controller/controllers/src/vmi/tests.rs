#![allow(clippy::unwrap_used)]

use std::time::Duration;

use holdfast_api::kubevirt::VirtualMachineInstance;
use holdfast_api::status::{find, phase};
use k8s_openapi::api::core::v1::PodCondition;
use k8s_openapi::jiff::Timestamp;
use serde_json::json;

use super::decide::{Pod, Step, Told, View, decide, refused};
use crate::pod::{ComputeState, PodFacts, UNPAUSED};

fn now() -> Timestamp {
    Timestamp::new(1_000_000, 0).unwrap()
}

fn vmi(phase: &str) -> VirtualMachineInstance {
    serde_json::from_value(json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
        "metadata": {"name": "a", "namespace": "n", "uid": "vmi", "resourceVersion": "5",
            "finalizers": ["kubevirt.io/foregroundDeleteVirtualMachine"],
            "annotations": {"kubevirt.io/vm-generation": "3"},
            "ownerReferences": [{"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "name": "a", "uid": "vm",
                "controller": true}]},
        "spec": {"terminationGracePeriodSeconds": 5, "domain": {"devices": {}}},
        "status": {"phase": phase},
    }))
    .unwrap()
}

fn deleting(mut vmi: VirtualMachineInstance) -> VirtualMachineInstance {
    vmi.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now()));
    vmi
}

fn condition(kind: &str, status: &str, reason: &str) -> PodCondition {
    PodCondition {
        type_: kind.into(),
        status: status.into(),
        reason: Some(reason.into()),
        message: Some("m".into()),
        ..PodCondition::default()
    }
}

/// A pod whose gate is open.
fn pod() -> PodFacts {
    PodFacts {
        uid: "pod".into(),
        owner: "vmi".into(),
        phase: "Pending".into(),
        image: Some("launcher:1".into()),
        qos_class: Some("Burstable".into()),
        conditions: vec![condition(UNPAUSED, "True", "")],
        ..PodFacts::default()
    }
}

fn at(vmi: &VirtualMachineInstance, pod: Pod<'_>, node_lost: bool) -> Step {
    decide(&View { vmi, pod, trouble: None, node_lost, owned: true, now: now() })
}

fn written(step: Step) -> VirtualMachineInstance {
    match step {
        Step::Write { vmi, .. } => *vmi,
        other => panic!("{other:?}"),
    }
}

fn ready(vmi: &VirtualMachineInstance) -> String {
    let ready = find(&vmi.status.as_ref().unwrap().conditions, "Ready").unwrap();
    format!("{} {}", ready.status, ready.reason.clone().unwrap_or_default())
}

#[test]
fn a_vmi_is_written_twice_until_it_is_scheduled() {
    let first = vmi("Pending");
    assert_eq!(at(&first, Pod::NotSeen, false), Step::MakePod);
    let mut facts = PodFacts { conditions: Vec::new(), ..pod() };
    assert_eq!(at(&first, Pod::There(&facts), false), Step::Gate { unpaused: true });
    facts = pod();
    let second = written(at(&first, Pod::There(&facts), false));
    assert_eq!((phase(&second), ready(&second).as_str()), ("Scheduling", "False GuestNotRunning"));
    let revision = second.status.as_ref().unwrap().virtual_machine_revision_name.clone();
    assert_eq!(revision.as_deref(), Some("revision-start-vm-vm-3"));

    // Bound, and its container on its way: nothing that anybody waits for.
    facts.node = Some("n1".into());
    facts.conditions.push(condition("PodScheduled", "True", ""));
    facts.compute = ComputeState::Waiting { reason: "ContainerCreating".into(), message: String::new() };
    assert_eq!(at(&second, Pod::There(&facts), false), Step::Nothing);
    facts.compute = ComputeState::Running;
    let third = written(at(&second, Pod::There(&facts), false));
    let status = third.status.as_ref().unwrap();
    assert_eq!((phase(&third), status.node_name.as_deref()), ("Scheduled", Some("n1")));
    assert_eq!(status.active_pods, [("pod".to_owned(), "n1".to_owned())].into());
    assert_eq!(status.launcher_container_image_version.as_deref(), Some("launcher:1"));
    assert_eq!(third.metadata.labels.as_ref().unwrap()["kubevirt.io/nodeName"], "n1");
    assert_eq!(at(&third, Pod::There(&facts), false), Step::Nothing);
}

#[test]
fn what_hinders_the_pod_is_told_and_untold() {
    let start = written(at(&vmi("Pending"), Pod::There(&pod()), false));
    let mut facts = pod();
    facts.conditions.push(condition("PodScheduled", "False", "Unschedulable"));
    let stuck = written(at(&start, Pod::There(&facts), false));
    let conditions = &stuck.status.as_ref().unwrap().conditions;
    assert_eq!(find(conditions, "PodScheduled").unwrap().reason.as_deref(), Some("Unschedulable"));
    assert_eq!(at(&stuck, Pod::There(&facts), false), Step::Nothing);

    let mut facts = PodFacts { node: Some("n1".into()), ..pod() };
    facts.compute = ComputeState::Waiting { reason: "ImagePullBackOff".into(), message: "no".into() };
    let pulling = written(at(&stuck, Pod::There(&facts), false));
    let conditions = &pulling.status.as_ref().unwrap().conditions;
    assert!(find(conditions, "PodScheduled").is_none());
    assert_eq!(find(conditions, "Synchronized").unwrap().reason.as_deref(), Some("ImagePullBackOff"));
    facts.compute = ComputeState::Running;
    let scheduled = written(at(&pulling, Pod::There(&facts), false));
    assert!(find(&scheduled.status.as_ref().unwrap().conditions, "Synchronized").is_none());
}

#[test]
fn what_only_events_tell_is_told_once_and_untold() {
    let facts = PodFacts { node: Some("n1".into()), ..pod() };
    let start = written(at(&vmi("Pending"), Pod::There(&facts), false));
    let told = Told { reason: "FailedCreatePodSandBox".into(), message: "no bridge".into() };
    let troubled = |vmi: &VirtualMachineInstance, facts: &PodFacts, trouble| {
        decide(&View { vmi, pod: Pod::There(facts), trouble, node_lost: false, owned: true, now: now() })
    };
    let Step::Write { vmi: stuck, told: event } = troubled(&start, &facts, Some(&told)) else { panic!() };
    assert_eq!(event.as_ref(), Some(&told));
    assert_eq!(phase(&stuck), "Scheduling");
    let condition = find(&stuck.status.as_ref().unwrap().conditions, "Synchronized").unwrap().clone();
    assert_eq!((condition.status.as_str(), condition.message.as_deref()), ("False", Some("no bridge")));
    assert_eq!(troubled(&stuck, &facts, Some(&told)), Step::Nothing);
    let mended = written(troubled(&stuck, &facts, None));
    assert!(find(&mended.status.as_ref().unwrap().conditions, "Synchronized").is_none());

    assert!(facts.waits_on_node());
    for compute in [
        ComputeState::Running,
        ComputeState::Terminated { at: None },
        ComputeState::Waiting { reason: "ErrImagePull".into(), message: String::new() },
    ] {
        assert!(!PodFacts { compute, ..facts.clone() }.waits_on_node());
    }
    assert!(!PodFacts { node: None, ..facts }.waits_on_node());
}

#[test]
fn a_pod_that_its_node_refuses_is_made_again_a_few_times() {
    let mut vmi = written(at(&vmi("Pending"), Pod::There(&pod()), false));
    for count in 1..=5_u32 {
        let mut facts = PodFacts {
            uid: format!("pod{count}"),
            phase: "Failed".into(),
            reason: "UnexpectedAdmissionError".into(),
            message: "no devices".into(),
            node: Some("n1".into()),
            bound: Some(now()),
            ..pod()
        };
        let Step::Write { vmi: noted, told } = at(&vmi, Pod::There(&facts), false) else { panic!("{count}") };
        assert_eq!(told.unwrap().reason, "UnexpectedAdmissionError");
        assert_eq!(phase(&noted), "Scheduling");
        let why = find(&noted.status.as_ref().unwrap().conditions, "Synchronized").unwrap();
        assert!(why.message.as_ref().unwrap().ends_with("no devices"));
        assert_eq!(at(&noted, Pod::There(&facts), false), Step::Wait(Duration::from_secs(1 << (count - 1))));
        facts.bound = Some(now() - Duration::from_secs(60));
        let delete = Step::DeletePod { uid: facts.uid.clone(), grace: 0 };
        assert_eq!(at(&noted, Pod::There(&facts), false), delete);
        facts.deleting = true;
        assert_eq!(at(&noted, Pod::There(&facts), false), Step::Nothing);
        assert_eq!(at(&noted, Pod::NotSeen, false), Step::Confirm, "a cache is no proof");
        assert_eq!(at(&noted, Pod::Gone, false), Step::MakePod);
        vmi = *noted;
    }
    let last = PodFacts { uid: "pod6".into(), phase: "Failed".into(), ..pod() };
    assert_eq!(phase(&written(at(&vmi, Pod::There(&last), false))), "Failed");
    // One that started something is an end.
    let ran = PodFacts { ran: true, ..last };
    let fresh = self::vmi("Scheduling");
    assert_eq!(phase(&written(at(&fresh, Pod::There(&ran), false))), "Failed");
}

#[test]
fn what_hinders_the_vmi_is_told_once() {
    let why = Told { reason: "AddressConflict".into(), message: "192.0.2.1 is held by n/b".into() };
    let told = refused(&vmi("Pending"), &why, now());
    let conditions = &told.status.as_ref().unwrap().conditions;
    assert_eq!(find(conditions, "Synchronized").unwrap().reason.as_deref(), Some("AddressConflict"));
    assert_eq!(phase(&told), "Pending");
    assert_eq!(refused(&told, &why, now() + Duration::from_secs(9)), told);
    assert_eq!(at(&told, Pod::NotSeen, false), Step::MakePod, "it is tried again");
}

#[test]
fn a_running_vmi_is_virt_handlers() {
    let mut running = vmi("Running");
    let mut facts = PodFacts { node: Some("n1".into()), phase: "Running".into(), ..pod() };
    facts.compute = ComputeState::Running;
    facts.conditions.push(condition("Ready", "False", "x"));
    assert_eq!(at(&running, Pod::There(&facts), false), Step::Nothing);
    facts.deleting = true;
    assert_eq!(at(&running, Pod::There(&facts), false), Step::Nothing, "its guest is shutting down");
    facts.deleting = false;
    let paused = json!([{"type": "Paused", "status": "True"}]);
    running.status.as_mut().unwrap().conditions = serde_json::from_value(paused).unwrap();
    assert_eq!(at(&running, Pod::There(&facts), false), Step::Gate { unpaused: false });
}

#[test]
fn an_end_that_nobody_tells_is_told_after_a_while() {
    let running = vmi("Running");
    let mut facts = PodFacts { phase: "Succeeded".into(), ..pod() };
    facts.compute = ComputeState::Terminated { at: Some(now() - Duration::from_secs(5)) };
    assert_eq!(at(&running, Pod::There(&facts), false), Step::Wait(Duration::from_secs(10)));
    facts.compute = ComputeState::Terminated { at: Some(now() - Duration::from_secs(16)) };
    let end = written(at(&running, Pod::There(&facts), false));
    assert_eq!((phase(&end), ready(&end).as_str()), ("Succeeded", "False GuestNotRunning"));
    // One that never got so far was never virt-handler's.
    let starting = vmi("Scheduling");
    (facts.phase, facts.ran) = ("Failed".into(), true);
    facts.compute = ComputeState::Terminated { at: Some(now()) };
    assert_eq!(phase(&written(at(&starting, Pod::There(&facts), false))), "Failed");
}

#[test]
fn a_lost_pod_is_an_end_once_it_is_sure() {
    for state in ["Scheduling", "Scheduled", "Running"] {
        let vmi = vmi(state);
        assert_eq!(at(&vmi, Pod::NotSeen, false), Step::Confirm, "{state}");
        let end = written(at(&vmi, Pod::Gone, false));
        assert_eq!((phase(&end), ready(&end).as_str()), ("Failed", "False PodNotExists"));
        assert!(!end.metadata.finalizers.unwrap().is_empty(), "it stays until it is deleted");
    }
    for state in ["Succeeded", "Failed"] {
        assert_eq!(at(&vmi(state), Pod::NotSeen, false), Step::Nothing);
    }
}

#[test]
fn a_vmi_goes_only_after_its_pod_is_gone_for_good() {
    for state in ["", "Pending", "Scheduling", "Scheduled", "Running", "Succeeded", "Failed"] {
        let vmi = deleting(vmi(state));
        let mut facts = pod();
        let delete = Step::DeletePod { uid: "pod".into(), grace: 20 };
        assert_eq!(at(&vmi, Pod::There(&facts), false), delete, "{state}");
        facts.deleting = true;
        for node_lost in [false, true] {
            if let Step::Write { vmi, .. } = at(&vmi, Pod::There(&facts), node_lost) {
                assert!(!vmi.metadata.finalizers.unwrap().is_empty(), "{state}");
            }
        }
        assert_eq!(at(&vmi, Pod::NotSeen, false), Step::Confirm, "{state}: a cache is no proof");
        let end = written(at(&vmi, Pod::Gone, false));
        assert!(end.metadata.finalizers.as_ref().unwrap().is_empty(), "{state}");
        assert!(matches!(phase(&end), "Succeeded" | "Failed"), "{state}");
        if matches!(state, "Succeeded" | "Failed") {
            assert_eq!(phase(&end), state);
        }
    }
}

#[test]
fn a_lost_node_fails_its_vmis_and_lets_none_go() {
    let mut vmi = vmi("Running");
    vmi.status.as_mut().unwrap().node_name = Some("n1".into());
    let facts = PodFacts { node: Some("n1".into()), phase: "Running".into(), ..pod() };
    let Step::Write { vmi: end, told } = at(&vmi, Pod::There(&facts), true) else { panic!() };
    assert_eq!((phase(&end), end.status.as_ref().unwrap().reason.as_deref()), ("Failed", Some("NodeUnresponsive")));
    assert_eq!(ready(&end), "False GuestNotRunning");
    assert!(told.unwrap().message.contains("virt-handler on node n1 is not responsive"));
    assert!(!end.metadata.finalizers.as_ref().unwrap().is_empty());
    assert_eq!(at(&end, Pod::There(&facts), true), Step::Nothing);
}

#[test]
fn a_vmi_without_its_vm_is_held_by_nobody() {
    let mut last = deleting(vmi("Failed"));
    let of_vm = "kubevirt.io/virtualMachineControllerFinalize";
    last.metadata.finalizers.as_mut().unwrap().push(of_vm.to_owned());
    let go = |owned| decide(&View { vmi: &last, pod: Pod::Gone, trouble: None, node_lost: false, owned, now: now() });
    assert_eq!(written(go(true)).metadata.finalizers.unwrap(), [of_vm]);
    assert!(written(go(false)).metadata.finalizers.unwrap().is_empty());
}
