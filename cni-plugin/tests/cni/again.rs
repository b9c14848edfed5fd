//! Calls that are ended half-way, overtaken, repeated, or made of a node that has lost its memory.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use futures::future::BoxFuture;
use holdfast_agent::workloads::{Attach, AttachError, NotReady, PlainPods, PodRef, VmNic, Workloads};
use holdfast_api::lease::Claim;
use holdfast_ipam::leases::{FileStore, Lease, LeaseError, LeaseKind, LeaseStore};
use holdfast_net::model::IfName;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::agent::get;
use crate::annotated::Annotated;
use crate::host::{Host, eventually, files};
use crate::plugin::{Call, HOLDFAST, code, config};

fn gone(pod: &crate::host::Netns) {
    eventually("the pod is empty", || if pod.links().is_empty() { Ok(()) } else { Err(format!("{:?}", pod.links())) });
}

/// A plugin that is killed: half of the rounds go on with DEL, the others with ADD once more.
#[test]
fn a_plugin_that_is_killed_at_any_moment() {
    let host = Host::started();
    let config = config(&host, "1.1.0", "linux-bridge");
    let mut repeated = 0;
    for round in 0..80 {
        let pod = host.pod();
        let call = Call::new(&format!("c{round}"), &pod.path, &config);
        let mut plugin = call.spawn(Path::new(HOLDFAST));
        // An ADD takes a few milliseconds: these moments are spread over all of it.
        thread::sleep(Duration::from_micros(150 * (round / 2)));
        let _ = plugin.kill();
        plugin.wait().unwrap();
        if round % 2 == 0 {
            match call.run() {
                Ok(_) => repeated += 1,
                // The plugin had its answer: for the runtime that ADD is done.
                Err(error) => assert_eq!(error["code"], 7, "{error}"),
            }
            assert_eq!(pod.links(), ["net1"]);
        }
        assert_eq!(call.verb("DEL").run(), Ok(Value::Null));
        gone(&pod);
    }
    println!("{repeated} of 40 were repeated");
    host.assert_clean();
}

/// Networks that are told only when the gate is open.
#[derive(Clone)]
struct Gated {
    inner: Annotated,
    asked: watch::Sender<bool>,
    open: watch::Sender<bool>,
}

impl Workloads for Gated {
    fn vm_nic(&self, pod: &PodRef, ifname: &IfName) -> Result<Option<VmNic>, NotReady> {
        self.inner.vm_nic(pod, ifname)
    }

    fn networks<'a>(&'a self, pod: &'a PodRef) -> BoxFuture<'a, Result<Vec<Attach>, AttachError>> {
        Box::pin(async move {
            self.asked.send_replace(true);
            self.open.subscribe().wait_for(|open| *open).await.unwrap();
            self.inner.networks(pod).await
        })
    }
}

/// A runtime that gives up on an ADD kills the plugin and says DEL, which overtakes what the agent still does.
#[test]
fn a_del_that_overtakes_its_add() {
    let gate =
        Gated { inner: Annotated::with_lan(), asked: watch::Sender::new(false), open: watch::Sender::new(false) };
    gate.inner.annotate("pod-c", "lan");
    let mut host = Host::new();
    host.start_with(Arc::new(gate.clone()));
    let pod = host.pod();
    let config = json!({"cniVersion": "1.1.0", "name": "cluster", "type": "holdfast", "chained": true,
        "agentSocket": host.socket()});
    let call = Call::new("c", &pod.path, &config).ifname("eth0").with("prevResult", json!({"cniVersion": "1.1.0"}));
    let mut plugin = call.spawn(Path::new(HOLDFAST));
    eventually("the agent is at it", || if *gate.asked.borrow() { Ok(()) } else { Err("not yet".into()) });
    plugin.kill().unwrap();
    plugin.wait().unwrap();
    assert_eq!(call.verb("DEL").run(), Ok(Value::Null));
    gate.open.send_replace(true);
    let served = r#"holdfast_cni_duration_seconds_count{verb="ADD",backend="chained",outcome="ok"} 1"#;
    eventually("the ADD ends", || if get(&host, "/metrics").contains(served) { Ok(()) } else { Err("no".into()) });
    gone(&pod);
    host.assert_clean();
    // The next one is an ADD like any other.
    call.run().unwrap();
    assert_eq!(pod.links(), ["net1"]);
    assert_eq!(call.verb("DEL").run(), Ok(Value::Null));
    host.assert_clean();
}

