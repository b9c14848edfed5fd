//! What sizes and preferences make of machines.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;

fn instancetype(value: Value) -> VirtualMachineInstancetypeSpec {
    serde_json::from_value(value).unwrap()
}

fn preference(value: Value) -> VirtualMachinePreferenceSpec {
    serde_json::from_value(value).unwrap()
}

fn spec(value: Value) -> VirtualMachineInstanceSpec {
    serde_json::from_value(value).unwrap()
}

fn small() -> Value {
    json!({"cpu": {"guest": 4}, "memory": {"guest": "1Gi"}})
}

#[test]
fn cpus_are_what_the_preference_says() {
    let cases = [
        (json!({}), (8, 1, 1)),
        (json!({"preferredCPUTopology": "cores"}), (1, 8, 1)),
        (json!({"preferredCPUTopology": "preferThreads"}), (1, 1, 8)),
        (json!({"preferredCPUTopology": "any"}), (8, 1, 1)),
        (json!({"preferredCPUTopology": "spread"}), (4, 2, 1)),
        (json!({"preferredCPUTopology": "spread", "spreadOptions": {"ratio": 4}}), (2, 4, 1)),
        (json!({"preferredCPUTopology": "spread", "spreadOptions": {"across": "SocketsCoresThreads"}}), (2, 2, 2)),
        (json!({"preferredCPUTopology": "spread", "spreadOptions": {"across": "CoresThreads"}}), (1, 4, 2)),
    ];
    for (cpu, (sockets, cores, threads)) in cases {
        let wanted = preference(json!({"cpu": cpu}));
        assert_eq!(Topology::of(8, Some(&wanted)), Ok(Topology { sockets, cores, threads }), "{cpu}");
    }
    let spread = preference(json!({"cpu": {"preferredCPUTopology": "spread"}}));
    assert!(Topology::of(3, Some(&spread)).unwrap_err().to_string().starts_with("3 vCPUs"));
    assert_eq!(Topology::of(3, None), Ok(Topology { sockets: 3, cores: 1, threads: 1 }));
}

#[test]
fn a_size_is_set_and_conflicts_change_nothing() {
    let mut size = small();
    size["memory"]["overcommitPercent"] = json!(15);
    size["nodeSelector"] = json!({"disk": "fast"});
    size["annotations"] = json!({"size": "small"});
    size["ioThreadsPolicy"] = json!("auto");
    let size = instancetype(size);
    let (mut metadata, mut made) = (ObjectMeta::default(), spec(json!({"domain": {"devices": {}}})));
    apply(Some(&size), None, &mut metadata, &mut made).unwrap();
    assert_eq!(
        serde_json::to_value(&made).unwrap(),
        json!({"nodeSelector": {"disk": "fast"}, "domain": {"devices": {}, "ioThreadsPolicy": "auto",
            "cpu": {"sockets": 4, "cores": 1, "threads": 1}, "memory": {"guest": "1Gi"},
            "resources": {"requests": {"memory": made.domain.resources.as_ref().unwrap().requests["memory"]}}}})
    );
    let requested = quantity::parse(&made.domain.resources.as_ref().unwrap().requests["memory"]).unwrap().value();
    assert_eq!(requested, (1 << 30) / 100 * 85);
    assert_eq!(metadata.annotations.unwrap()["size"], "small");

    let mut metadata =
        ObjectMeta { annotations: Some([("size".to_owned(), "big".to_owned())].into()), ..ObjectMeta::default() };
    let before = spec(json!({"nodeSelector": {"disk": "slow"}, "domain": {"devices": {}, "ioThreadsPolicy": "shared",
        "memory": {"guest": "2Gi"}}}));
    let mut made = before.clone();
    let found = apply(Some(&size), None, &mut metadata, &mut made).unwrap_err();
    assert_eq!(
        found,
        [
            "spec.template.spec.domain.memory.guest",
            "spec.template.spec.domain.ioThreadsPolicy",
            "spec.template.spec.nodeSelector.disk",
            "spec.template.metadata.annotations.size",
        ]
    );
    assert_eq!(made, before);
}

