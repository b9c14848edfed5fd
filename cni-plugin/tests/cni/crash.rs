//! Ends at the worst instruction, and what the next start makes of it.

use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::host::{Host, Netns, eventually, files};
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

/// The agent is killed while ADDs run, at moments that are spread over all of them, and started again; the runtime says
/// DEL where it was told of a failure, and keeps the rest.
#[test]
fn the_agent_is_killed_at_any_moment_of_an_add() {
    let mut host = Host::with_ovs();
    let configs = ["linux-bridge", "ovs"].map(|backend| config(&host, "1.1.0", backend));
    let (mut added, mut refused) = (0, 0);
    for round in 0..16 {
        let pods: Vec<_> = (0..6).map(|_| host.pod()).collect();
        let call = |(n, pod): (usize, &Netns)| Call::new(&format!("r{round}c{n}"), &pod.path, &configs[n % 2]);
        let calls: Vec<_> = pods.iter().enumerate().map(call).collect();
        let answers: Vec<_> = thread::scope(|scope| {
            let running: Vec<_> = calls.iter().map(|call| scope.spawn(|| call.run())).collect();
            thread::sleep(Duration::from_millis(round * 2));
            host.kill();
            host.start();
            running.into_iter().map(|call| call.join().unwrap()).collect()
        });
        let mut addresses = BTreeSet::new();
        for ((call, pod), answer) in calls.iter().zip(&pods).zip(&answers) {
            match answer {
                Ok(result) => {
                    assert!(addresses.insert(result["ips"][0]["address"].to_string()), "{result}");
                    let check = call.verb("CHECK").with("prevResult", result.clone());
                    eventually("what was answered is there", || check.run().map(drop).map_err(|e| e.to_string()));
                    added += 1;
                }
                Err(error) => {
                    assert_eq!(error["code"], 11, "{error}");
                    assert_eq!(call.verb("DEL").run(), Ok(Value::Null));
                    refused += 1;
                    eventually("nothing is left in the pod", || match pod.links() {
                        links if links.is_empty() => Ok(()),
                        links => Err(format!("{links:?}")),
                    });
                }
            }
        }
        for call in &calls {
            assert_eq!(call.verb("DEL").run(), Ok(Value::Null));
        }
        host.assert_clean();
    }
    println!("{added} were added, {refused} were not");
    assert!(added > 0 && refused > 0);
}

/// The name of a record may be on disk before its content is, until its ADD is answered.
#[test]
fn a_record_that_a_power_cut_emptied_is_none() {
    let mut host = Host::with_ovs();
    for content in [&[][..], &[0; 300]] {
        let pod = host.pod();
        Call::new("c", &pod.path, &config(&host, "1.1.0", "ovs")).run().unwrap();
        host.kill();
        let name = files(&host.state().join("attachments")).remove(0);
        fs::write(host.state().join("attachments").join(name), content).unwrap();
        host.start();
        eventually("the pod's interface goes", || if pod.links().is_empty() { Ok(()) } else { Err("there".into()) });
        host.assert_clean();
    }
}
