//! What a runtime, a user or a broken node can do to a plugin.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use crate::host::{Host, Netns, eventually, files};
use crate::plugin::{Call, code, config};

#[test]
fn an_interface_that_exists_is_refused_and_stays() {
    let host = Host::started();
    let pod = host.pod();
    pod.run("ip link add net1 type bridge");
    let call = Call::new("c", &pod.path, &config(&host, "1.1.0", "linux-bridge"));
    let error = call.run().unwrap_err();
    assert!(error["msg"].as_str().unwrap().contains("net1"), "{error}");
    assert_eq!(pod.links(), ["net1"]);
    host.assert_clean();

    // Ours: a second ADD is an error, and does no harm to the first.
    let call = call.ifname("net2");
    let result = call.run().unwrap();
    assert_eq!(code(call.run()), 7);
    assert_eq!(call.verb("CHECK").with("prevResult", result).run(), Ok(Value::Null));
    assert_eq!(call.verb("DEL").run(), Ok(Value::Null));
    host.assert_clean();
}

#[test]
fn del_succeeds_whatever_is_missing() {
    let host = Host::started();
    let config = config(&host, "1.0.0", "linux-bridge");
    // Never added.
    assert_eq!(Call::new("never", Path::new("/nowhere"), &config).verb("DEL").run(), Ok(Value::Null));
    // Twice; at once again.
    let pod = host.pod();
    let call = Call::new("twice", &pod.path, &config);
    for _ in 0..3 {
        call.run().unwrap();
        assert_eq!(call.verb("DEL").run(), Ok(Value::Null));
        assert_eq!(call.verb("DEL").run(), Ok(Value::Null));
    }
    // The namespace is gone; its path is not even told.
    let pod = host.pod();
    let mut call = Call::new("gone", &pod.path, &config);
    call.run().unwrap();
    drop(pod);
    call.netns.clear();
    assert_eq!(call.verb("DEL").run(), Ok(Value::Null));
    // The bridge is gone, and the configuration is nonsense by now.
    let pod = host.pod();
    let call = Call::new("bridgeless", &pod.path, &config);
    call.run().unwrap();
    host.netns.run("ip link del br0");
    assert_eq!(call.verb("DEL").with("backend", json!("nonsense")).run(), Ok(Value::Null));
    host.assert_clean();
}

