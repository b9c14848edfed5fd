//! Our plugin at the end of a cluster's primary list: it makes what a pod's annotation asks for.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use futures::future::BoxFuture;
use holdfast_agent::workloads::{Attach, AttachError, Joined, NotReady, PodRef, VmNic, Workloads, attachments};
use holdfast_net::model::IfName;
use serde_json::{Value, json};

use crate::host::{Host, Netns, eventually, files};
use crate::plugin::{Answer, Call, code};

/// The annotations of pods by name, and what was told of them.
#[derive(Clone, Default)]
pub struct Annotated {
    pods: Arc<Mutex<BTreeMap<String, String>>>,
    joined: Arc<Mutex<Vec<Joined>>>,
    lan: Value,
}

impl Annotated {
    /// With a network `lan` on the bridge `br0`.
    pub fn with_lan() -> Self {
        let lan = json!({"type": "holdfast", "backend": "linux-bridge", "bridge": "br0",
            "subnets": [{"cidr": "192.0.2.0/24", "gateway": "192.0.2.1"}]});
        Self { lan, ..Self::default() }
    }

    /// Gives a pod its annotation.
    pub fn annotate(&self, pod: &str, text: &str) {
        self.pods.lock().unwrap().insert(pod.to_owned(), text.to_owned());
    }
}

impl Workloads for Annotated {
    fn vm_nic(&self, _: &PodRef, _: &IfName) -> Result<Option<VmNic>, NotReady> {
        Ok(None)
    }

    fn networks<'a>(&'a self, pod: &'a PodRef) -> BoxFuture<'a, Result<Vec<Attach>, AttachError>> {
        let text = self.pods.lock().unwrap().get(&pod.name).cloned().unwrap_or_default();
        let definition = |_: &str, name: &str| match name {
            "lan" | "lan2" => Some(self.lan.to_string()),
            "broken" => Some(json!({"type": "holdfast", "backend": "linux-bridge", "bridge": "nowhere0"}).to_string()),
            "strange" => Some(json!({"type": "macvlan"}).to_string()),
            _ => None,
        };
        let result = attachments(&pod.namespace, &text, definition);
        Box::pin(std::future::ready(result))
    }

    fn joined(&self, joined: Joined) {
        self.joined.lock().unwrap().push(joined);
    }
}

/// A node with that, and the pod `c`, whose primary interface is there.
struct Case {
    // Before the host, whose folder its namespace is bound in.
    pod: Netns,
    host: Host,
    workloads: Annotated,
}

impl Case {
    fn new() -> Self {
        let workloads = Annotated::with_lan();
        let mut host = Host::new();
        host.start_with(Arc::new(workloads.clone()));
        let pod = host.pod();
        pod.run("ip link add eth0 type bridge");
        Self { pod, host, workloads }
    }

    fn annotate(&self, text: &str) {
        self.workloads.annotate("pod-c", text);
    }

    /// A call as the runtime makes it, in the version of a list that has all verbs.
    fn call(&self) -> Call {
        let config = json!({"cniVersion": "1.1.0", "name": "cluster", "type": "holdfast", "chained": true,
            "agentSocket": self.host.socket()});
        Call::new("c", &self.pod.path, &config).ifname("eth0")
    }

    fn prev(&self) -> Value {
        json!({"cniVersion": "1.1.0", "dns": {},
            "interfaces": [{"name": "cni0", "mac": "02:00:00:00:00:01"},
                {"name": "eth0", "mac": "02:00:00:00:00:02", "sandbox": self.pod.path}],
            "ips": [{"address": "10.244.1.5/24", "gateway": "10.244.1.1", "interface": 1}],
            "routes": [{"dst": "0.0.0.0/0"}]})
    }

    fn add(&self) -> Answer {
        self.call().with("prevResult", self.prev()).run()
    }

    fn assert_alone(&self) {
        eventually("the primary interface is alone", || {
            let links = self.pod.links();
            if links == ["eth0"] { Ok(()) } else { Err(format!("{links:?}")) }
        });
        self.host.assert_clean();
    }
}

#[test]
fn a_pod_that_asks_for_nothing_is_passed_by() {
    let case = Case::new();
    let mut took = Vec::new();
    for _ in 0..20 {
        let start = Instant::now();
        assert_eq!(case.add(), Ok(case.prev()), "what came is answered as it came");
        took.push(start.elapsed());
    }
    took.sort();
    println!("ADD of a plain pod: p50 {:?}", took[10]);
    let check = case.call().verb("CHECK").with("prevResult", case.prev());
    assert_eq!(check.run(), Ok(Value::Null));
    assert_eq!(case.call().verb("DEL").run(), Ok(Value::Null));
    assert_eq!(case.call().verb("STATUS").run(), Ok(Value::Null));
    assert!(case.workloads.joined.lock().unwrap().is_empty());
    case.assert_alone();
}

