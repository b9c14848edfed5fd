use holdfast_agent_api::launcher::{
    DomainState, DomainStatus, Failure, FailureClass, FinalState, GuestInterface, PauseReason,
};
use serde_json::{Value, json};

use super::*;
use crate::vmi::NicReport;

fn vmi(status: Value) -> VirtualMachineInstance {
    let object = json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
        "metadata": {"name": "rich", "namespace": "default"},
        "spec": {
            "domain": {
                "cpu": {"cores": 2, "sockets": 1, "threads": 1},
                "memory": {"guest": "128Mi"},
                "devices": {"interfaces": [
                    {"name": "lan", "bridge": {}}, {"name": "default", "masquerade": {}}]}
            },
            "networks": [{"name": "lan", "multus": {"networkName": "lan"}}, {"name": "default", "pod": {}}],
            "volumes": [{"name": "root", "emptyDisk": {"capacity": "1Mi"}},
                {"name": "a", "emptyDisk": {"capacity": "1Mi"}}]
        },
        "status": status
    });
    serde_json::from_value(object).unwrap()
}

fn nic(name: &str, mac: &str, pod_interface: &str, address: &str) -> NicReport {
    NicReport {
        name: name.to_owned(),
        pod_interface: pod_interface.parse().unwrap(),
        mac: mac.parse().unwrap(),
        masquerade: name == "default",
        addresses: vec![address.parse().unwrap()],
        queues: 1,
        link_up: true,
    }
}

