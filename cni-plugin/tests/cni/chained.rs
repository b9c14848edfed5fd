//! Our plugin in lists with the reference plugins: behind the bridge, before tuning and portmap.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use serde_json::{Value, json};

use crate::annotated::Annotated;
use crate::cnitool::address;
use crate::host::{DEADLINE, Host, Netns, eventually};
use crate::plugin::{Call, config};
use crate::reference::Runtime;
use crate::verbs::VERSIONS;

/// The host's address for those who are outside, and its port that leads to the pod.
const PUBLISHED: &str = "203.0.113.1:8080";
/// The Ethernet address that tuning sets on a primary interface.
const TUNED: &str = "02:00:00:00:00:99";

/// The reference bridge plugin as a cluster's primary one.
fn bridge(runtime: &Runtime) -> Value {
    json!({"type": "bridge", "bridge": "cni0", "isGateway": true, "ipam": {
        "type": "host-local", "dataDir": runtime.data().join("ipam"),
        "ranges": [[{"subnet": "198.51.100.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}})
}

/// tuning, of CNI_IFNAME.
fn tuning(runtime: &Runtime) -> Value {
    json!({"type": "tuning", "dataDir": runtime.data().join("tuning"), "sysctl": {"net.ipv4.conf.IFNAME.arp_ignore": "2"}})
}

fn portmap() -> Value {
    json!({"type": "portmap", "backend": "nftables", "capabilities": {"portMappings": true}})
}

fn publishing(runtime: Runtime) -> Runtime {
    runtime.with_capabilities(json!({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}))
}

/// A host of another network, whose way to ours is one link.
fn outside(host: &Host) -> Netns {
    let outside = host.pod();
    host.netns.run(&format!("ip link add out0 type veth peer name eth0 netns {}", outside.path.display()));
    host.netns.run("ip address add 203.0.113.1/24 dev out0");
    host.netns.run("ip link set out0 up");
    outside.run("ip address add 203.0.113.2/24 dev eth0");
    outside.run("ip link set eth0 up");
    outside
}

/// Whoever connects to the published port gets what the pod says on port 80.
fn check_published(outside: &Netns, pod: &Netns) {
    let listener = pod.inside(|| TcpListener::bind("0.0.0.0:80").unwrap());
    let server = thread::spawn(move || listener.accept().unwrap().0.write_all(b"the pod").unwrap());
    let said = outside.inside(|| {
        let published: SocketAddr = PUBLISHED.parse().unwrap();
        let mut stream = TcpStream::connect_timeout(&published, DEADLINE).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        said
    });
    assert_eq!(said, "the pod");
    server.join().unwrap();
}

/// What the others of the list did is there, CHECK agrees where the version has it, and DEL leaves nothing.
fn check_to_its_end(host: &Host, runtime: &Runtime, outside: &Netns, pod: &Netns, version: &str) {
    check_tuned(pod);
    check_published(outside, pod);
    if version != "0.3.1" {
        runtime.done("check", &pod.path);
    }
    check_removal(host, runtime, pod);
}

fn check_tuned(pod: &Netns) {
    assert_eq!(pod.run("cat /proc/sys/net/ipv4/conf/eth0/arp_ignore").trim(), "2");
}

/// DEL of the whole list, and nothing is left of any of its plugins.
fn check_removal(host: &Host, runtime: &Runtime, pod: &Netns) {
    runtime.done("del", &pod.path);
    eventually("the pod is empty", || {
        let links = pod.links();
        if links.is_empty() { Ok(()) } else { Err(format!("{links:?}")) }
    });
    runtime.done("del", &pod.path);
    assert!(!host.netns.run("nft list ruleset").contains("8080"));
    assert_eq!(runtime.cached(), [""; 0]);
    host.assert_clean();
}

#[test]
fn behind_the_reference_bridge_and_before_tuning_and_portmap() {
    let host = Host::started();
    let outside = outside(&host);
    for version in VERSIONS {
        let runtime = publishing(Runtime::on(&host));
        let mut tuning = tuning(&runtime);
        tuning["mac"] = json!(TUNED);
        let list = [bridge(&runtime), config(&host, version, "linux-bridge"), tuning, portmap()];
        runtime.network(version, &list);
        let pod = host.pod();
        let result = runtime.add(&pod.path);
        assert_eq!(result["cniVersion"], version);
        assert_eq!(pod.links(), ["eth0", "hf0"]);
        let interfaces = result["interfaces"].as_array().unwrap();
        let named = |name: &str| interfaces.iter().find(|interface| interface["name"] == name).unwrap();
        // Each plugin keeps what the ones before it said: the bridge's, ours, what tuning made of it.
        assert_eq!((&named("eth0")["mac"], &named("eth0")["sandbox"]), (&json!(TUNED), &json!(pod.path)));
        let ours = pod.ip("address show dev hf0").remove(0);
        assert_eq!((&named("hf0")["mac"], &named("hf0")["sandbox"]), (&ours["address"], &json!(pod.path)));
        assert_eq!(named("hf0").get("mtu"), (version == "1.1.0").then_some(&json!(1500)));
        // An address of ours, but the list's are the primary's: its CHECK looks for each of them on its own interface.
        assert!(ours["addr_info"][0]["local"].as_str().unwrap().starts_with("192.0.2."));
        assert_eq!(result["ips"].as_array().unwrap().len(), 1);
        assert!(address(&result).starts_with("198.51.100."));
        assert_eq!(result["routes"][0]["dst"], "0.0.0.0/0");
        check_tuned(&pod);
        assert_eq!(pod.ip("link show dev eth0")[0]["address"], TUNED);
        check_published(&outside, &pod);
        if version != "0.3.1" {
            runtime.done("check", &pod.path);
        }
        check_removal(&host, &runtime, &pod);
    }
}

#[test]
fn as_the_primary_before_tuning_and_portmap() {
    let host = Host::with_ovs();
    host.netns.run("ip address add 192.0.2.1/24 dev ovs0");
    host.netns.run("sysctl -qw net.ipv4.ip_forward=1");
    let outside = outside(&host);
    for backend in ["ovs", "linux-bridge"] {
        for version in VERSIONS {
            let runtime = publishing(Runtime::on(&host));
            let mut ours = config(&host, version, backend);
            ours["defaultRoute"] = json!(true);
            if backend == "linux-bridge" {
                host.netns.run("ip address flush dev ovs0");
                ours["bridge"] = json!("gw0");
                ours["bridgeGateway"] = json!({});
            }
            runtime.network(version, &[ours, tuning(&runtime), portmap()]);
            let pod = host.pod();
            let result = runtime.add(&pod.path);
            assert_eq!(result["cniVersion"], version);
            assert_eq!(result["interfaces"][1]["name"], "eth0");
            assert_eq!(
                (&result["ips"][0]["interface"], &result["ips"][0]["gateway"]),
                (&json!(1), &json!("192.0.2.1"))
            );
            assert_eq!(result["routes"], json!([{"dst": "0.0.0.0/0", "gw": "192.0.2.1"}]));
            check_to_its_end(&host, &runtime, &outside, &pod, version);
        }
    }
}

/// As virt-handler extends a cluster's primary list: our plugin makes the networks that the pod asks for.
#[test]
fn at_a_primary_list_for_what_pods_ask_for() {
    let workloads = Annotated::with_lan();
    let mut host = Host::new();
    host.start_with(Arc::new(workloads.clone()));
    let outside = outside(&host);
    for version in VERSIONS {
        let runtime = publishing(Runtime::on(&host));
        let ours = json!({"type": "holdfast", "chained": true, "agentSocket": host.socket()});
        runtime.network(version, &[bridge(&runtime), ours, tuning(&runtime), portmap()]);
        let pod = host.pod();
        workloads.annotate(pod.path.file_name().unwrap().to_str().unwrap(), "lan");
        let result = runtime.add(&pod.path);
        assert_eq!(pod.links(), ["eth0", "net1"]);
        let names =
            result["interfaces"].as_array().unwrap().iter().map(|interface| interface["name"].as_str().unwrap());
        assert!(names.clone().any(|name| name == "eth0") && names.clone().all(|name| name != "net1"), "{result}");
        assert!(pod.run("ip address show dev net1").contains("192.0.2."));
        check_to_its_end(&host, &runtime, &outside, &pod, version);
    }
}

/// Results of others that are unusual: a tap in the pod, addresses that tell no interface, fields of a newer version.
#[test]
fn what_came_before_us_stays_as_it_is() {
    let host = Host::started();
    let pod = host.pod();
    let before = json!({
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "tap0", "mac": "02:00:00:00:00:07", "socketPath": "/run/tap0.sock"},
            {"name": "eth0", "mac": "02:00:00:00:00:08", "mtu": 1400, "sandbox": pod.path, "pciID": "0000:00:01.0"}],
        "ips": [{"address": "198.51.100.7/24"}, {"address": "2001:db8:7::7/64", "gateway": "2001:db8:7::1"}],
        "routes": [{"dst": "0.0.0.0/0", "gw": "198.51.100.1", "mtu": 1300, "table": 7}],
        "dns": {"nameservers": ["198.51.100.53"]},
    });
    let call = Call::new("c", &pod.path, &config(&host, "1.1.0", "linux-bridge")).ifname("eth0");
    let result = call.with("prevResult", before.clone()).run().unwrap();
    assert_eq!(result["interfaces"].as_array().unwrap()[..2], before["interfaces"].as_array().unwrap()[..]);
    assert_eq!(result["interfaces"][3]["name"], "hf0");
    for key in ["ips", "routes", "dns"] {
        assert_eq!(result[key], before[key]);
    }
    assert_eq!(pod.links(), ["hf0"]);
    assert_eq!(call.verb("CHECK").with("prevResult", result).run(), Ok(Value::Null));
    // In an older version what that has no words for is left out.
    assert_eq!(call.verb("DEL").run(), Ok(Value::Null));
    let older = call.with("cniVersion", json!("1.0.0")).with("prevResult", before).run().unwrap();
    assert_eq!(older["routes"], json!([{"dst": "0.0.0.0/0", "gw": "198.51.100.1"}]));
    assert_eq!(older["interfaces"][0], json!({"name": "tap0", "mac": "02:00:00:00:00:07"}));
    assert_eq!(call.verb("DEL").run(), Ok(Value::Null));
    host.assert_clean();
}

/// Plugins behind us may change routes: what they take out of the result is none of our business any more.
#[test]
fn routes_that_later_plugins_changed() {
    let host = Host::started();
    let pod = host.pod();
    let mut config = config(&host, "1.1.0", "linux-bridge");
    config["defaultRoute"] = json!(true);
    let call = Call::new("c", &pod.path, &config);
    let result = call.run().unwrap();
    assert_eq!(call.verb("CHECK").with("prevResult", result.clone()).run(), Ok(Value::Null));
    pod.run("ip route add 203.0.113.0/24 via 192.0.2.1");
    pod.run("ip route del default");
    let mut later = result;
    later["routes"] = json!([{"dst": "203.0.113.0/24", "gw": "192.0.2.1"}]);
    assert_eq!(call.verb("CHECK").with("prevResult", later).run(), Ok(Value::Null));
    assert!(pod.run("ip route").contains("203.0.113.0/24"), "what is not ours stays");
    assert_eq!(call.verb("DEL").run(), Ok(Value::Null));
    host.assert_clean();
}
