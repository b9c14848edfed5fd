use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::addresses::ADDRESSES_ANNOTATION;
use crate::kubevirt::{VirtualMachineInstanceTemplateSpec, VirtualMachineSpec, VirtualMachineStatus};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn vm(strategy: &str, status: Value) -> VirtualMachine {
    serde_json::from_value(json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine",
        "metadata": {"name": "w1", "namespace": "default", "uid": "vm-uid", "generation": 9,
            "finalizers": [CONTROLLER_FINALIZER]},
        "spec": {"runStrategy": strategy, "template": {
            "metadata": {"labels": {"app": "case"}, "annotations": {"a": "b"}},
            "spec": {"domain": {"devices": {}, "cpu": {"cores": 2}, "firmware": {"uuid": "fw"}},
                "volumes": [{"name": "root", "emptyDisk": {"capacity": "1Mi"}}]}}},
        "status": status,
    }))
    .unwrap()
}

fn vmi(phase: &str, conditions: Value) -> VirtualMachineInstance {
    serde_json::from_value(json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
        "metadata": {"name": "w1", "uid": "i1", "finalizers": [CONTROLLER_FINALIZER]},
        "spec": {"domain": {"devices": {}}},
        "status": {"phase": phase, "conditions": conditions},
    }))
    .unwrap()
}

fn deleting(mut vmi: VirtualMachineInstance) -> VirtualMachineInstance {
    vmi.metadata.deletion_timestamp = Some(Time(at(1)));
    vmi
}

fn start_list() -> Value {
    json!({"stateChangeRequests": [{"action": "Start"}]})
}

fn stop_list(uid: &str) -> Value {
    json!({"stateChangeRequests": [{"action": "Stop", "uid": uid}, {"action": "Start"}]})
}

/// The status of a VM that knows that the VMI of these tests failed to start.
fn counted() -> Value {
    json!({"startFailure": {"consecutiveFailCount": 1, "lastFailedVMIUID": "i1"}})
}

const CREATE: Action = Action::CreateVmi { paused: false };

fn remove(start_again: bool) -> Action {
    Action::DeleteVmi { uid: "i1".to_owned(), start_again }
}

#[test]
fn without_a_vmi() {
    let ran = |strategy: &str| json!({"runStrategy": strategy});
    let paused = json!({"stateChangeRequests": [{"action": "Start", "data": {"paused": "true"}}]});
    for (strategy, status, expected) in [
        ("Always", json!({}), CREATE),
        ("Always", ran("Always"), CREATE),
        ("Halted", json!({}), Action::Nothing),
        ("Halted", start_list(), Action::StartHalted),
        ("Manual", json!({}), Action::Nothing),
        ("Manual", start_list(), CREATE),
        ("Manual", paused, Action::CreateVmi { paused: true }),
        ("Manual", stop_list("gone"), Action::Nothing),
        ("RerunOnFailure", json!({}), CREATE),
        ("RerunOnFailure", ran("Manual"), CREATE),
        ("RerunOnFailure", ran("RerunOnFailure"), Action::Nothing),
        ("RerunOnFailure", start_list(), CREATE),
        ("Once", json!({}), CREATE),
        ("Once", ran("Once"), Action::Nothing),
        ("WaitAsReceiver", json!({}), CREATE),
        ("Sometimes", json!({}), Action::Nothing),
    ] {
        let vm = vm(strategy, status);
        assert_eq!(decide(&vm, None, at(0)), expected, "{strategy} {vm:?}");
    }
}

