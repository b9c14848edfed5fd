use std::collections::{BTreeMap, BTreeSet};

use holdfast_api::underlay::{AddressPair, NodeOverride, UnderlayNetwork, UnderlayNetworkSpec};
use holdfast_net::model::{Backend, Vlan};
use serde_json::{Value, json};

use super::{NetConf, NetworkError, resolve};

fn inline(extra: Value) -> Result<super::NetworkConfig, NetworkError> {
    let mut config =
        json!({"cniVersion": "1.1.0", "name": "lab", "type": "holdfast", "backend": "ovs", "bridge": "br0"});
    for (key, value) in extra.as_object().unwrap() {
        config[key] = value.clone();
    }
    resolve(&config, None, &BTreeMap::new())
}

#[test]
fn an_inline_configuration_has_the_keys_of_a_spec() {
    let network = inline(json!({
        "vlan": {"access": 7}, "mtu": 1400, "segment": "rack-1", "datapath": "netdev", "dns": {}, "ipam": {},
        "subnets": [{"cidr": "192.0.2.0/24", "gateway": "192.0.2.1", "dns": {"servers": ["192.0.2.53"], "search": ["lab"]},
                     "routes": [{"dst": "198.51.100.0/24"}]}],
    }))
    .unwrap();
    assert_eq!(network.backend, Backend::Ovs { bridge: "br0".into(), vlan: Vlan::Access(7) });
    assert_eq!((network.addressing.segment.as_str(), network.mtu), ("rack-1", Some(1400)));
    let delivery = network.addressing.delivery(&["192.0.2.9/24".parse().unwrap()]);
    assert!(delivery.dhcp_v4);
    assert_eq!(delivery.gateways, ["192.0.2.1".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(delivery.routes[0].gateway, Some("192.0.2.1".parse().unwrap()));
    assert_eq!(delivery.search, ["lab"]);
}

#[test]
fn a_port_may_use_what_the_network_gave_it() {
    let (mac, address) = ("02:00:00:00:00:01".parse().unwrap(), ["192.0.2.7/24".parse().unwrap()]);
    let ipv4 = json!([{"cidr": "192.0.2.0/24"}]);
    let both = json!([{"cidr": "192.0.2.0/24"}, {"cidr": "2001:db8::/64"}]);
    for (extra, limited_ipv4, limited_ipv6) in [
        (json!({"subnets": ipv4}), true, false),
        (json!({"subnets": both, "portSecurity": true}), true, true),
        (json!({}), false, false),
        (json!({"subnets": both, "vlan": {"trunk": [7]}}), false, false),
        (json!({"subnets": both, "vlan": {"trunk": [7]}, "backend": "linux-bridge"}), false, false),
        (json!({"subnets": both, "vlan": {"tunnel": 7}}), false, false),
    ] {
        let security = inline(extra.clone()).unwrap().security(mac, &address, &[]).unwrap();
        assert_eq!(security.macs, [mac].into(), "{extra}");
        assert_eq!(security.ipv4, limited_ipv4.then(|| ["192.0.2.7".parse().unwrap()].into()), "{extra}");
        assert_eq!(security.ipv6, limited_ipv6.then(BTreeSet::new), "{extra}");
    }
    assert_eq!(inline(json!({"subnets": ipv4, "portSecurity": false})).unwrap().security(mac, &address, &[]), None);

    let virtual_mac = json!("00:00:5e:00:01:0a");
    let allowed = json!([{"cidr": "10.9.0.0/16"}, {"cidr": "198.51.100.1", "mac": virtual_mac}]);
    let network = inline(json!({"subnets": both, "allowedAddressPairs": allowed})).unwrap();
    let pairs: Vec<AddressPair> = serde_json::from_value(allowed).unwrap();
    assert_eq!(network.addressing.check_pairs(&pairs), Ok(()));
    let security = network.security(mac, &address, &pairs).unwrap();
    assert_eq!(security.macs, [mac, "00:00:5e:00:01:0a".parse().unwrap()].into());
    let expected = ["192.0.2.7", "10.9.0.0/16", "198.51.100.1"].map(|prefix| prefix.parse().unwrap());
    assert_eq!((security.ipv4, security.ipv6), (Some(expected.into()), Some([].into())));
    let beyond: Vec<AddressPair> = serde_json::from_value(json!([{"cidr": "10.8.0.1"}])).unwrap();
    let error = network.addressing.check_pairs(&beyond).unwrap_err().to_string();
    assert!(error.starts_with("network `lab`: address pair `10.8.0.1/32` is not one"), "{error}");
}

#[test]
fn the_segment_of_an_inline_configuration_is_its_wire() {
    let node = |bridge: &str| json!({"nodeSelector": {}, "bridge": bridge});
    for (extra, segment) in [
        (json!({}), "br0"),
        (json!({"name": "other"}), "br0"),
        (json!({"backend": "linux-bridge"}), "br0"),
        (json!({"vlan": {"access": 5}}), "br0.vlan5"),
        (json!({"vlan": {"trunk": [5, 6], "native": 5}}), "br0"),
        (json!({"bridge": null, "nodes": [node("br1"), node("br1")]}), "br1"),
        (json!({"nodes": [node("br1")], "segment": "lan"}), "lan"),
        (json!({"bridge": "Br_0", "segment": "lan"}), "lan"),
    ] {
        let network = inline(extra.clone()).unwrap_or_else(|error| panic!("{extra}: {error}"));
        assert_eq!(network.addressing.segment, segment, "{extra}");
    }
}

#[test]
fn an_inline_configuration_does_not_give_out_an_underlay_networks_addresses() {
    let spec = json!({"backend": "ovs", "bridge": "br0", "subnets": [{"cidr": "192.0.2.0/24"}]});
    // Of the name that the configuration has as well.
    let lan = UnderlayNetwork::new("lan", serde_json::from_value(spec).unwrap());
    for (extra, refused) in [
        (json!({}), true),
        (json!({"segment": "lan"}), false),
        (json!({"bridge": "br1"}), false),
        (json!({"vlan": {"access": 5}}), false),
    ] {
        let mut config = json!({"cniVersion": "1.1.0", "name": "lan", "type": "holdfast", "backend": "ovs",
            "bridge": "br0", "subnets": [{"cidr": "192.0.2.0/25"}]});
        config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let config = NetConf::parse(&config).unwrap();
        let result = config.beside(config.addressing(None).unwrap(), [&lan]);
        assert_eq!(result.is_err(), refused, "{extra}: {result:?}");
        if let Err(error) = result {
            let error = error.to_string();
            assert!(error.starts_with("`segment`: `br0` is not the segment of UnderlayNetwork `lan`"), "{error}");
        }
    }
    let named = NetConf::parse(&json!({"name": "nad", "type": "holdfast", "network": "lan"})).unwrap();
    let addressing = named.addressing(Some(&lan)).unwrap();
    assert_eq!(named.beside(addressing.clone(), [&lan]), Ok(addressing), "a network is not beside itself");
}

#[test]
fn a_network_knows_its_segment_and_whether_it_goes() {
    let network = |name: &str, segment: Option<&str>| {
        let spec = json!({"backend": "ovs", "bridge": name, "segment": segment});
        UnderlayNetwork::new(name, serde_json::from_value(spec).unwrap())
    };
    let (lan, twin, wan) = (network("lan", None), network("twin", Some("lan")), network("wan", None));
    let names = |config: &NetConf, own: Option<&UnderlayNetwork>| {
        let addressing = config.beside(config.addressing(own).unwrap(), [&lan, &twin, &wan]).unwrap();
        addressing.neighbours.into_iter().map(|neighbour| neighbour.name).collect::<Vec<_>>()
    };
    let named = NetConf::parse(&json!({"name": "nad", "type": "holdfast", "network": "lan"})).unwrap();
    assert_eq!(names(&named, Some(&lan)), ["twin"]);
    let inline = json!({"name": "lan", "type": "holdfast", "backend": "ovs", "bridge": "b", "segment": "lan"});
    assert_eq!(names(&NetConf::parse(&inline).unwrap(), None), ["lan", "twin"]);
    let mut gone = lan.clone();
    assert!(!named.addressing(Some(&gone)).unwrap().deleting);
    gone.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
    assert!(named.addressing(Some(&gone)).unwrap().deleting);
}

#[test]
fn an_underlay_network_is_looked_up_and_follows_the_node() {
    let spec = UnderlayNetworkSpec {
        bridge: Some("br-a".into()),
        uplink: Some("eth9".into()),
        nodes: vec![NodeOverride {
            node_selector: [("rack".to_owned(), "2".to_owned())].into(),
            bridge: Some("br-b".into()),
            mtu: Some(9000),
            ..NodeOverride::default()
        }],
        ..UnderlayNetworkSpec::default()
    };
    let underlay = UnderlayNetwork::new("lan", spec);
    let config =
        json!({"cniVersion": "1.1.0", "name": "nad", "type": "holdfast", "network": "lan", "agentSocket": "/x"});
    let bridge = |labels: &[(&str, &str)]| {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let network = resolve(&config, Some(&underlay), &labels).unwrap();
        assert_eq!((network.addressing.segment.as_str(), network.uplink.as_deref()), ("lan", Some("eth9")));
        match network.backend {
            Backend::Ovs { bridge, .. } => {
                assert_eq!(network.mtu, (bridge == "br-b").then_some(9000), "{bridge}");
                bridge
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(bridge(&[]), "br-a");
    assert_eq!(bridge(&[("rack", "2"), ("zone", "a")]), "br-b");
    assert_eq!(resolve(&config, None, &BTreeMap::new()), Err(NetworkError::Missing("lan".into())));
    let mut both = config;
    both["mtu"] = json!(1400);
    let error = resolve(&both, Some(&underlay), &BTreeMap::new()).unwrap_err();
    assert!(error.to_string().contains("`mtu` cannot stand beside `network`"), "{error}");
}

#[test]
fn a_bridge_of_ours_carries_the_gateways() {
    let network = inline(json!({
        "backend": "linux-bridge", "bridge": "hf-pod0", "bridgeGateway": {"masquerade": true}, "defaultRoute": true,
        "subnets": [{"cidr": "10.88.0.0/16", "gateway": "10.88.0.1"}],
    }))
    .unwrap();
    let Backend::LinuxBridge { gateway: Some(gateway), .. } = &network.backend else { panic!("{network:?}") };
    assert_eq!(gateway.addresses, ["10.88.0.1/16".parse().unwrap()]);
    assert!(gateway.masquerade && network.default_route);
}

#[test]
fn what_is_wrong_is_named() {
    for (extra, text) in [
        (json!({"brigde": "x"}), "`brigde` is not a key"),
        (json!({"vlan": {"acess": 7}}), "`vlan.acess` is not a key"),
        (json!({"bridgeGateway": {"nat": true}, "backend": "linux-bridge"}), "`bridgeGateway.nat` is not a key"),
        (json!({"mtu": "big"}), "`mtu`: invalid type"),
        (json!({"mtu": 20}), "`mtu`: `20` is not from 68 to 65535"),
        (json!({"backend": "nope"}), "`backend`: unknown variant"),
        (json!({"bridge": null}), "`bridge`: the backend `ovs` needs a bridge"),
        (json!({"bridge": "0123456789abcdef"}), "`bridge`: `0123456789abcdef` is not an interface name"),
        (json!({"vlan": {"access": 4095}}), "`vlan.access`: `4095`"),
        (json!({"vlan": {"access": 1, "native": 2}}), "`vlan.native`: there is a native VLAN only with a trunk"),
        (json!({"vlan": {"native": 2}}), "`vlan`: either access, trunk or tunnel is needed"),
        (
            json!({"vlan": {"tunnel": 1}, "backend": "linux-bridge"}),
            "`vlan.tunnel` is served on the backend `ovs` only",
        ),
        (
            json!({"vlan": {"access": 1}, "backend": "linux-bridge", "bridgeGateway": {}}),
            "`bridgeGateway` is not of a VLAN",
        ),
        (json!({"bridgeGateway": {}}), "`bridgeGateway` needs the backend `linux-bridge`"),
        (json!({"dhcp": {"v6": true}}), "`dhcp.v6` is not served"),
        (json!({"segment": "Rack 1"}), "`segment`: `Rack 1` names no segment"),
        (json!({"bridge": "Br_0"}), "`segment`: is needed, as `Br_0`, after the bridge, names no segment"),
        (
            json!({"nodes": [{"nodeSelector": {}, "bridge": "br1"}]}),
            "`segment`: is needed, as there is not one bridge for all nodes",
        ),
        (
            json!({"subnets": [{"cidr": "192.0.2.0/24", "gateway": "192.0.3.1"}]}),
            "`subnets[0].gateway`: `192.0.3.1` is not in",
        ),
        (
            json!({"subnets": [{"cidr": "192.0.2.0/24", "ranges": [{"start": "192.0.2.9", "end": "192.0.2.8"}]}]}),
            "`subnets[0].ranges[0].end`: `192.0.2.8` is below",
        ),
        (
            json!({"subnets": [{"cidr": "192.0.2.0/24", "routes": [{"dst": "2001:db8::/64"}]}]}),
            "`subnets[0].routes[0].dst`: `2001:db8::/64` is of the other family",
        ),
        (json!({"dns": {"nameservers": ["192.0.2.1"]}}), "`dns` is not used"),
        (json!({"capabilities": {"portMappings": true}}), "`capabilities.portMappings` is not served"),
        (json!({"runtimeConfig": {"mac": "nonsense"}}), "`runtimeConfig.mac`"),
        (json!({"args": {"cni": {"ips": ["x"]}}}), "`args.cni.ips` is `x`"),
    ] {
        let error = inline(extra.clone()).unwrap_err().to_string();
        assert!(error.contains(text), "{extra}: {error}");
    }
}

#[test]
fn a_configuration_without_a_network_says_what_to_give() {
    for config in [json!({"name": "n", "type": "holdfast"}), json!({"name": "n", "type": "holdfast", "bridge": "b"})] {
        assert_eq!(NetConf::parse(&config), Err(NetworkError::NoNetwork));
    }
}

#[test]
fn the_runtime_may_ask_in_two_ways() {
    let parse = |extra: Value| {
        let mut config =
            json!({"cniVersion": "1.1.0", "name": "lab", "type": "holdfast", "backend": "ovs", "bridge": "b"});
        config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        NetConf::parse(&config).unwrap().runtime
    };
    let both = json!({"runtimeConfig": {"mac": "02:00:00:00:00:01"},
        "args": {"cni": {"mac": "02:00:00:00:00:02", "ips": ["192.0.2.7/24", "2001:db8::7"], "color": "red"}}});
    let runtime = parse(both);
    assert_eq!(runtime.mac.unwrap().to_string(), "02:00:00:00:00:01");
    assert_eq!(runtime.ips.len(), 2);
    assert_eq!(parse(json!({"runtimeConfig": {"portMappings": []}, "args": {"labels": [1]}})), Default::default());
}
