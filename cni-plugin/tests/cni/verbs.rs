//! Each verb in each version on each backend, from an empty node to an empty node.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::thread;

use serde_json::{Value, json};

use crate::host::{DEADLINE, Host, Netns, eventually};
use crate::plugin::{Call, code, config};

pub const VERSIONS: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];

#[test]
fn version_needs_no_agent() {
    let host = Host::new();
    for version in VERSIONS {
        let call = Call::new("c", host.folder.path(), &json!({"cniVersion": version})).verb("VERSION");
        let answer = call.run().unwrap();
        assert_eq!(answer, json!({"cniVersion": version, "supportedVersions": VERSIONS}));
    }
}

#[test]
fn a_life_on_a_linux_bridge() {
    let host = Host::started();
    for version in VERSIONS {
        life(&host, version, "linux-bridge");
    }
}

#[test]
fn a_life_on_ovs() {
    let host = Host::with_ovs();
    for version in VERSIONS {
        life(&host, version, "ovs");
    }
    assert_eq!(host.ovs().vsctl("get bridge ovs0 datapath_type").unwrap(), "netdev");
}

fn life(host: &Host, version: &str, backend: &str) {
    let pods = [host.pod(), host.pod()];
    let config = config(host, version, backend);
    let calls = [Call::new("one", &pods[0].path, &config), Call::new("two", &pods[1].path, &config)];
    let newest = version == "1.1.0";
    if newest {
        assert_eq!(calls[0].verb("STATUS").run(), Ok(Value::Null));
    } else {
        assert_eq!(code(calls[0].verb("STATUS").run()), 1);
    }

    let results = calls.each_ref().map(|call| call.run().unwrap());
    for ((call, pod), result) in calls.iter().zip(&pods).zip(&results) {
        assert_eq!(result["cniVersion"], version);
        check_pod(pod, call, result);
        assert_eq!(result["ips"][0].get("version"), (version < "1.0.0").then_some(&json!("4")));
        assert_eq!(result["interfaces"][1].get("mtu"), newest.then_some(&json!(1500)));
    }
    assert_ne!(results[0]["ips"][0]["address"], results[1]["ips"][0]["address"]);
    if backend == "ovs" {
        assert_eq!(host.ovs().ports(), host.host_ends());
    }
    assert_eq!(host.host_ends().len(), 2);
    reach(&pods[0], &pods[1], &results[1]);

    let checks = calls.each_ref().map(|call| call.verb("CHECK").with("prevResult", result_of(&results, call)).run());
    for check in checks {
        if version == "0.3.1" {
            assert_eq!(code(check), 1);
        } else {
            assert_eq!(check, Ok(Value::Null));
        }
    }
    if newest {
        collect(host, &calls);
    } else {
        assert_eq!(calls[0].verb("DEL").with("prevResult", results[0].clone()).run(), Ok(Value::Null));
    }
    eventually("the first interface goes", || if pods[0].links().is_empty() { Ok(()) } else { Err("there".into()) });
    assert_eq!(pods[1].links(), ["net1"]);
    assert_eq!(calls[1].verb("DEL").run(), Ok(Value::Null));
    host.assert_clean();
}

fn result_of(results: &[Value; 2], call: &Call) -> Value {
    results[usize::from(call.container == "two")].clone()
}

/// What the answer says is what is in the pod.
fn check_pod(pod: &Netns, call: &Call, result: &Value) {
    assert_eq!(pod.links(), ["net1"]);
    let link = &pod.ip("address show dev net1")[0];
    let interface = &result["interfaces"][1];
    assert_eq!((&interface["name"], &interface["sandbox"]), (&json!("net1"), &json!(call.netns)));
    assert_eq!((&link["address"], &link["mtu"]), (&interface["mac"], &json!(1500)));
    assert_eq!(link["operstate"], "UP");
    let ip = &result["ips"][0];
    assert_eq!((&ip["interface"], &ip["gateway"]), (&json!(1), &json!("192.0.2.1")));
    let address = &link["addr_info"].as_array().unwrap().iter().find(|a| a["family"] == "inet").unwrap();
    let text = format!("{}/{}", address["local"].as_str().unwrap(), address["prefixlen"]);
    assert_eq!(ip["address"], text);
}

/// A megabyte of TCP from one pod to the other: more than ARP and the first checksum.
fn reach(from: &Netns, to: &Netns, result: &Value) {
    let address = result["ips"][0]["address"].as_str().unwrap().split('/').next().unwrap().to_owned();
    let listener = to.inside(|| TcpListener::bind("0.0.0.0:7777").unwrap());
    let received = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        std::io::copy(&mut stream, &mut std::io::sink()).unwrap()
    });
    let address = format!("{address}:7777").parse().unwrap();
    let mut stream = from.inside(move || TcpStream::connect_timeout(&address, DEADLINE).unwrap());
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(&vec![0x55; 1 << 20]).unwrap();
    drop(stream);
    assert_eq!(received.join().unwrap(), 1 << 20);
}

/// GC keeps what is valid; an absent list tells nothing of what is not.
fn collect(host: &Host, calls: &[Call; 2]) {
    let gc = calls[0].verb("GC");
    assert_eq!(gc.run(), Ok(Value::Null));
    assert_eq!(code(gc.with("cni.dev/valid-attachments", json!([{"ifname": "net1"}])).run()), 7);
    assert_eq!(host.host_ends().len(), 2);
    let both = json!([{"containerID": "one", "ifname": "net1"}, {"containerID": "two", "ifname": "net1"}]);
    assert_eq!(gc.with("cni.dev/valid-attachments", both).run(), Ok(Value::Null));
    assert_eq!(host.host_ends().len(), 2);
    let other = gc.with("name", json!("another")).with("cni.dev/valid-attachments", json!([]));
    assert_eq!(other.run(), Ok(Value::Null));
    assert_eq!(host.host_ends().len(), 2);
    let valid = json!([{"containerID": "two", "ifname": "net1"}]);
    assert_eq!(gc.with("cni.dev/valid-attachments", valid).run(), Ok(Value::Null));
}