#[test]
fn with_a_vmi() {
    for (strategy, phase, status, expected) in [
        ("Always", "Running", json!({}), Action::Nothing),
        ("Always", "Succeeded", json!({}), Action::CountFailure),
        ("Always", "Succeeded", counted(), remove(false)),
        ("Always", "Failed", json!({}), Action::CountFailure),
        ("Always", "Failed", counted(), remove(false)),
        ("Always", "Failed", stop_list("i1"), remove(false)),
        ("Always", "Running", stop_list("i1"), remove(false)),
        ("Always", "Running", stop_list("other"), Action::Nothing),
        ("Always", "Running", start_list(), Action::Nothing),
        ("Halted", "Running", json!({}), remove(false)),
        ("Halted", "Failed", json!({}), remove(false)),
        ("Manual", "Running", json!({}), Action::Nothing),
        ("Manual", "Failed", json!({}), Action::Nothing),
        ("Manual", "Failed", stop_list("i1"), remove(false)),
        ("RerunOnFailure", "Failed", json!({}), Action::CountFailure),
        ("RerunOnFailure", "Failed", counted(), remove(true)),
        ("RerunOnFailure", "Failed", stop_list("i1"), remove(false)),
        ("RerunOnFailure", "Succeeded", counted(), Action::Nothing),
        ("Once", "Failed", json!({}), Action::Nothing),
        ("Once", "Running", stop_list("i1"), remove(false)),
    ] {
        let vm = vm(strategy, status);
        let vmi = vmi(phase, json!([]));
        let action = decide(&vm, Some(&vmi), at(0));
        assert_eq!(action, expected, "{strategy} {phase}");
    }
}

#[test]
fn the_end_of_a_vmi_and_of_a_vm() {
    let always = vm("Always", json!({}));
    let going = deleting(vmi("Running", json!([])));
    assert_eq!(decide(&always, Some(&going), at(0)), Action::Nothing);
    let mut gone = deleting(vmi("Failed", json!([])));
    assert_eq!(decide(&always, Some(&gone), at(0)), Action::ReleaseVmi);
    gone.metadata.finalizers = None;
    assert_eq!(decide(&always, Some(&gone), at(0)), Action::Nothing);

    let mut dying = always.clone();
    dying.metadata.deletion_timestamp = Some(Time(at(1)));
    let live = vmi("Running", json!([]));
    assert_eq!(decide(&dying, Some(&live), at(0)), remove(false));
    assert_eq!(decide(&dying, None, at(0)), Action::ReleaseVm);
    let mut orphaning = dying.clone();
    orphaning.metadata.finalizers.as_mut().unwrap().push("orphan".to_owned());
    assert_eq!(decide(&orphaning, Some(&live), at(0)), Action::ReleaseVm);
    dying.metadata.finalizers = None;
    assert_eq!(decide(&dying, None, at(0)), Action::Nothing);

    let mut new = always;
    new.metadata.finalizers = None;
    assert_eq!(decide(&new, None, at(0)), Action::AddFinalizer);
}

#[test]
fn a_vm_that_fails_to_start_waits_longer_each_time() {
    assert_eq!(start_backoff_seconds(1, 0.0), 10);
    assert_eq!(start_backoff_seconds(1, 0.999), 15);
    assert_eq!(start_backoff_seconds(3, 0.0), 90);
    assert_eq!(start_backoff_seconds(5, 0.999), 300);
    assert_eq!(start_backoff_seconds(i32::MAX, 0.5), 300);

    let mut vm = vm("Always", json!({}));
    let failed = vmi("Failed", json!([]));
    let mut observe = |vmi: Option<&VirtualMachineInstance>, now| {
        let status = status_of(&vm, vmi, now);
        vm.status = Some(status.clone());
        (vm.clone(), status)
    };
    let (_, first) = observe(Some(&failed), at(100));
    let failure = first.start_failure.unwrap();
    assert_eq!(failure.consecutive_fail_count, Some(1));
    assert_eq!(failure.retry_after_timestamp, Some(Time(at(110))));
    assert_eq!(first.printable_status.as_deref(), Some("CrashLoopBackOff"));
    let (_, again) = observe(Some(&failed), at(105));
    assert_eq!(again.start_failure, Some(failure), "counted once");

    let (waiting, _) = observe(None, at(106));
    let until = at(110);
    assert_eq!(decide(&waiting, None, at(106)), Action::Wait { until });
    assert_eq!(decide(&waiting, None, at(110)), CREATE);
    let (_, due) = observe(None, at(110));
    assert_eq!(due.printable_status.as_deref(), Some("Starting"));

    let mut next = failed.clone();
    next.metadata.uid = Some("i2".to_owned());
    let (_, second) = observe(Some(&next), at(111));
    let failure = second.start_failure.unwrap();
    assert_eq!(failure.consecutive_fail_count, Some(2));
    assert_eq!(failure.retry_after_timestamp, Some(Time(at(151))));
    let (_, up) = observe(Some(&vmi("Running", json!([]))), at(160));
    assert_eq!(up.start_failure, None);
}

