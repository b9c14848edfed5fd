use serde_json::{Value, json};

use super::*;

fn vmi(interfaces: Value, cpu: Value) -> VirtualMachineInstance {
    serde_json::from_value(json!({
        "metadata": {"name": "web.example", "namespace": "default"},
        "spec": {
            "domain": {
                "cpu": cpu,
                "devices": {"interfaces": interfaces, "networkInterfaceMultiqueue": true}
            },
            "networks": [
                {"name": "default", "pod": {}},
                {"name": "short", "pod": {"vmNetworkCIDR": "10.9"}},
                {"name": "own", "pod": {"vmNetworkCIDR": "10.9.0.0/24"}},
                {"name": "lan", "multus": {"networkName": "lan"}}]
        }
    }))
    .unwrap()
}

fn nic(name: &str, mac: Option<&str>) -> NicInput {
    NicInput {
        interface: name.to_owned(),
        network: name.to_owned(),
        pod_interface: "eth0".parse().unwrap(),
        mac: mac.map(|mac| mac.parse().unwrap()),
        delivery: None,
    }
}

fn bind(interfaces: Value, nics: &[NicInput]) -> Result<Vec<Binding>, String> {
    let pod = PodInterface {
        mac: "02:00:00:00:00:0f".parse().unwrap(),
        mtu: 1450,
        addresses: vec!["10.244.0.5/24".parse().unwrap()],
        routes: Vec::new(),
    };
    let pods = BTreeMap::from([("eth0".parse().unwrap(), pod)]);
    let vmi = vmi(interfaces, json!({"sockets": 2, "cores": 2, "threads": 1}));
    bindings(&vmi, nics, Path::new("/run/netns/x"), &pods).map_err(|error| error.to_string())
}

fn one(interface: Value) -> Result<Binding, String> {
    let name = interface["name"].as_str().unwrap().to_owned();
    bind(json!([interface]), &[nic(&name, None)]).map(|mut all| all.remove(0))
}

#[test]
fn masquerade_has_the_network_and_ports_of_the_spec() {
    let plain = one(json!({"name": "default", "masquerade": {}})).unwrap();
    let BindingMethod::Masquerade { cidr, cidr_v6, ports } = plain.method else { panic!("not masquerade") };
    assert_eq!((cidr.to_string().as_str(), ports.len()), ("10.0.2.0/24", 0));
    assert_eq!(cidr_v6.to_string(), "fd10:0:2::/120");
    assert_eq!((plain.queues, plain.link_up, plain.hostname.as_str()), (4, true, "web"));

    let own = one(json!({"name": "own", "masquerade": {}, "model": "e1000", "state": "down",
        "ports": [{"port": 22}, {"port": 53, "protocol": "UDP"}]}))
    .unwrap();
    let BindingMethod::Masquerade { cidr, ports, .. } = own.method else { panic!("not masquerade") };
    assert_eq!(cidr.to_string(), "10.9.0.0/24");
    assert_eq!(
        ports,
        [ForwardedPort { protocol: Protocol::Tcp, port: 22 }, ForwardedPort { protocol: Protocol::Udp, port: 53 }]
    );
    assert_eq!((own.queues, own.link_up), (1, false), "one queue but for virtio");
}

#[test]
fn the_spec_s_mac_comes_before_the_lease_s_and_that_before_the_pod_s() {
    let mac = |spec: Value, lease| {
        let bound = bind(json!([spec]), &[nic("lan", lease)]).unwrap();
        bound[0].guest_mac.to_string()
    };
    let given = json!({"name": "lan", "bridge": {}, "macAddress": "DE-AD-00-00-BE-AF"});
    let open = json!({"name": "lan", "bridge": {}});
    assert_eq!(mac(given, Some("02:00:00:00:00:aa")), "de:ad:00:00:be:af");
    assert_eq!(mac(open.clone(), Some("02:00:00:00:00:aa")), "02:00:00:00:00:aa");
    assert_eq!(mac(open, None), "02:00:00:00:00:0f");
}

#[test]
fn absent_interfaces_are_left_out_and_the_order_is_the_spec_s() {
    let interfaces = json!([{"name": "lan", "bridge": {}}, {"name": "own", "bridge": {}, "state": "absent"},
        {"name": "default", "masquerade": {}}]);
    let bound = bind(interfaces, &[nic("default", None), nic("lan", None)]).unwrap();
    assert_eq!(bound.iter().map(|b| b.nic.as_str()).collect::<Vec<_>>(), ["lan", "default"]);
}

#[test]
fn errors_name_the_interface_and_the_value() {
    for (interface, expected) in [
        (json!({"name": "ghost", "bridge": {}}), "spec.networks has no network named `ghost`"),
        (json!({"name": "lan", "masquerade": {}}), "masquerade needs the pod network"),
        (json!({"name": "lan", "sriov": {}}), "its binding `sriov` is not supported"),
        (json!({"name": "lan"}), "its binding (none) is not supported"),
        (json!({"name": "default", "bridge": {}, "masquerade": {}}), "`masquerade` with `bridge`"),
        (json!({"name": "short", "masquerade": {}}), "vmNetworkCIDR `10.9`"),
        (json!({"name": "default", "masquerade": {}, "ports": [{"port": 70000}]}), "port 70000 is not one of"),
        (json!({"name": "default", "masquerade": {}, "ports": [{"port": 1, "protocol": "SCTP"}]}), "`SCTP`"),
        (json!({"name": "lan", "bridge": {}, "macAddress": "zz"}), "`zz` is not an Ethernet address"),
        (json!({"name": "lan", "bridge": {}, "state": "sideways"}), "state `sideways`"),
        (json!({"name": "lan", "bridge": {}, "portRanges": [{"start": 1, "end": 2, "protocol": "TCP"}]}), "portRanges"),
    ] {
        let name = interface["name"].as_str().unwrap().to_owned();
        let error = one(interface).unwrap_err();
        assert!(error.contains(expected) && error.contains(&format!("interface `{name}`")), "{error}");
    }
    let error = bind(json!([{"name": "lan", "bridge": {}}]), &[]).unwrap_err();
    assert!(error.contains("the sandbox has no attachment"), "{error}");
}

#[test]
fn host_names_are_one_label() {
    let named = |name: &str| {
        let mut vmi = VirtualMachineInstance::default();
        vmi.spec.hostname = Some(name.to_owned());
        hostname(&vmi)
    };
    assert_eq!(named("web-1"), "web-1");
    assert_eq!(named("web.lan"), "web");
    assert_eq!(named(&format!("{}-x", "a".repeat(62))), "a".repeat(62));
}
