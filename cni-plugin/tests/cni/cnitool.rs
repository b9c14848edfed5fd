//! The reference runtime drives each verb, in each version, on each backend.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::host::{Host, Netns, eventually};
use crate::plugin::config;
use crate::reference::Runtime;
use crate::verbs::VERSIONS;

#[test]
fn the_reference_runtime_on_a_linux_bridge() {
    life(&Host::started(), "linux-bridge");
}

#[test]
fn the_reference_runtime_on_ovs() {
    life(&Host::with_ovs(), "ovs");
}

/// ADD, CHECK, DEL, GC and STATUS, as a user would look at what they do.
fn life(host: &Host, backend: &str) {
    for version in VERSIONS {
        let runtime = Runtime::on(host);
        runtime.network(version, &[config(host, version, backend)]);
        let pods = [host.pod(), host.pod()];
        let paths = pods.each_ref().map(|pod| pod.path.clone());
        runtime.done("status", &paths[0]);
        let results = paths.each_ref().map(|path| runtime.add(path));
        for (pod, result) in pods.iter().zip(&results) {
            check_result(pod, result, version);
        }
        ping(&pods[0], &address(&results[1]));
        ping(&pods[1], &address(&results[0]));
        for path in &paths {
            match runtime.call("check", path) {
                Err(error) if version == "0.3.1" => {
                    assert!(error.contains("does not support the CHECK command"), "{error}")
                }
                answer => assert_eq!(answer.as_deref(), Ok("")),
            }
        }
        let added_twice = runtime.call("add", &paths[0]).unwrap_err();
        assert!(added_twice.contains("exists already"), "{added_twice}");
        ping(&pods[1], &address(&results[0]));

        runtime.done("del", &paths[0]);
        runtime.done("del", &paths[0]);
        gone(&pods[0]);
        assert_eq!((pods[1].links(), runtime.cached().len()), (vec!["eth0".to_owned()], 1));
        // cnitool knows no valid attachment.
        runtime.done("gc", &paths[1]);
        gone(&pods[1]);
        assert_eq!(runtime.cached(), [""; 0]);
        host.assert_clean();
        // What GC has removed, without a result and without its namespace.
        drop(pods);
        runtime.done("del", &paths[1]);
        host.assert_clean();
    }
}

/// The pod's interface is what the result says.
fn check_result(pod: &Netns, result: &Value, version: &str) {
    assert_eq!(result["cniVersion"], version);
    let interfaces = result["interfaces"].as_array().unwrap();
    let index = interfaces.iter().position(|interface| interface["name"] == "eth0").unwrap();
    let link = &pod.ip("address show dev eth0")[0];
    assert_eq!(interfaces[index]["sandbox"], json!(pod.path));
    assert_eq!(interfaces[index]["mac"], link["address"]);
    assert_eq!(interfaces[index].get("mtu"), (version == "1.1.0").then_some(&link["mtu"]));
    let ip = &result["ips"][0];
    assert_eq!((&ip["interface"], &ip["gateway"]), (&json!(index), &json!("192.0.2.1")));
    let local = link["addr_info"].as_array().unwrap().iter().find(|info| info["family"] == "inet").unwrap();
    assert_eq!(ip["address"], format!("{}/{}", local["local"].as_str().unwrap(), local["prefixlen"]));
}

/// The first address of a result, without its prefix.
pub fn address(result: &Value) -> String {
    result["ips"][0]["address"].as_str().unwrap().split('/').next().unwrap().to_owned()
}

/// At least one of a few pings is answered: the first may be lost while a switch learns.
pub fn ping(from: &Netns, to: &str) {
    from.run(&format!("ping -c 5 -i 0.2 -W 2 {to}"));
}

fn gone(pod: &Netns) {
    eventually("the pod is empty", || if pod.links().is_empty() { Ok(()) } else { Err(format!("{:?}", pod.links())) });
}

/// What may be missing when it comes to DEL.
#[derive(Clone, Copy, Debug)]
enum Missing {
    Netns,
    Result,
    Bridge,
    Agent,
    Ovs,
}

#[test]
fn del_by_the_reference_runtime_succeeds_without_what_is_missing() {
    for backend in ["linux-bridge", "ovs"] {
        for missing in [Missing::Netns, Missing::Result, Missing::Bridge, Missing::Agent, Missing::Ovs] {
            if backend == "ovs" {
                del_without(&mut Host::with_ovs(), backend, missing);
            } else if !matches!(missing, Missing::Ovs) {
                del_without(&mut Host::started(), backend, missing);
            }
        }
    }
}

fn del_without(host: &mut Host, backend: &str, missing: Missing) {
    println!("DEL on {backend} without {missing:?}");
    let runtime = Runtime::on(host);
    runtime.network("1.0.0", &[config(host, "1.0.0", backend)]);
    let mut pod = Some(host.pod());
    let path: PathBuf = pod.as_ref().unwrap().path.clone();
    runtime.add(&path);
    match missing {
        Missing::Netns => pod = None,
        Missing::Result => runtime.forget(),
        Missing::Bridge => {
            host.remove_bridge(backend);
            let error = runtime.call("check", &path).unwrap_err();
            assert!(error.contains("bridge"), "{error}");
        }
        Missing::Agent => host.kill(),
        Missing::Ovs => host.stop_ovs(),
    }
    runtime.done("del", &path);
    runtime.done("del", &path);
    match missing {
        Missing::Agent => host.start(),
        Missing::Ovs => host.start_ovs(),
        Missing::Netns | Missing::Result | Missing::Bridge => {}
    }
    if let Some(pod) = &pod {
        gone(pod);
    }
    host.assert_clean();
}

/// Networks that are shared with another runtime say `disableGC`.
#[test]
fn a_network_without_gc_is_left_alone() {
    let host = Host::started();
    let runtime = Runtime::on(&host);
    let plugins = [config(&host, "1.1.0", "linux-bridge")];
    runtime.write(&json!({"cniVersion": "1.1.0", "name": "lab", "disableGC": true, "plugins": plugins}));
    let pod = host.pod();
    runtime.add(&pod.path);
    runtime.done("gc", &pod.path);
    runtime.done("check", &pod.path);
    runtime.done("del", &pod.path);
    host.assert_clean();
}