#[test]
fn a_vmi_that_was_deleted_before_it_ran_is_no_failure() {
    let vm = vm("Always", json!({}));
    let deleted = deleting(vmi("Failed", json!([])));
    let status = status_of(&vm, Some(&deleted), at(100));
    assert_eq!(status.start_failure, None);
    assert_ne!(status.printable_status.as_deref(), Some("CrashLoopBackOff"));
    // One that failed is counted first and deleted then; that it is being deleted takes nothing back.
    let failed = vmi("Failed", json!([]));
    assert_eq!(decide(&vm, Some(&failed), at(100)), Action::CountFailure);
    let known = VirtualMachine { status: Some(status_of(&vm, Some(&failed), at(100))), ..vm };
    assert_eq!(decide(&known, Some(&failed), at(100)), remove(false));
    let status = status_of(&known, Some(&deleted), at(101));
    assert_eq!(status.start_failure.unwrap().consecutive_fail_count, Some(1));
    // One that ran is replaced at once.
    let mut ran = vmi("Failed", json!([]));
    let stamp = json!({"phase": "Running", "phaseTransitionTimestamp": "2026-01-01T00:00:00Z"});
    ran.status.as_mut().unwrap().phase_transition_timestamps = vec![serde_json::from_value(stamp).unwrap()];
    assert_eq!(decide(&known, Some(&ran), at(101)), remove(false));
}

fn status_of(vm: &VirtualMachine, vmi: Option<&VirtualMachineInstance>, now: Timestamp) -> VirtualMachineStatus {
    vm_status(&Observed { vm, vmi, started: None, hot_plug: true, failure: None, now, jitter: 0.0 })
}

fn condition(kind: &str, status: &str, reason: &str) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "lastProbeTime": null,
        "lastTransitionTime": "2026-01-01T00:00:00Z"})
}

