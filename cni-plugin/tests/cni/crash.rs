//! Ends at the worst instruction, and what the next start makes of it.

use std::fs;

use serde_json::{Value, json};

use crate::host::{Host, eventually, files};
use crate::plugin::{Call, config};

#[test]
fn a_record_without_devices_converges_at_the_start() {
    let mut host = Host::started();
    let pod = host.pod();
    let call = Call::new("c", &pod.path, &config(&host, "1.1.0", "linux-bridge"));
    let result = call.run().unwrap();
    host.kill();
    // As if the end had come between the record and the first device.
    let end = host.host_ends().remove(0);
    host.netns.run(&format!("ip link del {end}"));
    assert!(pod.links().is_empty());
    host.start();
    eventually("the devices come", || {
        if pod.links() == ["net1"] && host.host_ends() == [end.clone()] {
            Ok(())
        } else {
            Err(format!("{:?}", pod.links()))
        }
    });
    // The runtime has no answer yet, so it asks again, and gets the same.
    assert_eq!(call.run().unwrap(), result);
    assert_eq!(call.verb("CHECK").with("prevResult", result).run(), Ok(Value::Null));
    assert_eq!(call.verb("DEL").run(), Ok(Value::Null));
    host.assert_clean();
}

#[test]
fn devices_and_leases_without_a_record_go() {
    let mut host = Host::with_ovs();
    for backend in ["linux-bridge", "ovs"] {
        let pod = host.pod();
        let call = Call::new("c", &pod.path, &config(&host, "1.1.0", backend));
        call.run().unwrap();
        host.kill();
        for name in files(&host.state().join("attachments")) {
            fs::remove_file(host.state().join("attachments").join(name)).unwrap();
        }
        host.start();
        eventually("the pod's interface goes", || if pod.links().is_empty() { Ok(()) } else { Err("there".into()) });
        host.assert_clean();
    }
}

#[test]
fn what_is_not_ours_stays() {
    let host = Host::started();
    host.netns.run("ip link add hf0123456789abc type veth peer name other");
    host.netns.run("ip link set hf0123456789abc alias somebody-else");
    let pod = host.pod();
    let call = Call::new("c", &pod.path, &config(&host, "1.1.0", "linux-bridge"));
    call.run().unwrap();
    assert_eq!(call.verb("DEL").run(), Ok(Value::Null));
    let gc = call.verb("GC").with("cni.dev/valid-attachments", json!([]));
    assert_eq!(gc.run(), Ok(Value::Null));
    eventually("ours is gone", || {
        if host.host_ends().len() == 1 { Ok(()) } else { Err(format!("{:?}", host.host_ends())) }
    });
    assert!(host.netns.links().contains(&"other".to_owned()));
    host.netns.run("ip link del other");
    host.assert_clean();
}

#[test]
fn a_sandbox_that_went_while_the_agent_was_away_is_forgotten() {
    let mut host = Host::with_ovs();
    let pod = host.pod();
    Call::new("c", &pod.path, &config(&host, "1.1.0", "ovs")).run().unwrap();
    host.kill();
    drop(pod);
    host.start();
    host.assert_clean();
}

#[test]
fn attachments_and_leases_outlive_the_agent() {
    let mut host = Host::with_ovs();
    let pods = [host.pod(), host.pod()];
    let config = config(&host, "1.1.0", "ovs");
    let call = Call::new("a", &pods[0].path, &config);
    let address = call.run().unwrap()["ips"][0]["address"].clone();
    let before = (host.host_ends(), host.ovs().ports(), pods[0].ip("address"));
    host.kill();
    assert_eq!((host.host_ends(), host.ovs().ports(), pods[0].ip("address")), before);
    host.start();
    // The address is still taken.
    let ip = address.as_str().unwrap().split('/').next().unwrap();
    let other = Call::new("b", &pods[1].path, &config).with("runtimeConfig", json!({"ips": [ip]}));
    let error = other.run().unwrap_err();
    assert_eq!(error["code"], 100, "{error}");
    assert_eq!((host.host_ends(), host.ovs().ports(), pods[0].ip("address")), before);
    assert_eq!(call.verb("DEL").run(), Ok(Value::Null));
    host.assert_clean();
}