fn report(state: DomainState) -> VmiReport {
    VmiReport {
        domain: DomainStatus {
            state,
            machine: "pc-q35-7.2".to_owned(),
            agent_connected: false,
            volume_targets: vec![("root".to_owned(), "vda".to_owned()), ("a".to_owned(), "vdb".to_owned())],
            emulation: false,
            nics: None,
        },
        nics: vec![
            nic("lan", "02:00:00:00:00:0a", "pod0123456789a", "192.0.2.7/24"),
            nic("default", "02:00:00:00:00:01", "eth0", "10.244.2.15/24"),
        ],
        ..VmiReport::default()
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn conditions(status: &VirtualMachineInstanceStatus) -> Vec<(String, String, String)> {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    status.conditions.iter().map(|c| (c.r#type.clone(), c.status.clone(), text(&c.reason))).collect()
}

#[test]
fn a_running_vmi_looks_as_clients_know_it() {
    let before = vmi(json!({"phase": "Scheduled", "nodeName": "node2", "runtimeUser": 107}));
    let status = derive(&before, &report(DomainState::Running), at(60));
    let mut json = serde_json::to_value(&status).unwrap();
    json.as_object_mut().unwrap().remove("conditions");
    assert_eq!(
        json,
        json!({
            "currentCPUTopology": {"cores": 2, "sockets": 1, "threads": 1},
            "guestOSInfo": {},
            "interfaces": [
                {"infoSource": "domain", "ipAddress": "10.244.2.15", "ipAddresses": ["10.244.2.15"],
                    "linkState": "up", "mac": "02:00:00:00:00:01", "name": "default",
                    "podInterfaceName": "eth0", "queueCount": 1},
                {"infoSource": "domain, multus-status", "ipAddress": "192.0.2.7", "ipAddresses": ["192.0.2.7"],
                    "linkState": "up", "mac": "02:00:00:00:00:0a", "name": "lan",
                    "podInterfaceName": "pod0123456789a", "queueCount": 1}],
            "machine": {"type": "pc-q35-7.2"},
            "memory": {"guestAtBoot": "128Mi", "guestCurrent": "128Mi", "guestRequested": "128Mi"},
            "nodeName": "node2",
            "phase": "Running",
            "phaseTransitionTimestamps": [
                {"phase": "Running", "phaseTransitionTimestamp": "1970-01-01T00:01:00Z"}],
            "runtimeUser": 107,
            "volumeStatus": [{"name": "a", "target": "vdb"}, {"name": "root", "target": "vda"}]
        })
    );
    assert_eq!(conditions(&status)[0], ("Ready".to_owned(), "True".to_owned(), String::new()));

    let mut after = before.clone();
    after.status = Some(status.clone());
    assert_eq!(derive(&after, &report(DomainState::Running), at(90)), status, "a second look changes nothing");
}

#[test]
fn phases_follow_the_domain() {
    let scheduled = vmi(json!({"phase": "Scheduled"}));
    let phase = |state| derive(&scheduled, &report(state), at(1)).phase.unwrap();
    let end = |succeeded| {
        DomainState::Final(FinalState { succeeded, reason: "Crashed".to_owned(), message: "it did".to_owned() })
    };
    assert_eq!(phase(DomainState::None), "Scheduled");
    assert_eq!(phase(DomainState::Paused { reason: PauseReason::User }), "Running");
    assert_eq!(phase(DomainState::ShuttingDown), "Running");
    assert_eq!(phase(end(true)), "Succeeded");
    assert_eq!(phase(end(false)), "Failed");
    assert_eq!(derive(&scheduled, &report(end(false)), at(1)).reason.as_deref(), Some("Crashed"));
    assert_eq!(derive(&scheduled, &report(end(true)), at(1)).reason, None);
}

#[test]
fn conditions_come_and_go() {
    let reason = |status: &VirtualMachineInstanceStatus, kind: &str| {
        let found = conditions(status).into_iter().find(|(k, _, _)| k == kind);
        found.map(|(_, status, reason)| format!("{status} {reason}"))
    };
    let mut object = vmi(json!({"phase": "Scheduled"}));
    let mut now = report(DomainState::None);
    now.failure =
        Some(Failure { class: FailureClass::Retry, reason: "BridgeMissing".to_owned(), message: "m".to_owned() });
    let status = derive(&object, &now, at(1));
    assert_eq!(reason(&status, "Ready").as_deref(), Some("False GuestNotRunning"));
    assert_eq!(reason(&status, "Synchronized").as_deref(), Some("False BridgeMissing"));
    assert_eq!(reason(&status, "LiveMigratable").as_deref(), Some("False NotMigratable"));
    assert_eq!(reason(&status, "Paused"), None);

    object.status = Some(status);
    let mut now = report(DomainState::Paused { reason: PauseReason::User });
    now.domain.agent_connected = true;
    now.domain.emulation = true;
    let status = derive(&object, &now, at(2));
    assert_eq!(reason(&status, "Synchronized"), None);
    assert_eq!(reason(&status, "Paused").as_deref(), Some("True PausedByUser"));
    assert_eq!(reason(&status, "AgentConnected").as_deref(), Some("True "));
    assert_eq!(reason(&status, "SoftwareEmulation").as_deref(), Some("True "));
    assert_eq!(reason(&status, "Ready").as_deref(), Some("False ReadinessGatesNotReady"));

    object.status = Some(status);
    let mut now = report(DomainState::ShuttingDown);
    now.stopping = Some(30);
    let status = derive(&object, &now, at(3));
    assert_eq!(reason(&status, "Ready").as_deref(), Some("False PodTerminating"));
    assert_eq!(reason(&status, "Paused"), None);
    assert_eq!(reason(&status, "AgentConnected"), None);
}

#[test]
fn the_guest_agent_is_joined_by_mac() {
    let mut now = report(DomainState::Running);
    let there = |name: &str, mac: &str, addresses: &[&str]| GuestInterface {
        name: name.to_owned(),
        mac: mac.to_owned(),
        addresses: addresses.iter().map(|&a| a.to_owned()).collect(),
    };
    let mut interfaces = vec![
        there("enp1s0", "02:00:00:00:00:01", &["10.0.2.2", "fe80::1"]),
        there("enp2s0", "02:00:00:00:00:0A", &["fe80::a", "192.0.2.7"]),
    ];
    interfaces.extend((0..12).map(|n| there(&format!("veth{n}"), &format!("02:aa:00:00:00:{n:02x}"), &[])));
    now.guest = Some(GuestInfo { interfaces, ..GuestInfo::default() });
    let status = derive(&vmi(json!({"phase": "Running"})), &now, at(1));
    let all = &status.interfaces;
    assert_eq!(all.len(), 12, "two of the spec, ten of the guest's own");
    assert_eq!(all[0].info_source.as_deref(), Some("domain, guest-agent"));
    assert_eq!(all[0].interface_name.as_deref(), Some("enp1s0"));
    assert_eq!(all[0].ip_addresses, ["10.244.2.15"], "behind NAT the pod's address counts");
    assert_eq!(all[1].info_source.as_deref(), Some("domain, guest-agent, multus-status"));
    assert_eq!(all[1].ip_addresses, ["192.0.2.7", "fe80::a"], "the address that it was given comes first");
    assert_eq!(all[2].info_source.as_deref(), Some("guest-agent"));
    assert_eq!((&all[2].name, &all[2].queue_count), (&None, &None));

    now.guest.as_mut().unwrap().interfaces[1].addresses.clear();
    let status = derive(&vmi(json!({"phase": "Running"})), &now, at(1));
    assert!(status.interfaces[1].ip_addresses.is_empty(), "the guest says that it has none");
}

#[test]
fn events_tell_each_thing_once() {
    let scheduled = vmi(json!({"phase": "Scheduled"}));
    let running = vmi(json!({"phase": "Running"}));
    let fresh = VmiReport::default();
    let up = report(DomainState::Running);
    let reasons = |found: Vec<Occurrence>| found.into_iter().map(|event| event.reason).collect::<Vec<_>>().join(" ");
    assert_eq!(reasons(events(&scheduled, &fresh, &up)), "Created Started");
    assert_eq!(reasons(events(&scheduled, &up, &up)), "");
    assert_eq!(reasons(events(&running, &fresh, &up)), "", "an agent that restarts tells nothing anew");

    let mut stopping = up.clone();
    stopping.stopping = Some(30);
    assert_eq!(reasons(events(&running, &up, &stopping)), "ShuttingDown");
    stopping.stopping = Some(0);
    assert_eq!(reasons(events(&running, &up, &stopping)), "Deleted");

    let end = |succeeded, reason: &str| {
        let mut report = stopping.clone();
        let message = "no such disk".to_owned();
        report.domain.state = DomainState::Final(FinalState { succeeded, reason: reason.to_owned(), message });
        events(&running, &stopping, &report).remove(0)
    };
    assert_eq!(end(true, "Shutdown").message, "The VirtualMachineInstance was shut down.");
    assert_eq!(end(false, "Crashed").message, "The VirtualMachineInstance crashed.");
    assert_eq!(end(false, "StartFailed").message, "The VirtualMachineInstance failed: no such disk");
    assert_eq!(end(false, "Crashed").kind, OccurrenceKind::Warning);

    let mut failed = fresh.clone();
    failed.failure = Some(Failure { class: FailureClass::Retry, reason: "R".to_owned(), message: "why".to_owned() });
    assert_eq!(reasons(events(&scheduled, &fresh, &failed)), "SyncFailed");
    let mut told = scheduled.clone();
    told.status = Some(derive(&scheduled, &failed, at(1)));
    assert_eq!(reasons(events(&told, &fresh, &failed)), "");
}
