//! Rules that no recorded answer covers, and what holds for all.

use serde_json::{Value, json};

use super::*;
use crate::defaults::{default_vm, default_vmi, stable_identities};
use k8s_openapi::jiff::Timestamp;
use uuid::Uuid;

fn config() -> ClusterConfig {
    ClusterConfig { feature_gates: ["HostDisk".to_owned()].into(), ..ClusterConfig::default() }
}

/// What is said about a VMI with this spec: for each cause its field and message. Causes that come
/// twice, as those on devices do, are given once.
fn causes(spec: Value) -> Vec<(String, String)> {
    let object = json!({"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
        "metadata": {"name": "a"}, "spec": spec});
    let mut vmi: VirtualMachineInstance = serde_json::from_value(object).unwrap();
    default_vmi(&mut vmi, &config(), &mut stable_identities(Uuid::nil()), Timestamp::UNIX_EPOCH);
    told(validate_vmi(&vmi, &config()))
}

fn vm_causes(spec: Value) -> Vec<(String, String)> {
    let object = json!({"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine",
        "metadata": {"name": "a"}, "spec": spec});
    let mut vm: VirtualMachine = serde_json::from_value(object).unwrap();
    default_vm(&mut vm, &config(), &mut stable_identities(Uuid::nil()));
    told(validate_vm(&vm, &config()))
}

fn told(result: Result<(), ErrorStatus>) -> Vec<(String, String)> {
    let Err(error) = result else { return Vec::new() };
    assert_eq!((error.code, error.reason.as_deref()), (422, Some("Invalid")));
    let mut told = Vec::new();
    for cause in error.causes() {
        let pair = (cause.field.clone().unwrap_or_default(), cause.message.clone().unwrap_or_default());
        if !told.contains(&pair) {
            told.push(pair);
        }
    }
    told
}

/// Whether the fields of the causes are these, and each message holds its word.
fn assert_causes(found: &[(String, String)], expected: &[(&str, &str)]) {
    let same = found.len() == expected.len()
        && found.iter().zip(expected).all(|(found, expected)| found.0 == expected.0 && found.1.contains(expected.1));
    assert!(same, "\nfound    {found:?}\nexpected {expected:?}");
}

fn with_interfaces(interfaces: Value, networks: Value) -> Value {
    json!({"domain": {"devices": {"interfaces": interfaces}}, "networks": networks})
}

fn with_volumes(volumes: Value) -> Value {
    json!({"domain": {"devices": {}}, "volumes": volumes})
}

#[test]
fn the_gateways_mac_is_taken() {
    let found = causes(with_interfaces(
        json!([{"name": "a", "masquerade": {}, "macAddress": "02-00-00-00-00-00"}]),
        json!([{"name": "a", "pod": {}}]),
    ));
    assert_causes(&found, &[("spec.domain.devices.interfaces[0].macAddress", "reserved for the in-pod bridge")]);
}

#[test]
fn networks_and_interfaces() {
    let found = causes(with_interfaces(json!([{"name": "a", "bridge": {}}]), json!([{"name": "a"}])));
    assert_causes(&found, &[("spec.networks[0]", "should have a network type")]);

    let default = |name: &str| json!({"name": name, "multus": {"networkName": "n", "default": true}});
    let found = causes(with_interfaces(
        json!([{"name": "a", "bridge": {}}, {"name": "b", "bridge": {}}]),
        json!([default("a"), default("b")]),
    ));
    assert_causes(&found, &[("spec.networks", "only have one default network")]);

    let found = causes(with_interfaces(
        json!([{"name": "a", "masquerade": {}, "ports": [{"name": "p", "port": 1}, {"name": "p", "port": 2}],
            "dhcpOptions": {"privateOptions": [{"option": 240, "value": "x"}, {"option": 240, "value": "y"}]}}]),
        json!([{"name": "a", "pod": {}}]),
    ));
    assert_causes(
        &found,
        &[
            ("spec.domain.devices.interfaces[0].ports[1].name", "Duplicate name of the port: p"),
            ("spec", "duplicate DHCPPrivateOptions"),
        ],
    );
    for (binding, word) in [("slirp", "Slirp"), ("passt", "Passt")] {
        let found = causes(with_interfaces(json!([{"name": "a", binding: {}}]), json!([{"name": "a", "pod": {}}])));
        let field = format!("spec.domain.devices.interfaces[0].{binding}");
        let message = format!("{word} network binding has been discontinued since v1.3");
        assert_eq!(found[0], (field, message));
    }
}