#[test]
fn del_succeeds_without_ovs() {
    let mut host = Host::with_ovs();
    let pod = host.pod();
    let call = Call::new("c", &pod.path, &config(&host, "1.0.0", "ovs"));
    call.run().unwrap();
    host.stop_ovs();
    assert_eq!(call.verb("DEL").run(), Ok(Value::Null));
    assert_eq!(call.verb("DEL").run(), Ok(Value::Null));
    eventually("the record goes", || {
        let left = files(&host.state().join("attachments"));
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    let unserved = Call::new("d", &pod.path, &config(&host, "1.1.0", "ovs")).verb("STATUS");
    assert_eq!(code(unserved.run()), 50);
    // What needs Open vSwitch to go, goes when it is back.
    host.start_ovs();
    host.assert_clean();
}

#[test]
fn a_note_stands_in_for_an_agent_that_is_away() {
    let mut host = Host::started();
    let pod = host.pod();
    let call = Call::new("c", &pod.path, &config(&host, "1.1.0", "linux-bridge"));
    call.run().unwrap();
    host.stop();
    assert_eq!(code(call.verb("STATUS").run()), 50);
    assert_eq!(code(call.ifname("net9").run()), 11);
    let call = Call::new("c", &pod.path, &config(&host, "1.1.0", "linux-bridge"));
    assert_eq!(call.verb("DEL").run(), Ok(Value::Null));
    assert_eq!(pod.links(), ["net1"]);
    host.start();
    eventually("the note is obeyed", || if pod.links().is_empty() { Ok(()) } else { Err("still there".into()) });
    // And only once.
    call.run().unwrap();
    assert_eq!(call.verb("DEL").run(), Ok(Value::Null));
    host.assert_clean();
}

#[test]
fn wrong_calls_are_refused_by_name() {
    let host = Host::started();
    let pod = host.pod();
    let good = Call::new("c", &pod.path, &config(&host, "1.1.0", "linux-bridge"));
    for (call, expected, word) in [
        (good.with("cniVersion", json!("0.2.0")), 1, "0.2.0"),
        (good.with("bridge", json!("no-such-br")), 102, "no-such-br"),
        (good.with("brigde", json!("br0")), 7, "brigde"),
        (good.with("mtu", json!(1)), 7, "mtu"),
        (good.with("vlan", json!({"access": 5})), 102, "`ip link set br0 type bridge vlan_filtering 1`"),
        (good.with("vlan", json!({"tunnel": 5})), 2, "vlan.tunnel"),
        (good.with("ipam", json!({"type": "host-local"})), 2, "ipam"),
        (good.with("backend", json!("macvtap")), 2, "portSecurity"),
        (good.with("capabilities", json!({"portMappings": true})), 2, "portMappings"),
        (good.with("agentSocket", json!("relative")), 7, "agentSocket"),
        (good.with("runtimeConfig", json!({"mac": "01:00:00:00:00:01"})), 7, "mac"),
        (good.with("runtimeConfig", json!({"ips": ["198.51.100.1"]})), 7, "198.51.100.1"),
        (good.with("runtimeConfig", json!({"ips": ["192.0.2.1"]})), 7, "192.0.2.1"),
        (good.with("subnets", json!([{"cidr": "192.0.2.0/33"}])), 7, "subnets[0].cidr"),
        (good.with("uplink", json!("no-uplink")), 102, "no-uplink"),
        (Call { netns: "/nowhere".into(), ..good.clone() }, 8, "/nowhere"),
        (Call { netns: "/etc/passwd".into(), ..good.clone() }, 8, "/etc/passwd"),
        (Call { netns: host.netns.path.display().to_string(), ..good.clone() }, 8, "own network namespace"),
        (Call { container: "-c".into(), ..good.clone() }, 4, "CNI_CONTAINERID"),
        (good.clone().ifname("0123456789abcdef"), 4, "CNI_IFNAME"),
        (good.clone().ifname("."), 4, "CNI_IFNAME"),
        (good.clone().ifname("a/b"), 4, "CNI_IFNAME"),
        (good.clone().ifname("a:b"), 4, "CNI_IFNAME"),
        (good.clone().ifname("a b"), 4, "CNI_IFNAME"),
        (Call { args: "K=V".into(), ..good.clone() }, 4, "CNI_ARGS"),
        (good.verb("CHECK").with("prevResult", json!({"cniVersion": "1.1.0"})), 3, "c/net1"),
        (good.verb("CHECK"), 7, "prevResult"),
    ] {
        let error = call.run().unwrap_err();
        assert_eq!(error["code"], expected, "{error}");
        assert_eq!(error["cniVersion"], call.config["cniVersion"]);
        assert!(
            error["msg"].as_str().unwrap().contains(word)
                || error["details"].as_str().unwrap_or_default().contains(word),
            "{word}: {error}"
        );
    }
    assert!(pod.links().is_empty());
    host.assert_clean();
}

#[test]
fn one_address_is_never_given_twice() {
    let host = Host::started();
    let pods = [host.pod(), host.pod()];
    let config = config(&host, "1.1.0", "linux-bridge");
    let wanted = json!({"ips": ["192.0.2.77"], "mac": "02:00:00:00:00:77"});
    let calls = ["first", "second"].map(|name| {
        Call::new(name, &pods[usize::from(name == "second")].path, &config).with("runtimeConfig", wanted.clone())
    });
    let result = calls[0].run().unwrap();
    assert_eq!(result["ips"][0]["address"], "192.0.2.77/24");
    assert_eq!(result["interfaces"][1]["mac"], "02:00:00:00:00:77");
    let error = calls[1].run().unwrap_err();
    assert_eq!(error["code"], 100, "{error}");
    assert!(error["msg"].as_str().unwrap().contains("Pod `lab/pod-first`, network `net1`"), "{error}");
    assert!(pods[1].links().is_empty());
    assert_eq!(calls[0].verb("DEL").run(), Ok(Value::Null));
    // In quarantine it is nobody's, after it the second one's.
    eventually("the address comes free", || match calls[1].run() {
        Ok(_) => Ok(()),
        Err(error) => {
            // The two leases come free one after the other.
            let message = error["msg"].as_str().unwrap();
            assert!(["192.0.2.77", "02:00:00:00:00:77"].iter().any(|held| message.contains(held)), "{error}");
            Err(error.to_string())
        }
    });
    assert_eq!(calls[1].verb("DEL").run(), Ok(Value::Null));
    host.assert_clean();
}

#[test]
fn a_pod_has_an_address_for_each_interface() {
    let host = Host::started();
    let pod = host.pod();
    let config = config(&host, "1.1.0", "linux-bridge");
    let calls = ["net1", "net2", "a.b"].map(|name| Call::new("c", &pod.path, &config).ifname(name));
    let addresses: BTreeSet<String> =
        calls.iter().map(|call| call.run().unwrap()["ips"][0]["address"].to_string()).collect();
    assert_eq!(addresses.len(), 3);
    assert_eq!(pod.links(), ["a.b", "net1", "net2"]);
    assert_eq!(calls[1].verb("DEL").run(), Ok(Value::Null));
    eventually("one goes", || if pod.links() == ["a.b", "net1"] { Ok(()) } else { Err(format!("{:?}", pod.links())) });
    for call in calls {
        assert_eq!(call.verb("DEL").run(), Ok(Value::Null));
    }
    host.assert_clean();
}

#[test]
fn a_path_that_leads_elsewhere_by_now_is_recognised() {
    let host = Host::started();
    let pod = host.pod();
    let call = Call::new("old", &pod.path, &config(&host, "1.1.0", "linux-bridge"));
    let result = call.run().unwrap();
    let path = pod.path.clone();
    drop(pod);
    let pod = Netns::at(&path);
    // Neither CHECK nor the loop takes the new namespace for the old one.
    let check = code(call.verb("CHECK").with("prevResult", result).run());
    assert!(check == 8 || check == 3, "{check}");
    host.assert_clean();
    assert!(pod.links().is_empty());
}

/// Keys of `args`, arguments of capabilities that we have not, variables that are none of CNI's.
#[test]
fn what_is_not_known_to_us_is_ignored_where_the_specification_says_so() {
    let host = Host::started();
    let pod = host.pod();
    let args = json!({"labels": [{"key": "app"}], "cni": {"ips": ["192.0.2.44"], "colour": "blue"}, "other": 1});
    let mut call = Call::new("c", &pod.path, &config(&host, "1.1.0", "linux-bridge")).with("args", args);
    call.environment = vec![("TRACEPARENT", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), ("CNI_X", "1")];
    call.args.push_str(";COLOUR=blue");
    let runtime = json!({"aliases": ["web"], "portMappings": [], "dns": {}});
    let result = call.with("runtimeConfig", runtime).with("cni.dev/colour", json!("blue")).run().unwrap();
    assert_eq!(result["ips"][0]["address"], "192.0.2.44/24");
    assert_eq!(call.verb("DEL").run(), Ok(Value::Null));
    host.assert_clean();
}

#[test]
fn the_nodes_own_namespace_is_joined_only_where_that_is_meant() {
    let host = Host::started();
    let mut call = Call::new("c", &host.netns.path, &config(&host, "1.1.0", "linux-bridge"));
    assert_eq!(code(call.run()), 8);
    call.environment = vec![("CNI_NETNS_OVERRIDE", "true")];
    call.run().unwrap();
    assert!(host.netns.links().contains(&"net1".to_owned()));
    assert_eq!(call.verb("DEL").run(), Ok(Value::Null));
    host.assert_clean();
    assert!(!host.netns.links().contains(&"net1".to_owned()));
}

/// One full network is no reason to take a node out of service.
#[test]
fn a_full_pool_fails_add_and_not_status() {
    let host = Host::started();
    let pod = host.pod();
    let mut config = config(&host, "1.1.0", "linux-bridge");
    config["subnets"] = json!([{"cidr": "192.0.2.0/30", "gateway": "192.0.2.1"}]);
    let calls = ["net1", "net2"].map(|name| Call::new("c", &pod.path, &config).ifname(name));
    calls[0].run().unwrap();
    assert_eq!(code(calls[1].run()), 11);
    assert_eq!(calls[0].verb("STATUS").run(), Ok(Value::Null));
    assert_eq!(pod.links(), ["net1"]);
    assert_eq!(calls[0].verb("DEL").run(), Ok(Value::Null));
    eventually("the address comes free", || calls[1].run().map(|_| ()).map_err(|error| error.to_string()));
    assert_eq!(calls[1].verb("DEL").run(), Ok(Value::Null));
    host.assert_clean();
}