/// GC and DEL of the same attachments at once, and an ADD of each behind them.
#[test]
fn gc_while_dels_are_in_flight() {
    let host = Host::started();
    let pod = host.pod();
    let config = config(&host, "1.1.0", "linux-bridge");
    let calls: Vec<_> = (0..8).map(|n| Call::new("c", &pod.path, &config).ifname(&format!("net{n}"))).collect();
    let kept = Call::new("kept", &pod.path, &config).ifname("kept");
    kept.run().unwrap();
    let gc = kept.verb("GC").with("cni.dev/valid-attachments", json!([{"containerID": "kept", "ifname": "kept"}]));
    for _ in 0..5 {
        calls.iter().for_each(|call| drop(call.run().unwrap()));
        thread::scope(|scope| {
            let collector = scope.spawn(|| gc.run());
            let deletes: Vec<_> = calls.iter().map(|call| scope.spawn(|| call.verb("DEL").run())).collect();
            deletes.into_iter().for_each(|delete| assert_eq!(delete.join().unwrap(), Ok(Value::Null)));
            assert_eq!(collector.join().unwrap(), Ok(Value::Null));
        });
    }
    eventually("the one that is valid stays alone", || {
        if pod.links() == ["kept"] { Ok(()) } else { Err(format!("{:?}", pod.links())) }
    });
    // No attachment is valid.
    assert_eq!(gc.with("cni.dev/valid-attachments", Value::Null).run(), Ok(Value::Null));
    gone(&pod);
    host.assert_clean();
}

/// The node has started anew: the state is there, bridges, namespaces and what stood in /run are not. The path of the
/// pod's namespace leads to another one.
#[test]
fn after_a_reboot() {
    for backend in ["linux-bridge", "ovs"] {
        let mut host = Host::with_ovs();
        let pod = host.pod();
        let call = Call::new("c", &pod.path, &config(&host, "1.1.0", backend));
        let result = call.run().unwrap();
        host.kill();
        let path = pod.path.clone();
        drop(pod);
        for name in files(&host.state().join("attachments")) {
            let file = host.state().join("attachments").join(name);
            let mut record: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
            assert!(record["netns"]["boot"].is_string());
            record["netns"]["boot"] = json!("00000000-0000-0000-0000-000000000000");
            fs::write(file, record.to_string()).unwrap();
        }
        fs::remove_dir_all(host.folder.path().join("run")).unwrap();
        host.remove_bridge(backend);
        let pod = crate::host::Netns::at(&path);
        pod.run("ip link add net1 type bridge");
        // kubelet ends the pods of before while the agent may not be there yet.
        assert_eq!(call.verb("DEL").with("prevResult", result).run(), Ok(Value::Null));
        host.start();
        assert_eq!(call.verb("DEL").run(), Ok(Value::Null));
        host.assert_clean();
        assert_eq!(pod.links(), ["net1"], "of the new namespace nothing is ours");
    }
}

/// A store of leases that can be away, as an API server can.
struct Away {
    store: FileStore,
    away: Arc<AtomicBool>,
}

impl Away {
    fn reach(&self, kind: LeaseKind) -> Result<&FileStore, LeaseError> {
        if self.away.load(Ordering::SeqCst) {
            let source = std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into();
            return Err(LeaseError::Store { verb: "reach", kind, name: "any".into(), source });
        }
        Ok(&self.store)
    }
}

