//! Many at once, and how long one takes.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

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

fn at_once(calls: &[Call]) -> Vec<Value> {
    thread::scope(|scope| {
        let running: Vec<_> = calls.iter().map(|call| scope.spawn(|| call.run().unwrap())).collect();
        running.into_iter().map(|call| call.join().unwrap()).collect()
    })
}

/// One after the other; the medians are printed, and the bounds are those of a machine that is not loaded.
#[test]
fn one_takes_milliseconds() {
    let host = Host::with_ovs();
    for backend in ["linux-bridge", "ovs"] {
        let config = config(&host, "1.1.0", backend);
        let pods: Vec<_> = (0..30).map(|_| host.pod()).collect();
        let calls: Vec<_> =
            pods.iter().enumerate().map(|(n, pod)| Call::new(&format!("m{n}"), &pod.path, &config)).collect();
        let add = median(&calls);
        let del = median(&calls.iter().map(|call| call.verb("DEL")).collect::<Vec<_>>());
        println!("{backend}: ADD p50 {add:?}, DEL p50 {del:?}");
        assert!(add < Duration::from_millis(500), "{backend}: ADD takes {add:?}");
        assert!(del < Duration::from_millis(200), "{backend}: DEL takes {del:?}");
    }
    host.assert_clean();
}

fn median(calls: &[Call]) -> Duration {
    let mut times: Vec<_> = calls
        .iter()
        .map(|call| {
            let start = Instant::now();
            call.run().unwrap();
            start.elapsed()
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}