#[test]
fn its_networks_are_made_and_go_with_it() {
    let case = Case::new();
    case.annotate(r#"[{"name": "lan", "interface": "pod1", "mac": "02:00:00:00:00:42", "ips": ["192.0.2.42"]}, {"name": "lan2"}]"#);
    assert_eq!(case.add(), Ok(case.prev()));
    assert_eq!(case.pod.links(), ["eth0", "net2", "pod1"]);
    let link = case.pod.ip("address show dev pod1").remove(0);
    assert_eq!((&link["address"], &link["addr_info"][0]["local"]), (&json!("02:00:00:00:00:42"), &json!("192.0.2.42")));
    eventually("it is told what the networks gave", || {
        let joined = case.workloads.joined.lock().unwrap();
        let found = joined.first().ok_or("nothing")?;
        assert_eq!((found.primary.as_str(), found.ifname.as_str(), found.further.len()), ("cluster", "eth0", 2));
        assert_eq!(found.further[0].0, "lab/lan");
        assert_eq!(found.further[0].1.ips[0].address.to_string(), "192.0.2.42/24");
        Ok(())
    });

    let check = case.call().verb("CHECK").with("prevResult", case.prev());
    assert_eq!(check.run(), Ok(Value::Null));
    case.pod.run("ip link set pod1 address 02:00:00:00:00:43");
    // The agent mends it at its next comparison: until then CHECK tells.
    let drifted = check.run();
    assert!(drifted == Ok(Value::Null) || code(drifted) == 101);

    // Those that the runtime names stay, also when it speaks of the list by another interface's name.
    let gc = |valid: Value| {
        let call = case.call().verb("GC").with("cni.dev/valid-attachments", valid);
        assert_eq!(call.run(), Ok(Value::Null));
    };
    gc(json!([{"containerID": "c", "ifname": "eth0"}]));
    assert_eq!(case.pod.links(), ["eth0", "net2", "pod1"]);
    // DEL as the runtime of an old list calls it: without the result.
    assert_eq!(case.call().verb("DEL").run(), Ok(Value::Null));
    case.assert_alone();
    assert_eq!(case.call().verb("DEL").run(), Ok(Value::Null));

    assert_eq!(case.add(), Ok(case.prev()));
    gc(json!([]));
    case.assert_alone();
}

#[test]
fn an_add_that_fails_leaves_none_of_them() {
    let case = Case::new();
    for (annotation, expected, words) in [
        ("lan,strange", 7, "meta plugin"),
        ("lan,nowhere", 11, "`lab/nowhere`"),
        ("lan@eth0", 7, "`eth0` is there already"),
        ("lan,broken", 102, "`lab/broken`"),
        ("a/b/c", 7, "annotation"),
    ] {
        case.annotate(annotation);
        let error = case.add().unwrap_err();
        assert_eq!(error["code"], expected, "{error}");
        assert!(error.to_string().contains(words), "{error}");
        case.assert_alone();
    }
    assert_eq!(code(case.call().run()), 7, "it stands behind another");
}

#[test]
fn while_the_agent_is_away() {
    let mut case = Case::new();
    case.annotate("lan");
    assert_eq!(case.add(), Ok(case.prev()));
    case.host.kill();
    assert_eq!(case.call().verb("STATUS").run(), Ok(Value::Null), "the node stays ready");
    assert_eq!(case.call().verb("DEL").run(), Ok(Value::Null));
    assert_eq!(code(case.add()), 11);
    // Pods of which the runtime tells that they ask for nothing do not wait.
    let told = |annotations: Value| {
        let told = json!({"io.kubernetes.cri.pod-annotations": annotations});
        case.call().with("prevResult", case.prev()).with("runtimeConfig", told).run()
    };
    assert_eq!(told(json!({"kubernetes.io/config.source": "api"})), Ok(case.prev()));
    let asks = json!({"kubernetes.io/config.source": "api", "k8s.v1.cni.cncf.io/networks": "lan"});
    assert_eq!(code(told(asks)), 11);
    assert_eq!(files(&case.host.folder.path().join("run/deleted")), ["c.eth0.chain"]);
    case.host.start_with(Arc::new(case.workloads.clone()));
    case.assert_alone();

    // A note that is there before an ADD takes nothing away from it.
    case.host.kill();
    assert_eq!(case.call().verb("DEL").run(), Ok(Value::Null));
    let note = case.host.folder.path().join("run/deleted/c.eth0.chain");
    let text = fs::read(&note).unwrap();
    case.host.start_with(Arc::new(case.workloads.clone()));
    eventually("the note is obeyed", || if note.exists() { Err("not yet".into()) } else { Ok(()) });
    fs::write(&note, text).unwrap();
    assert_eq!(case.add(), Ok(case.prev()));
    assert!(!note.exists());
    assert_eq!(case.pod.links(), ["eth0", "net1"]);
    assert_eq!(case.call().verb("DEL").run(), Ok(Value::Null));
    case.assert_alone();
}
