//! Many at once, and one after the other.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::thread;

use serde_json::Value;

use crate::host::Host;
use crate::plugin::{Call, config};

#[test]
fn fifty_at_once_on_a_linux_bridge() {
    fifty(&Host::started(), "linux-bridge");
}

#[test]
fn fifty_at_once_on_ovs() {
    fifty(&Host::with_ovs(), "ovs");
}

fn fifty(host: &Host, backend: &str) {
    let config = config(host, "1.1.0", backend);
    let pods: Vec<_> = (0..50).map(|_| host.pod()).collect();
    let calls: Vec<_> =
        pods.iter().enumerate().map(|(n, pod)| Call::new(&format!("c{n}"), &pod.path, &config)).collect();
    for _ in 0..2 {
        let results = at_once(&calls);
        let addresses: BTreeSet<_> = results.iter().map(|result| result["ips"][0]["address"].to_string()).collect();
        assert_eq!(addresses.len(), 50);
        assert_eq!(host.host_ends().len(), 50);
        let deletes: Vec<_> = calls.iter().map(|call| call.verb("DEL")).collect();
        at_once(&deletes);
    }
    host.assert_clean();
}

#[test]
fn fifty_come_and_go_on_a_linux_bridge() {
    come_and_go(&Host::started(), "linux-bridge");
}

#[test]
fn fifty_come_and_go_on_ovs() {
    come_and_go(&Host::with_ovs(), "ovs");
}

/// Fifty containers, each at its own pace: at any moment some are added while others are deleted or checked.
fn come_and_go(host: &Host, backend: &str) {
    let config = config(host, "1.1.0", backend);
    let in_use = Mutex::new(BTreeSet::new());
    let life = |n: usize| {
        let pod = host.pod();
        let call = Call::new(&format!("c{n}"), &pod.path, &config);
        // Their rounds differ, so that they do not go in step.
        for round in 0..2 + n % 4 {
            let result = call.run().unwrap();
            let address = result["ips"][0]["address"].to_string();
            assert!(in_use.lock().unwrap().insert(address.clone()), "{address} is given twice");
            assert_eq!(pod.links(), ["net1"]);
            if (n + round).is_multiple_of(2) {
                assert_eq!(call.verb("CHECK").with("prevResult", result).run(), Ok(Value::Null));
            }
            in_use.lock().unwrap().remove(&address);
            assert_eq!(call.verb("DEL").run(), Ok(Value::Null));
            if n.is_multiple_of(3) {
                assert_eq!(call.verb("DEL").run(), Ok(Value::Null));
            }
        }
    };
    thread::scope(|scope| {
        let running: Vec<_> = (0..50)
            .map(|n| {
                let life = &life;
                scope.spawn(move || life(n))
            })
            .collect();
        running.into_iter().for_each(|container| container.join().unwrap());
    });
    host.assert_clean();
}

fn at_once(calls: &[Call]) -> Vec<Value> {
    thread::scope(|scope| {
        let running: Vec<_> = calls.iter().map(|call| scope.spawn(|| call.run().unwrap())).collect();
        running.into_iter().map(|call| call.join().unwrap()).collect()
    })
}

/// The same containers on one network and then on another of the same segment, while the leases of the first are
/// still in quarantine or are just leaving it.
#[test]
fn one_after_the_other_on_two_backends() {
    let host = Host::with_ovs();
    for backend in ["linux-bridge", "ovs"] {
        let config = config(&host, "1.1.0", backend);
        let pods: Vec<_> = (0..30).map(|_| host.pod()).collect();
        let calls: Vec<_> =
            pods.iter().enumerate().map(|(n, pod)| Call::new(&format!("m{n}"), &pod.path, &config)).collect();
        for call in &calls {
            call.run().unwrap();
        }
        assert_eq!(host.host_ends().len(), 30);
        for call in &calls {
            call.verb("DEL").run().unwrap();
        }
    }
    host.assert_clean();
}
