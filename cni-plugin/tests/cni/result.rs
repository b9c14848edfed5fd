//! Results in full, as delegating plugins and those who write statuses read them.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::host::{Host, Netns};
use crate::plugin::{Call, config};
use crate::verbs::VERSIONS;
use crate::vms::OneVm;

/// A network of two families with all that it can tell a pod.
fn rich(host: &Host, version: &str, backend: &str) -> Value {
    let mut config = config(host, version, backend);
    config["mtu"] = json!(1400);
    config["defaultRoute"] = json!(true);
    config["capabilities"] = json!({"mac": true, "ips": true});
    config["runtimeConfig"] = json!({"mac": "02:00:00:00:00:09", "ips": ["192.0.2.9", "2001:db8::9/64"]});
    config["subnets"] = json!([
        {"cidr": "192.0.2.0/24", "gateway": "192.0.2.1", "routes": [{"dst": "198.51.100.0/24", "gw": "192.0.2.254"}],
         "dns": {"servers": ["192.0.2.53"], "search": ["lab.example"]}},
        {"cidr": "2001:db8::/64", "gateway": "2001:db8::1"}]);
    config
}

fn expected(version: &str, host_end: &str, pod: &Netns) -> Value {
    let mut interfaces = json!([
        {"name": host_end, "mtu": 1400},
        {"name": "net1", "mac": "02:00:00:00:00:09", "mtu": 1400, "sandbox": pod.path},
    ]);
    let mut ips = json!([
        {"address": "192.0.2.9/24", "gateway": "192.0.2.1", "interface": 1},
        {"address": "2001:db8::9/64", "gateway": "2001:db8::1", "interface": 1},
    ]);
    if version < "1.1.0" {
        interfaces.as_array_mut().unwrap().iter_mut().for_each(|one| drop(one.as_object_mut().unwrap().remove("mtu")));
    }
    if version < "1.0.0" {
        (ips[0]["version"], ips[1]["version"]) = (json!("4"), json!("6"));
    }
    json!({
        "cniVersion": version, "interfaces": interfaces, "ips": ips,
        "routes": [{"dst": "198.51.100.0/24", "gw": "192.0.2.254"}, {"dst": "0.0.0.0/0", "gw": "192.0.2.1"},
            {"dst": "::/0", "gw": "2001:db8::1"}],
        "dns": {"nameservers": ["192.0.2.53"], "search": ["lab.example"]},
    })
}

#[test]
fn results_tell_all_that_was_made() {
    let host = Host::with_ovs();
    for backend in ["linux-bridge", "ovs"] {
        for (n, version) in VERSIONS.into_iter().enumerate() {
            let pod = host.pod();
            // The same pod by name and UID, so that it finds its addresses again.
            let mut call = Call::new("c", &pod.path, &rich(&host, version, backend));
            call.container = format!("{backend}{n}");
            let result = call.run().unwrap();
            assert_eq!(result, expected(version, &host.host_ends()[0], &pod), "{version} on {backend}");
            let link = pod.ip("address show dev net1").remove(0);
            assert_eq!((&link["address"], &link["mtu"]), (&result["interfaces"][1]["mac"], &json!(1400)));
            assert_eq!(host.netns.ip(&format!("link show dev {}", host.host_ends()[0]))[0]["mtu"], 1400);
            let routes = pod.run("ip route") + &pod.run("ip -6 route");
            for route in ["198.51.100.0/24 via 192.0.2.254", "default via 192.0.2.1", "default via 2001:db8::1"] {
                assert!(routes.contains(route), "{route}: {routes}");
            }
            assert_eq!(call.verb("DEL").with("prevResult", result).run(), Ok(Value::Null));
            crate::host::eventually("the interface goes", || {
                if host.host_ends().is_empty() { Ok(()) } else { Err(format!("{:?}", host.host_ends())) }
            });
        }
    }
    host.assert_clean();
}

/// The interface is the pod's, the addresses are the guest's: its pod has no route and no name server of them.
#[test]
fn results_of_a_vms_interface() {
    let mut host = Host::new();
    host.start_with(Arc::new(OneVm));
    let pod = host.pod();
    let mut config = rich(&host, "1.1.0", "linux-bridge");
    config["runtimeConfig"] = json!({});
    let call = Call::new("c", &pod.path, &config);
    let result = call.run().unwrap();
    let link = pod.ip("link show dev net1").remove(0);
    assert_eq!(
        result["interfaces"],
        json!([{"name": host.host_ends()[0], "mtu": 1400},
            {"name": "net1", "mac": link["address"], "mtu": 1400, "sandbox": pod.path}])
    );
    assert_eq!(result["ips"], json!([{"address": "192.0.2.42/24", "gateway": "192.0.2.1", "interface": 1}]));
    assert_eq!(result.get("routes"), None);
    assert_eq!(call.verb("DEL").run(), Ok(Value::Null));
    host.assert_clean();
}