impl LeaseStore for Away {
    fn create(&self, lease: Lease) -> BoxFuture<'_, Result<Lease, LeaseError>> {
        Box::pin(async move { self.reach(lease.kind())?.create(lease).await })
    }

    fn get<'a>(&'a self, kind: LeaseKind, name: &'a str) -> BoxFuture<'a, Result<Option<Lease>, LeaseError>> {
        Box::pin(async move { self.reach(kind)?.get(kind, name).await })
    }

    fn list(&self, kind: LeaseKind) -> BoxFuture<'_, Result<Vec<Lease>, LeaseError>> {
        Box::pin(async move { self.reach(kind)?.list(kind).await })
    }

    fn held<'a>(
        &'a self,
        kind: LeaseKind,
        segment: &'a str,
        claim: &'a Claim,
    ) -> BoxFuture<'a, Result<Vec<Lease>, LeaseError>> {
        Box::pin(async move { self.reach(kind)?.held(kind, segment, claim).await })
    }

    fn update_status(&self, lease: Lease) -> BoxFuture<'_, Result<Lease, LeaseError>> {
        Box::pin(async move { self.reach(lease.kind())?.update_status(lease).await })
    }

    fn delete(&self, lease: Lease) -> BoxFuture<'_, Result<(), LeaseError>> {
        Box::pin(async move { self.reach(lease.kind())?.delete(lease).await })
    }
}

#[test]
fn while_the_leases_cannot_be_reached() {
    let away = Arc::new(AtomicBool::new(false));
    let mut host = Host::new();
    let flag = away.clone();
    host.start_over(Arc::new(PlainPods), |store| Arc::new(Away { store, away: flag }));
    let pod = host.pod();
    let call = Call::new("c", &pod.path, &config(&host, "1.1.0", "linux-bridge"));
    let result = call.run().unwrap();
    away.store(true, Ordering::SeqCst);
    assert_eq!(call.verb("CHECK").with("prevResult", result).run(), Ok(Value::Null));
    assert_eq!(call.verb("STATUS").run(), Ok(Value::Null));
    assert_eq!(code(call.clone().ifname("net2").run()), 11);
    assert_eq!(pod.links(), ["net1"]);
    assert_eq!(call.verb("DEL").run(), Ok(Value::Null));
    assert_eq!(call.verb("DEL").run(), Ok(Value::Null));
    gone(&pod);
    assert_eq!(files(&host.state().join("leases/ipleases")).len(), 1);
    away.store(false, Ordering::SeqCst);
    host.assert_clean();
}

/// Another file in its place by rename, while calls run: none of them fails.
#[test]
fn the_plugin_is_replaced_while_it_runs() {
    let host = Host::started();
    let installed = host.folder.path().join("holdfast");
    let script = "cp $0 $1.new && mv $1.new $1";
    // By another process: a file that this one writes is open in whatever it is just starting, and so cannot be executed.
    let install = || {
        let copied = Command::new("sh").args(["-c", script, HOLDFAST]).arg(&installed).status().unwrap();
        assert!(copied.success());
    };
    install();
    let pod = host.pod();
    let config = config(&host, "1.1.0", "linux-bridge");
    thread::scope(|scope| {
        let calls: Vec<_> = (0..4).map(|n| Call::new("c", &pod.path, &config).ifname(&format!("net{n}"))).collect();
        let running: Vec<_> = calls
            .into_iter()
            .map(|call| {
                let installed = &installed;
                scope.spawn(move || {
                    for _ in 0..10 {
                        call.exec(installed).unwrap();
                        assert_eq!(call.verb("DEL").exec(installed), Ok(Value::Null));
                    }
                })
            })
            .collect();
        while running.iter().any(|calls| !calls.is_finished()) {
            install();
        }
        running.into_iter().for_each(|calls| calls.join().unwrap());
    });
    host.assert_clean();
}
