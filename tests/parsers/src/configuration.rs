//! What administrators write about networks: CNI configurations and UnderlayNetworks.

use std::collections::BTreeMap;
use std::path::Path;

use holdfast_agent::cni::result::{CniResult, Version};
use holdfast_api::pool::Pool;
use holdfast_api::underlay::{self, Subnet, UnderlayNetwork};
use holdfast_ipam::network::{NetConf, NetworkConfig, NetworkError, NetworkList};
use holdfast_net::model::Backend;
use serde_json::{Value, json};

/// How many addresses of a pool are looked at.
const CANDIDATES: usize = 3;

/// A configuration as a runtime hands it to the plugin, and the result of the plugins before it.
pub fn cni_config(bytes: &[u8]) {
    let Ok(config) = serde_json::from_slice::<Value>(bytes) else { return };
    if let Some(Ok(result)) = config.get("prevResult").cloned().map(CniResult::parse) {
        assert_eq!(CniResult::parse(result.print(Version::V110).unwrap()).as_ref(), Ok(&result));
        for version in [Version::V031, Version::V040, Version::V100] {
            let printed = result.print(version).unwrap();
            assert_eq!(CniResult::parse(printed.clone()).unwrap().print(version).unwrap(), printed);
        }
    }
    let Ok(conf) = NetConf::parse(&config) else { return };
    assert!(conf.runtime.mac.is_none_or(|mac| !mac.is_multicast()));
    match conf.resolve(None, &BTreeMap::new()) {
        Ok(network) => resolved(&network),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// The configuration in a NetworkAttachmentDefinition.
pub fn nad_config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(list) = NetworkList::parse(text, "nad") else { return };
    assert_eq!(NetworkList::of_recorded(&list.to_value()).unwrap(), list);
    let _ = list.without_guests();
    let capabilities = json!({"mac": "02:00:00:00:00:01", "ips": ["192.0.2.1/24"]});
    for plugin in &list.plugins {
        let kind = plugin["type"].as_str().unwrap();
        // It is looked for in folders: it is a file there, or nothing.
        assert_eq!(Path::new(kind).file_name().and_then(|name| name.to_str()), Some(kind));
        let input = list.input(plugin, &capabilities, Some(&json!({})));
        assert_eq!((&input["type"], &input["name"]), (&json!(kind), &json!(list.name)));
        assert!(input.get("capabilities").is_none());
    }
    if let Some(ours) = list.with_agent_socket(Path::new("/run/agent.sock")).ours() {
        assert!(!ours["agentSocket"].is_null());
        let _ = NetConf::parse(&ours).and_then(|conf| conf.resolve(None, &BTreeMap::new()));
    }
}

/// The spec of an UnderlayNetwork: what is admitted can be carried out.
pub fn underlay_network(bytes: &[u8]) {
    let Ok(spec) = serde_json::from_slice::<Value>(bytes) else { return };
    let object = |spec: Value| {
        let identity = json!({"apiVersion": "holdfast.io/v1alpha1", "kind": "UnderlayNetwork"});
        json!({"apiVersion": identity["apiVersion"], "kind": identity["kind"], "metadata": {"name": "lan"}, "spec": spec})
    };
    let network: UnderlayNetwork = match underlay::read(&object(spec)) {
        Ok(network) => network,
        Err(causes) => {
            let told = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
            assert!(!causes.is_empty() && causes.iter().all(|cause| told(&cause.field) && told(&cause.message)));
            return;
        }
    };
    let written = object(serde_json::to_value(&network.spec).unwrap());
    assert_eq!(underlay::read(&written).unwrap().spec, network.spec);
    assert_eq!(underlay::conflict(&network, [&network]), None);
    if !underlay::problems(&network).is_empty() {
        return;
    }
    let config = json!({"cniVersion": "1.1.0", "name": "n", "type": "holdfast", "network": "lan"});
    match NetConf::parse(&config).unwrap().resolve(Some(&network), &BTreeMap::new()) {
        Ok(network) => resolved(&network),
        // Nodes of this kind may have none.
        Err(error) => assert!(matches!(error, NetworkError::NoBridge | NetworkError::NoUplink), "{error}"),
    }
}

/// A network is one that can be wired, and its addresses are of its subnets.
fn resolved(network: &NetworkConfig) {
    let valid = |id: &u16| (1..=4094).contains(id);
    if let Backend::Ovs { vlan, .. } | Backend::LinuxBridge { vlan, .. } = &network.backend {
        assert!(vlan.ids().iter().all(valid), "{vlan}");
    }
    assert!(network.mtu.is_none_or(|mtu| (68..=65535).contains(&mtu)), "{:?}", network.mtu);
    network.addressing.subnets.iter().for_each(pool);
}

fn pool(subnet: &Subnet) {
    let pool = Pool::of(subnet);
    assert!(!pool.is_empty());
    for address in pool.candidates("uid").take(CANDIDATES) {
        assert!(subnet.cidr.contains(address) && pool.contains(address), "{address} of {}", subnet.cidr);
        assert!(subnet.gateway != Some(address) && !subnet.exclude.iter().any(|kept| kept.contains(address)));
    }
}