#[test]
fn a_preference_fills_in_what_is_left_out() {
    let wanted = preference(json!({
        "cpu": {"preferredCPUFeatures": [{"name": "vmx"}, {"name": "aes", "policy": "require"}]},
        "devices": {"preferredDiskBus": "virtio", "preferredCdromBus": "sata", "preferredInterfaceModel": "e1000e",
            "preferredInterfaceMasquerade": {}, "preferredRng": {}, "preferredAutoattachInputDevice": true,
            "preferredDiskDedicatedIoThread": true, "preferredSoundModel": "ac97"},
        "features": {"preferredSmm": {"enabled": true}, "preferredHyperv": {"relaxed": {"enabled": true}}},
        "firmware": {"preferredUseEfi": true, "preferredUseSecureBoot": true},
        "machine": {"preferredMachineType": "q35"},
        "clock": {"preferredClockOffset": {"timezone": "UTC"}, "preferredTimer": {"hpet": {"present": false}}},
        "preferredTerminationGracePeriodSeconds": 180
    }));
    let mut made = spec(json!({
        "domain": {"cpu": {"features": [{"name": "vmx", "policy": "disable"}]},
            "devices": {"disks": [{"name": "a", "disk": {"bus": "sata"}}, {"name": "c", "cdrom": {}}],
                "interfaces": [{"name": "p"}, {"name": "m"}, {"name": "b", "bridge": {}, "model": "virtio"}]},
            "features": {"hyperv": {"vapic": {"enabled": true}}}},
        "networks": [{"name": "p", "pod": {}}, {"name": "m", "multus": {"networkName": "n"}}],
        "volumes": [{"name": "a", "emptyDisk": {"capacity": "1Gi"}}, {"name": "v", "emptyDisk": {"capacity": "1Gi"}}]
    }));
    apply(None, Some(&wanted), &mut ObjectMeta::default(), &mut made).unwrap();
    let made = serde_json::to_value(&made).unwrap();
    let domain = &made["domain"];
    assert_eq!(
        domain["devices"],
        json!({"autoattachInputDevice": true, "rng": {}, "disks": [{"name": "a", "disk": {"bus": "sata"}},
            {"name": "c", "cdrom": {"bus": "sata"}},
            {"name": "v", "disk": {"bus": "virtio"}, "dedicatedIOThread": true}],
            "interfaces": [{"name": "p", "masquerade": {}, "model": "e1000e"}, {"name": "m", "model": "e1000e"},
                {"name": "b", "bridge": {}, "model": "virtio"}]})
    );
    let features = json!([{"name": "vmx", "policy": "disable"}, {"name": "aes", "policy": "require"}]);
    assert_eq!(domain["cpu"]["features"], features);
    assert_eq!(domain["features"]["hyperv"], json!({"vapic": {"enabled": true}, "relaxed": {"enabled": true}}));
    assert_eq!(domain["firmware"], json!({"bootloader": {"efi": {"secureBoot": true}}}));
    assert_eq!(domain["clock"], json!({"timezone": "UTC", "timer": {"hpet": {"present": false}}}));
    assert_eq!(made["terminationGracePeriodSeconds"], 180);
}

#[test]
fn a_preference_may_ask_for_more() {
    let asks =
        preference(json!({"requirements": {"cpu": {"guest": 2}, "memory": {"guest": "1Gi"}, "architecture": "amd64"}}));
    let with = |cpu: Value, memory: &str, architecture: &str| {
        let made = spec(json!({"architecture": architecture,
            "domain": {"devices": {}, "cpu": cpu, "memory": {"guest": memory}}}));
        requirements(None, Some(&asks), &made)
    };
    assert_eq!(with(json!({"sockets": 1, "threads": 2}), "1024Mi", "amd64"), Ok(()));
    assert!(matches!(with(json!({"cores": 1}), "1Gi", "amd64"), Err(Unmet::Cpu { found: 1, needed: 2, .. })));
    assert!(matches!(with(json!({"cores": 2}), "1023Mi", "amd64"), Err(Unmet::Memory { .. })));
    assert!(matches!(with(json!({"cores": 2}), "1Gi", "arm64"), Err(Unmet::Architecture { .. })));
    let spread = preference(json!({"cpu": {"preferredCPUTopology": "spread"}}));
    let odd = instancetype(json!({"cpu": {"guest": 3}, "memory": {"guest": "1Gi"}}));
    let made = spec(json!({"domain": {"devices": {}}}));
    assert!(matches!(requirements(Some(&odd), Some(&spread), &made), Err(Unmet::Topology(_))));
}

#[test]
fn a_revision_keeps_a_size_as_it_was() {
    let vm: VirtualMachine =
        serde_json::from_value(json!({"metadata": {"name": "w", "namespace": "lab", "uid": "v-uid"},
        "spec": {"template": {}}}))
        .unwrap();
    let object = json!({"apiVersion": "instancetype.kubevirt.io/v1beta1", "kind": "VirtualMachineClusterInstancetype",
        "metadata": {"name": "small", "uid": "i-uid", "generation": 3, "managedFields": []}, "spec": small()});
    let made = revision(&vm, &object).unwrap();
    assert_eq!(made.metadata.name.as_deref(), Some("w-small-v1beta1-i-uid-3"));
    assert_eq!(made.metadata.owner_references.as_ref().unwrap()[0].uid, "v-uid");
    assert_eq!(made.metadata.labels.as_ref().unwrap()["instancetype.kubevirt.io/object-generation"], "3");
    assert_eq!(stored_instancetype(&made).unwrap(), instancetype(small()));
    assert!(matches!(stored_preference(&made), Err(RevisionError::Kind { .. })));
    assert!(revision(&VirtualMachine::default(), &object).is_none());
}

#[test]
fn an_expanded_machine_names_no_size() {
    let mut vm: VirtualMachine = serde_json::from_value(json!({"metadata": {"name": "w"},
        "spec": {"instancetype": {"name": "small"}, "preference": {"name": "p"}, "template": {"spec": {"domain": {"devices": {}}}}}}))
    .unwrap();
    expand(&mut vm, Some(&instancetype(small())), None).unwrap();
    assert_eq!(
        serde_json::to_value(&vm.spec).unwrap(),
        json!({"template": {"spec": {"domain": {"devices": {}, "cpu": {"sockets": 4, "cores": 1, "threads": 1},
            "memory": {"guest": "1Gi"}}}}})
    );
}

#[test]
fn kinds_are_named_in_many_ways() {
    for kind in ["", "VirtualMachineClusterInstancetype", "virtualmachineclusterpreferences"] {
        assert!(is_cluster_wide(kind), "{kind}");
    }
    assert!(!is_cluster_wide("virtualmachineinstancetype"));
}