#[test]
fn names_of_networks_become_no_other_url() {
    for name in ["a/b/c", "..", "a?watch=1", "a#b", "A"] {
        let multus = json!([{"name": "a", "multus": {"networkName": name}}]);
        let found = causes(with_interfaces(json!([{"name": "a", "bridge": {}}]), multus));
        assert_causes(&found, &[("spec.networks[0].multus.networkName", "[namespace/]name")]);
    }
}

#[test]
fn one_boot_order_over_disks_and_nics() {
    let found = causes(json!({
        "domain": {"devices": {
            "disks": [{"name": "x", "disk": {"bus": "virtio"}, "bootOrder": 1}],
            "interfaces": [{"name": "a", "masquerade": {}, "bootOrder": 1}]}},
        "networks": [{"name": "a", "pod": {}}],
        "volumes": [{"name": "x", "emptyDisk": {"capacity": "1Mi"}}]}));
    assert_causes(&found, &[("spec[0].bootOrder", "already set for a different device")]);
}

#[test]
fn volumes_of_the_host() {
    let at = "spec.volumes[0].hostDisk";
    for (disk, field, word) in [
        (json!({"path": "", "type": "Disk"}), "path", "is required"),
        (json!({"path": "/d", "type": "Disk", "capacity": "1Gi"}), "capacity", "DiskOrCreate"),
        (json!({"path": "/d", "type": "DiskOrCreate"}), "capacity", "is required"),
        (json!({"path": "/d", "type": "File"}), "type", "invalid value 'File'"),
    ] {
        let found = causes(with_volumes(json!([{"name": "v", "hostDisk": disk}])));
        assert_causes(&found, &[(&format!("{at}.{field}"), word)]);
    }
    let good = json!({"path": "/d", "type": "DiskOrCreate", "capacity": "1Gi"});
    assert_causes(&causes(with_volumes(json!([{"name": "v", "hostDisk": good}]))), &[]);
}

#[test]
fn volumes() {
    let found = causes(with_volumes(json!([
        {"name": "v", "cloudInitNoCloud": {}}, {"name": "v", "emptyDisk": {"capacity": "1Mi"}}])));
    assert_causes(
        &found,
        &[
            ("spec.volumes[1].name", "spec.volumes[1] and spec.volumes[0] must not have the same Name."),
            ("spec.volumes[0].cloudInitNoCloud", "at least one userdatasource"),
        ],
    );
    let path = |path: &str| causes(with_volumes(json!([{"name": "v", "containerDisk": {"image": "a", "path": path}}])));
    for bad in ["/disk/../etc/passwd", "/disk/", "disk/a"] {
        assert_causes(&path(bad), &[("spec.volumes[0].containerDisk", "without relative components")]);
    }
    assert_causes(&path("/disk/..a.img"), &[]);
}

#[test]
fn block_sizes() {
    let sizes = |logical: i32, physical: i32| {
        causes(json!({
            "domain": {"devices": {"disks": [{"name": "v", "disk": {"bus": "virtio"},
                "blockSize": {"custom": {"logical": logical, "physical": physical}}}]}},
            "volumes": [{"name": "v", "emptyDisk": {"capacity": "1Mi"}}]}))
    };
    let at = |field: &str| format!("spec.domain.devices.disks[0].blockSize.custom.{field}");
    assert_causes(&sizes(512, 512), &[]);
    assert_causes(&sizes(256, 512), &[(&at("logical"), "less than the supported minimum")]);
    assert_causes(&sizes(512, 4 << 20), &[(&at("physical"), "greater than the supported maximum")]);
    assert_causes(&sizes(4096, 512), &[(&at("logical"), "same or less than the physical size of 512")]);
}