#[test]
fn status_follows_the_vmi() {
    let not_running = condition("Ready", "False", "GuestNotRunning");
    let ready = condition("Ready", "True", "");
    let paused = condition("Paused", "True", "PausedByUser");
    let migratable = condition("LiveMigratable", "True", "");
    let pull = condition("Synchronized", "False", "ImagePullBackOff");
    for (vmi, printable, is_ready, reason, kinds) in [
        (None, "Starting", None, "VMINotExists", "Ready"),
        (Some(vmi("Pending", json!([]))), "Starting", None, "VMIConditionMissing", "Ready"),
        (
            Some(vmi("Scheduled", json!([not_running, migratable]))),
            "Starting",
            None,
            "GuestNotRunning",
            "Ready LiveMigratable",
        ),
        (Some(vmi("Running", json!([ready, migratable]))), "Running", Some(true), "", "Ready LiveMigratable"),
        (Some(vmi("Running", json!([ready, paused]))), "Paused", Some(true), "", "Ready Paused"),
        (Some(deleting(vmi("Running", json!([ready, paused])))), "Stopping", Some(true), "", "Ready Paused"),
        (
            Some(vmi("Pending", json!([not_running, pull]))),
            "ImagePullBackOff",
            None,
            "GuestNotRunning",
            "Ready Synchronized",
        ),
    ] {
        let status = status_of(&vm("Always", json!({})), vmi.as_ref(), at(50));
        assert_eq!(status.printable_status.as_deref(), Some(printable));
        assert_eq!(status.ready, is_ready, "{printable}");
        assert_eq!(status.created, vmi.is_some().then_some(true));
        let found: Vec<_> = status.conditions.iter().map(|c| c.r#type.as_str()).collect();
        assert_eq!(found.join(" "), kinds);
        assert_eq!(status.conditions[0].reason.as_deref().unwrap_or(""), reason);
        assert_eq!(status.desired_generation, Some(9));
    }
}

#[test]
fn a_stopped_vm_keeps_what_it_knew() {
    let mut vm = vm("Manual", stop_list("i1"));
    let conditions = json!([condition("Ready", "False", "PodTerminating"), condition("LiveMigratable", "True", "")]);
    let ended = deleting(vmi("Succeeded", conditions));
    let status = status_of(&vm, Some(&ended), at(1));
    assert_eq!(status.printable_status.as_deref(), Some("Stopped"));
    assert_eq!(status.state_change_requests.len(), 2, "the VMI is still there");
    vm.status = Some(status);
    let status = status_of(&vm, None, at(2));
    assert_eq!(status.printable_status.as_deref(), Some("Stopped"));
    assert_eq!(status.created, None);
    let kinds: Vec<_> = status.conditions.iter().map(|c| c.r#type.as_str()).collect();
    assert_eq!(kinds, ["Ready", "LiveMigratable"]);
    assert_eq!(status.state_change_requests.len(), 1, "the stop is done");
    assert_eq!(status.state_change_requests[0].action, "Start");
    assert_eq!(status.run_strategy.as_deref(), Some("Manual"));
    vm.status = Some(status);
    let status = status_of(&vm, Some(&vmi("Pending", json!([]))), at(3));
    assert!(status.state_change_requests.is_empty(), "the start is done");
}

#[test]
fn a_failed_controller_says_so_and_stops_saying_so() {
    let mut vm = vm("Always", json!({}));
    let failure = Failure { reason: "FailedCreate".to_owned(), message: "no room".to_owned() };
    let mut observed = Observed {
        vm: &vm.clone(),
        vmi: None,
        started: None,
        hot_plug: true,
        failure: Some(&failure),
        now: at(5),
        jitter: 0.0,
    };
    let status = vm_status(&observed);
    assert!(crate::status::is_true(&status.conditions, "Failure"));
    vm.status = Some(status);
    observed.vm = &vm;
    observed.failure = None;
    let status = vm_status(&observed);
    assert!(crate::status::find(&status.conditions, "Failure").is_none());
}

#[test]
fn template_changes_that_need_a_restart() {
    let base = json!({"spec": {
        "domain": {"devices": {"interfaces": [{"name": "n", "bridge": {}}]},
            "cpu": {"cores": 1, "sockets": 1}, "memory": {"guest": "1Gi"}},
        "networks": [{"name": "n", "multus": {"networkName": "a"}}]}});
    let started: VirtualMachineInstanceTemplateSpec = serde_json::from_value(base.clone()).unwrap();
    let vmi = started.spec.clone().unwrap();
    for (pointer, value, required) in [
        ("/spec/domain/cpu/cores", json!(2), true),
        ("/spec/domain/cpu/sockets", json!(2), false),
        ("/spec/domain/memory/guest", json!("2Gi"), false),
        ("/spec/domain/devices/interfaces/0/state", json!("down"), false),
        ("/spec/domain/devices/interfaces/0/model", json!("e1000"), true),
        ("/spec/networks/0/multus/networkName", json!("b"), false),
        ("/spec/nodeSelector", json!({"a": "b"}), false),
        ("/spec/hostname", json!("h"), true),
        ("/spec/volumes", json!([{"name": "v", "dataVolume": {"name": "d", "hotpluggable": true}}]), false),
        ("/spec/volumes", json!([{"name": "v", "emptyDisk": {"capacity": "1Mi"}}]), true),
    ] {
        let mut changed = base.clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        changed.pointer_mut(parent).unwrap()[key] = value;
        let changed = serde_json::from_value(changed).unwrap();
        assert_eq!(restart_required(&started, &changed, &vmi, true), required, "{pointer}");
    }
}

/// A template with a NIC `n` on a bridge and another one, and what a VMI of the first alone becomes.
fn with_second(nic: Value, network: Value) -> (VirtualMachine, VirtualMachineInstance) {
    let first = json!({"name": "n", "bridge": {}});
    let first_network = json!({"name": "n", "multus": {"networkName": "a"}});
    let mut vm = vm("Always", json!({}));
    let mut vmi = vmi("Running", json!([]));
    vmi.spec = serde_json::from_value(json!({
        "domain": {"devices": {"interfaces": [first]}}, "networks": [first_network]}))
    .unwrap();
    vm.spec.template.spec = serde_json::from_value(json!({
        "domain": {"devices": {"interfaces": [first, nic]}}, "networks": [first_network, network]}))
    .unwrap();
    (vm, vmi)
}

#[test]
fn nics_that_join_a_guest_that_runs() {
    let lan = json!({"name": "m", "multus": {"networkName": "b"}});
    for (nic, network, joins) in [
        (json!({"name": "m", "bridge": {}}), lan.clone(), true),
        (json!({"name": "m", "bridge": {}, "state": "down"}), lan.clone(), true),
        (json!({"name": "m", "bridge": {}, "model": "e1000e"}), lan.clone(), true),
        (json!({"name": "m", "bridge": {}, "model": "e1000"}), lan.clone(), false),
        (json!({"name": "m", "binding": {"name": "macvtap"}}), lan, false),
        (json!({"name": "m", "masquerade": {}}), json!({"name": "m", "pod": {}}), false),
        (
            json!({"name": "m", "bridge": {}}),
            json!({"name": "m", "multus": {"networkName": "b", "default": true}}),
            false,
        ),
    ] {
        let (vm, mut vmi) = with_second(nic.clone(), network);
        let started = VirtualMachineInstanceTemplateSpec { spec: Some(vmi.spec.clone()), ..Default::default() };
        let nics = live_nics(&vm, &vmi);
        assert_eq!(nics.is_some(), joins, "{nic}");
        assert_eq!(restart_required(&started, &vm.spec.template, &vmi.spec, true), !joins, "{nic}");
        assert!(restart_required(&started, &vm.spec.template, &vmi.spec, false), "{nic}");
        if let Some(nics) = nics {
            assert_eq!(nics.clone().links_only(&vmi.spec), Nics::of(&vmi.spec), "{nic}");
            assert_eq!((nics.interfaces.len(), nics.networks.len()), (2, 2));
            nics.put(&mut vmi.spec);
            assert_eq!(live_nics(&vm, &vmi), None, "{nic}");
            assert!(!restart_required(&started, &vm.spec.template, &vmi.spec, true), "{nic}");
            // Taken from the template without being unplugged first.
            let template = started.clone();
            assert!(restart_required(&started, &template, &vmi.spec, true), "{nic}");
        }
    }
}

/// The template of a VM with no more than so many of its networks.
fn template_of(vm: &VirtualMachine, networks: usize) -> VirtualMachineInstanceTemplateSpec {
    let mut template = vm.spec.template.clone();
    template.spec.as_mut().unwrap().networks.truncate(networks);
    template
}

#[test]
fn nics_that_leave_a_guest_that_runs() {
    let lan = json!({"name": "m", "multus": {"networkName": "b"}});
    let (mut vm, mut vmi) = with_second(json!({"name": "m", "bridge": {}}), lan);
    let started = vm.spec.template.clone();
    vmi.spec = vm.spec.template.spec.clone().unwrap();
    let state = |vm: &mut VirtualMachine, state: Option<&str>| {
        vm.spec.template.spec.as_mut().unwrap().domain.devices.interfaces[1].state = state.map(str::to_owned);
    };
    for wanted in ["down", "absent"] {
        state(&mut vm, Some(wanted));
        let nics = live_nics(&vm, &vmi).unwrap();
        let links = nics.clone().links_only(&vmi.spec).interfaces;
        assert_eq!(links[1].state.as_deref(), Some("down"), "that it shall go is not one of its links");
        assert_eq!(restart_required(&started, &vm.spec.template, &vmi.spec, false), wanted == "absent");
        assert_eq!(nics.interfaces[1].state.as_deref(), Some(wanted));
        nics.put(&mut vmi.spec);
    }
    // On its way out it is left alone, although it is wanted again.
    state(&mut vm, None);
    assert_eq!(live_nics(&vm, &vmi), None);
    // Its addresses are kept for as long as anybody names its network.
    assert!(has_network(&vm, Some(&vmi), "m") && has_network(&vm, None, "m"));
    let first =
        VirtualMachine { spec: VirtualMachineSpec { template: template_of(&vm, 1), ..vm.spec.clone() }, ..vm.clone() };
    assert!(has_network(&first, Some(&vmi), "m") && !has_network(&first, None, "m"));
    assert!(has_network(&first, None, "n"));
    // Gone, it is out for as long as the template says so, and comes back after that.
    Nics::of(&vmi.spec).without(is_absent).put(&mut vmi.spec);
    assert_eq!((vmi.spec.domain.devices.interfaces.len(), vmi.spec.networks.len()), (1, 1));
    state(&mut vm, Some("absent"));
    assert_eq!(live_nics(&vm, &vmi), None);
    assert!(!restart_required(&started, &vm.spec.template, &vmi.spec, true));
    assert_eq!(build_vmi(&vm, false).spec.domain.devices.interfaces.len(), 1);
    state(&mut vm, Some("up"));
    assert_eq!(live_nics(&vm, &vmi).unwrap().interfaces.len(), 2);
}

#[test]
fn restart_required_comes_and_goes() {
    let mut vm = vm("Always", json!({}));
    let started = vm.spec.template.clone();
    let running = vmi("Running", json!([]));
    vm.spec.template.spec.as_mut().unwrap().hostname = Some("h".to_owned());
    let with = |vm: &VirtualMachine| {
        vm_status(&Observed {
            vm,
            vmi: Some(&running),
            started: Some(&started),
            hot_plug: true,
            failure: None,
            now: at(1),
            jitter: 0.0,
        })
    };
    let status = with(&vm);
    let found = crate::status::find(&status.conditions, "RestartRequired").unwrap();
    let message = "a non-live-updatable field was changed in the template spec";
    assert_eq!(found.message.as_deref(), Some(message));
    vm.status = Some(status);
    vm.spec.template = started.clone();
    let status = with(&vm);
    assert!(crate::status::find(&status.conditions, "RestartRequired").is_none());
}

#[test]
fn the_vmi_of_a_vm() {
    let mut vm = vm("Always", json!({}));
    let made = build_vmi(&vm, true);
    let expected = json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
        "metadata": {"name": "w1", "namespace": "default", "labels": {"app": "case"},
            "annotations": {"a": "b", "kubevirt.io/vm-generation": "9"},
            "finalizers": ["kubevirt.io/virtualMachineControllerFinalize"],
            "ownerReferences": [{"apiVersion": "kubevirt.io/v1", "blockOwnerDeletion": true,
                "controller": true, "kind": "VirtualMachine", "name": "w1", "uid": "vm-uid"}]},
        "spec": {"startStrategy": "Paused",
            "domain": {"devices": {}, "cpu": {"cores": 2}, "firmware": {"uuid": "fw"}},
            "volumes": [{"name": "root", "emptyDisk": {"capacity": "1Mi"}}]},
    });
    assert_eq!(serde_json::to_value(&made).unwrap(), expected);
    assert_eq!(revision_name(&vm), "revision-start-vm-vm-uid-9");

    let spec = vm.spec.template.spec.as_mut().unwrap();
    spec.domain.firmware = None;
    spec.domain.devices.autoattach_input_device = Some(true);
    let made = build_vmi(&vm, false);
    let firmware = made.spec.domain.firmware.unwrap();
    assert_eq!(firmware.uuid, Some(legacy_firmware_uuid("w1").to_string()));
    assert_eq!(made.spec.domain.devices.inputs[0].r#type, "tablet");
    assert_eq!(made.spec.start_strategy, None);
}

type Verb = fn(&VirtualMachine, Option<&VirtualMachineInstance>) -> Result<Operation, String>;

fn said(result: Result<Operation, crate::error_status::ErrorStatus>) -> Result<Operation, String> {
    result.map_err(|error| {
        let prefix = "Operation cannot be fulfilled on virtualmachine.kubevirt.io \"w1\": ";
        let message = error.message.trim_start_matches(prefix);
        format!("{} {message}", error.code)
    })
}

const START: Verb = |vm, vmi| said(start(vm, vmi, false));
const STOP: Verb = |vm, vmi| said(stop(vm, vmi, None));
const RESTART: Verb = |vm, vmi| said(restart(vm, vmi, None));

#[test]
fn verbs_that_are_refused() {
    let running = vmi("Running", json!([]));
    let running = Some(&running);
    for (verb, strategy, vmi, message) in [
        (START, "Always", running, "409 VM is already running"),
        (START, "Always", None, "409 Always does not support manual start requests"),
        (RESTART, "Halted", None, "409 RunStategy Halted does not support manual restart requests"),
        (RESTART, "Manual", None, "409 VM is not running: Halted"),
        (STOP, "Manual", None, "409 VM is not running"),
        (STOP, "Halted", running, "409 Halted only supports manual stop requests with a shorter graceperiod"),
    ] {
        let vm = vm(strategy, json!({}));
        assert_eq!(verb(&vm, vmi).err().as_deref(), Some(message), "{strategy}");
    }
    let underway = vm("Always", stop_list("i1"));
    let message = "500 Internal error occurred: unable to complete request: stop/start already underway";
    assert_eq!(RESTART(&underway, running).err().as_deref(), Some(message));
}

#[test]
fn verbs_that_change_a_vm() {
    let running = vmi("Running", json!([]));
    let running = Some(&running);
    let ended = vmi("Succeeded", json!([]));
    for (verb, strategy, vmi, change) in [
        (START, "Halted", None, json!("Always")),
        (START, "Manual", None, json!([{"action": "Start"}])),
        (START, "Manual", Some(&ended), json!([{"action": "Stop", "uid": "i1"}, {"action": "Start"}])),
        (STOP, "Always", running, json!("Halted")),
        (STOP, "Once", None, json!("Halted")),
        (STOP, "RerunOnFailure", running, json!([{"action": "Stop", "uid": "i1"}])),
        (RESTART, "Always", running, json!([{"action": "Stop", "uid": "i1"}, {"action": "Start"}])),
    ] {
        let mut vm = vm(strategy, json!({}));
        verb(&vm, vmi).unwrap().change.apply(&mut vm);
        let changed = if change.is_string() {
            json!(vm.spec.run_strategy)
        } else {
            json!(vm.status.unwrap().state_change_requests)
        };
        assert_eq!(changed, change, "{strategy}");
    }
    let mut old = vm("Always", json!({}));
    old.spec.run_strategy = None;
    old.spec.running = Some(true);
    STOP(&old, running).unwrap().change.apply(&mut old);
    assert_eq!((old.spec.running, old.spec.run_strategy), (Some(false), None));

    let halted = vm("Halted", json!({}));
    let operation = stop(&halted, running, Some(0)).unwrap();
    assert_eq!(operation.change, Change::None);
    assert_eq!(operation.grace_period_seconds, Some(0));
    let always = vm("Always", json!({}));
    let operation = restart(&always, running, Some(0)).unwrap();
    assert_eq!(operation.grace_period_seconds, Some(1));
    assert_eq!(restart(&always, running, Some(5)).unwrap_err().code, 400);
    let paused = start(&halted, None, true).unwrap().change;
    let mut vm = halted;
    paused.apply(&mut vm);
    assert_eq!(decide(&vm, None, at(0)), Action::StartHalted);
}

#[test]
fn verbs_on_a_vmi() {
    let running = vmi("Running", json!([]));
    let paused = vmi("Running", json!([condition("Paused", "True", "PausedByUser")]));
    let pending = vmi("Pending", json!([]));
    let prefix = "Operation cannot be fulfilled on virtualmachineinstance.kubevirt.io \"w1\": ";
    let refused = |result: Result<(), crate::error_status::ErrorStatus>| {
        let error = result.unwrap_err();
        assert_eq!((error.code, error.reason.as_deref()), (409, Some("Conflict")));
        error.message.trim_start_matches(prefix).to_owned()
    };
    assert!(pause(&running).is_ok() && unpause(&paused).is_ok());
    assert!(soft_reboot(&running).is_ok() && reset(&paused).is_ok());
    assert_eq!(refused(pause(&paused)), "VMI is already paused");
    assert_eq!(refused(unpause(&running)), "VMI is not paused");
    assert_eq!(refused(soft_reboot(&paused)), "VMI is paused");
    assert_eq!(refused(pause(&pending)), "VMI is not running");
    let body = serde_json::to_value(pause(&paused).unwrap_err().to_status()).unwrap();
    let expected = json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "code": 409,
        "status": "Failure", "reason": "Conflict",
        "message": format!("{prefix}VMI is already paused"),
        "details": {"group": "kubevirt.io", "kind": "virtualmachineinstance", "name": "w1"}});
    assert_eq!(body, expected);
}

