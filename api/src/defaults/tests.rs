use serde_json::{Value, json};

use super::*;

/// The spec of a VMI after defaulting, from its spec before.
fn defaulted(spec: Value) -> VirtualMachineInstance {
    let mut vmi = serde_json::from_value(json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
        "metadata": {"name": "a"}, "spec": spec,
    }))
    .unwrap();
    let now = Timestamp::from_second(0).unwrap();
    let config = ClusterConfig::default();
    let mut identities = stable_identities(Uuid::nil());
    default_vmi(&mut vmi, &config, &mut identities, now);
    let mut again = vmi.clone();
    default_vmi(&mut again, &config, &mut identities, now);
    assert_eq!(again, vmi, "defaulting twice changes nothing");
    vmi
}

fn cpu(domain: Value) -> Value {
    let vmi = defaulted(json!({ "domain": domain }));
    let cpu = vmi.spec.domain.cpu.unwrap();
    json!([cpu.sockets, cpu.cores, cpu.threads, cpu.max_sockets])
}

#[test]
fn topology() {
    let devices = json!({});
    for (domain, expected) in [
        (json!({"devices": devices}), json!([1, 1, 1, 4])),
        (json!({"devices": devices, "cpu": {"cores": 2}}), json!([null, 2, null, null])),
        (json!({"devices": devices, "cpu": {"sockets": 2}}), json!([2, null, null, 8])),
        (json!({"devices": devices, "cpu": {"sockets": 60, "cores": 4}}), json!([60, 4, null, 128])),
        (json!({"devices": devices, "cpu": {"sockets": 600}}), json!([600, null, null, 600])),
        (json!({"devices": devices, "resources": {"limits": {"cpu": "2500m"}}}), json!([3, 1, 1, 12])),
        (json!({"devices": devices, "resources": {"requests": {"cpu": "2"}}}), json!([2, 1, 1, 8])),
    ] {
        assert_eq!(cpu(domain.clone()), expected, "{domain}");
    }
}

#[test]
fn memory() {
    let memory = |domain: Value| {
        let vmi = defaulted(json!({ "domain": domain }));
        serde_json::to_value(vmi.spec.domain.memory).unwrap()
    };
    for (domain, expected) in [
        (json!({"devices": {}}), json!(null)),
        (
            json!({"devices": {}, "resources": {"requests": {"memory": "64Mi"},
                "limits": {"memory": "128Mi"}}}),
            json!({"guest": "64Mi"}),
        ),
        (
            json!({"devices": {}, "memory": {"hugepages": {"pageSize": "2Mi"}}}),
            json!({"guest": "2Mi", "hugepages": {"pageSize": "2Mi"}}),
        ),
        (json!({"devices": {}, "memory": {"guest": "1536Mi"}}), json!({"guest": "1536Mi", "maxGuest": "6Gi"})),
        (json!({"devices": {}, "memory": {"guest": "1025Mi"}}), json!({"guest": "1025Mi"})),
        (json!({"devices": {}, "memory": {"guest": "2Gi"}, "launchSecurity": {"sev": {}}}), json!({"guest": "2Gi"})),
    ] {
        assert_eq!(memory(domain.clone()), expected, "{domain}");
    }
}

#[test]
fn named_features_and_timers_are_on() {
    let vmi = defaulted(json!({"domain": {"devices": {},
        "features": {"smm": {}, "acpi": {"enabled": false}, "hyperv": {
            "synictimer": {"direct": {}}, "spinlocks": {}, "vendorid": {"vendorid": "v"}}},
        "clock": {"timer": {"hpet": {"present": false}, "kvm": {}}}}}));
    let domain = serde_json::to_value(vmi.spec.domain).unwrap();
    let on = json!({"enabled": true});
    assert_eq!(
        domain["features"],
        json!({"smm": on, "acpi": {"enabled": false}, "hyperv": {
            "synictimer": {"enabled": true, "direct": on},
            "spinlocks": {"enabled": true, "spinlocks": 4096},
            "vendorid": {"enabled": true, "vendorid": "v"}}})
    );
    let timers = json!({"hpet": {"present": false}, "kvm": {"present": true}});
    assert_eq!(domain["clock"]["timer"], timers);
}

#[test]
fn identities_stay() {
    let uid = Uuid::from_u128(7);
    let make = || {
        let mut vm: VirtualMachine = serde_json::from_value(json!({
            "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": {"name": "a"},
            "spec": {"runStrategy": "Halted", "template": {"spec": {"domain": {"devices": {}}}}},
        }))
        .unwrap();
        default_vm(&mut vm, &ClusterConfig::default(), &mut stable_identities(uid));
        vm
    };
    assert_eq!(make(), make());
    let spec = make().spec.template.spec.unwrap();
    let firmware = spec.domain.firmware.unwrap();
    assert!(firmware.uuid.is_some() && firmware.serial.is_some());
    assert_ne!(firmware.uuid, firmware.serial);
}