#[test]
fn resources() {
    let found = causes(json!({"domain": {"devices": {}, "memory": {"guest": "64Mi"}, "resources": {
        "requests": {"memory": "2Gi", "cpu": "-1"}, "limits": {"memory": "1024Mi", "cpu": "-2"}}}}));
    let at = "spec.domain.resources";
    assert_causes(
        &found,
        &[
            (&format!("{at}.requests.cpu"), "'-1': must be greater than or equal to 0."),
            (&format!("{at}.limits.cpu"), "'-2': must be greater than or equal to 0."),
            (&format!("{at}.requests.memory"), "'2Gi' is greater than spec.domain.resources.limits.memory '1024Mi'"),
            (&format!("{at}.requests.cpu"), "'-1' is greater than"),
        ],
    );
}

#[test]
fn firmware() {
    let boot = |loader: Value, smm: bool| {
        causes(json!({"domain": {"devices": {}, "features": {"smm": {"enabled": smm}},
            "firmware": {"bootloader": loader}}}))
    };
    let at = "spec.domain.firmware.bootloader";
    assert_causes(&boot(json!({"efi": {}}), false), &[(at, "requires SMM")]);
    assert_causes(&boot(json!({"efi": {}}), true), &[]);
    assert_causes(&boot(json!({"efi": {}, "bios": {}}), true), &[(at, "mutually exclusive")]);
}

#[test]
fn strategies_and_placement() {
    let found = causes(json!({"domain": {"devices": {}, "ioThreadsPolicy": "many"},
        "startStrategy": "Now", "evictionStrategy": "Jump", "topologySpreadConstraints":
            [{"maxSkew": 1, "topologyKey": "", "whenUnsatisfiable": "Never"}],
        "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1,
            "preference": {"matchExpressions": [
                {"key": "a", "operator": "Exists", "values": ["x"]},
                {"key": "b", "operator": "Like"}]}}]}}}));
    let preference = "spec.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].preference";
    assert_causes(
        &found,
        &[
            ("spec.startStrategy", "unrecognized option: Now"),
            ("spec.evictionStrategy", "unrecognized option: Jump"),
            (&format!("{preference}.matchExpressions[0].values"), "Forbidden: may not be specified"),
            (&format!("{preference}.matchExpressions[1].operator"), "not a valid selector operator"),
            ("spec.topologySpreadConstraints[0].topologyKey", "can not be empty"),
            ("spec.topologySpreadConstraints[0].whenUnsatisfiable", "supported values"),
            ("spec.domain.ioThreadsPolicy", "Invalid IOThreadsPolicy (many)"),
        ],
    );
}

#[test]
fn vms() {
    let template = json!({"spec": {"domain": {"devices": {}}}});
    let found = vm_causes(json!({"template": template}));
    assert_causes(&found, &[("spec", "One of Running or RunStrategy must be specified")]);
    let found = vm_causes(json!({"template": template, "running": true, "runStrategy": "Always"}));
    assert_causes(&found, &[("spec.running", "mutually exclusive")]);
    let found = vm_causes(json!({"template": template, "runStrategy": "Sometimes"}));
    assert_causes(&found, &[("spec.runStrategy", "Invalid RunStrategy (Sometimes)")]);
    assert_causes(&vm_causes(json!({"template": template, "runStrategy": "Once"})), &[]);

    let both = json!({"spec": {"domain": {"devices": {}, "cpu": {"cores": 1}, "memory": {"guest": "1Gi"}}}});
    let found = vm_causes(json!({"template": both, "runStrategy": "Halted", "instancetype": {"name": "small"}}));
    let domain = "spec.template.spec.domain";
    let all = format!("VM field(s) {domain}.cpu.cores, {domain}.memory.guest conflicts with selected instance type");
    assert_causes(&found, &[(&format!("{domain}.cpu.cores"), &all), (&format!("{domain}.memory.guest"), &all)]);
}

#[test]
fn quantities_that_cannot_be_read() {
    let vmi = json!({"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "metadata": {"name": "a"},
        "spec": {"domain": {"devices": {}}, "volumes": [{"name": "v", "emptyDisk": {"capacity": "1MK"}}]}});
    let vmi: VirtualMachineInstance = serde_json::from_value(vmi).unwrap();
    let error = validate_vmi(&vmi, &config()).unwrap_err();
    assert_eq!((error.code, error.reason), (400, None));
    assert!(error.message.ends_with("denied the request: unable to parse quantity's suffix"));
}