#[test]
fn other_addresses_need_a_restart() {
    let asking = |own: Option<&str>, template: Option<&str>| {
        let mut vm = vm("Always", json!({}));
        let annotated = |text: &str| [(ADDRESSES_ANNOTATION.to_owned(), text.to_owned())].into();
        vm.metadata.annotations = own.map(annotated);
        vm.spec.template.metadata.as_mut().unwrap().annotations = template.map(annotated);
        vm
    };
    let (lan, wan) = (r#"{"lan": "192.0.2.1"}"#, r#"{"wan": ["192.0.2.2"]}"#);
    let started = build_vmi(&asking(Some(r#"{"lan": "192.0.2.9", "wan": "192.0.2.2"}"#), Some(lan)), false);
    let asked = &started.metadata.annotations.as_ref().unwrap()[ADDRESSES_ANNOTATION];
    assert_eq!(serde_json::from_str::<Value>(asked).unwrap(), json!({"lan": "192.0.2.1", "wan": "192.0.2.2"}));
    for (vm, expected) in [
        (asking(None, Some(r#"{"wan": ["192.0.2.2"], "lan": ["192.0.2.1"]}"#)), false),
        (asking(Some(wan), Some(lan)), false),
        (asking(Some(wan), None), true),
        (asking(None, None), true),
        (asking(Some(wan), Some("x")), true),
        (asking(Some(wan), Some(r#"{"lan": "192.0.2.3"}"#)), true),
    ] {
        let (template, mut vmi) = (vm.spec.template.clone(), started.clone());
        vmi.status = vmi_status("Running");
        let observed = Observed {
            vm: &vm,
            vmi: Some(&vmi),
            started: Some(&template),
            hot_plug: true,
            failure: None,
            now: at(5),
            jitter: 0.0,
        };
        let found = crate::status::is_true(&vm_status(&observed).conditions, "RestartRequired");
        assert_eq!(found, expected, "{vm:?}");
    }
    assert_eq!(crate::addresses::changed(&asking(None, None), &build_vmi(&asking(None, None), false)), None);
}

fn vmi_status(phase: &str) -> Option<crate::kubevirt::VirtualMachineInstanceStatus> {
    vmi(phase, json!([])).status
}
