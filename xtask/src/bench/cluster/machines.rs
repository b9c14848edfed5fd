//! Pods and VMIs that are made, watched until they run, and deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::api::Api;
use crate::{cluster, process};

/// The namespace that everything is in.
const NAMESPACE: &str = "holdfast-bench";
/// Longest wait for all of a burst to run, or to be gone.
const DEADLINE: Duration = Duration::from_secs(600);

/// What is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A pod that does nothing.
    Pod,
    /// A VMI without a disk.
    Vmi,
}

impl Kind {
    fn path(self) -> String {
        match self {
            Self::Pod => format!("/api/v1/namespaces/{NAMESPACE}/pods"),
            Self::Vmi => format!("/apis/kubevirt.io/v1/namespaces/{NAMESPACE}/virtualmachineinstances"),
        }
    }

    fn object(self, name: &str) -> Value {
        match self {
            // It ends when it is asked to, as a launcher does. With no time for that it would be gone from the API at once,
            // and its containers some time later.
            Self::Pod => json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name }, "spec": {
                "terminationGracePeriodSeconds": 15,
                "automountServiceAccountToken": false,
                "containers": [{ "name": "empty", "image": cluster::PAUSE, "imagePullPolicy": "IfNotPresent" }],
            } }),
            Self::Vmi => json!({
                "apiVersion": "kubevirt.io/v1",
                "kind": "VirtualMachineInstance",
                "metadata": { "name": name },
                "spec": {
                    "domain": {
                        "memory": { "guest": "96Mi" },
                        "devices": { "interfaces": [{ "name": "default", "masquerade": {} }] },
                    },
                    "networks": [{ "name": "default", "pod": {} }],
                    "terminationGracePeriodSeconds": 0,
                },
            }),
        }
    }
}

/// What came by a watch, and when.
struct Seen {
    kind: Kind,
    name: String,
    phase: String,
    gone: bool,
    at: Instant,
}

/// Those that are there.
pub struct Machines<'a> {
    api: &'a Api,
    seen: Receiver<Seen>,
    /// Names of those of the last burst.
    there: BTreeSet<String>,
    /// How many were made.
    made: usize,
}

impl<'a> Machines<'a> {
    /// None yet; their namespace is made, and watched.
    pub fn begin(api: &'a Api) -> Result<Self> {
        let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } });
        remove_namespace(api)?;
        api.post("/api/v1/namespaces", &namespace)?;
        let account = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts/default");
        process::wait_for("the namespace's account", Duration::from_secs(30), || {
            Ok(api.get(&account).is_ok().then_some(()))
        })?;
        let (sender, seen) = channel();
        for kind in [Kind::Pod, Kind::Vmi] {
            let events = api.watch(&format!("{}?watch=true", kind.path()))?;
            let sender = sender.clone();
            // It ends with the proxy's connection.
            std::thread::spawn(move || {
                for event in events {
                    let (at, text) = (Instant::now(), |value: &Value| value.as_str().unwrap_or_default().to_owned());
                    let object = &event["object"];
                    let (name, phase) = (text(&object["metadata"]["name"]), text(&object["status"]["phase"]));
                    if sender.send(Seen { kind, name, phase, gone: event["type"] == "DELETED", at }).is_err() {
                        break;
                    }
                }
            });
        }
        Ok(Self { api, seen, there: BTreeSet::new(), made: 0 })
    }

    /// Makes one, and deletes it when it has run. Returns the seconds from the request to the word that it runs.
    pub fn one(&mut self, kind: Kind) -> Result<f64> {
        let (name, begin) = self.make(kind)?;
        let times = self.until_running(kind, &BTreeMap::from([(name.clone(), begin)]))?;
        self.delete(kind, std::slice::from_ref(&name))?;
        Ok(times[0])
    }

    /// Makes many at once, and returns the seconds that each took to run.
    pub fn burst(&mut self, kind: Kind, count: usize) -> Result<Vec<f64>> {
        let begun = (0..count).map(|_| self.make(kind)).collect::<Result<BTreeMap<_, _>>>()?;
        self.there.extend(begun.keys().cloned());
        self.until_running(kind, &begun)
    }

    /// Deletes those of the last burst at once. Returns the seconds until they and their pods are gone.
    pub fn delete_all(&mut self, kind: Kind) -> Result<f64> {
        let names: Vec<String> = std::mem::take(&mut self.there).into_iter().collect();
        let begin = Instant::now();
        self.delete(kind, &names)?;
        Ok(begin.elapsed().as_secs_f64())
    }

    /// What the pod of a VMI asks for, in MB.
    pub fn memory_request(&self) -> Result<f64> {
        let pods = self.api.get(&Kind::Pod.path())?;
        let pod = pods["items"].as_array().and_then(|pods| pods.first()).context("there is no pod")?;
        let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
        Ok(containers
            .filter_map(|container| bytes(container["resources"]["requests"]["memory"].as_str()?))
            .sum::<f64>()
            / 1e6)
    }

    /// Removes the namespace with all that is in it.
    pub fn end(self) -> Result<()> {
        remove_namespace(self.api)
    }

    fn make(&mut self, kind: Kind) -> Result<(String, Instant)> {
        self.made += 1;
        let name = format!("bench{:03}", self.made);
        let begin = Instant::now();
        self.api.post(&kind.path(), &kind.object(&name))?;
        Ok((name, begin))
    }

    fn until_running(&self, kind: Kind, begun: &BTreeMap<String, Instant>) -> Result<Vec<f64>> {
        let mut times = BTreeMap::new();
        self.watch(&format!("{} of {kind:?} to run", begun.len()), |seen| {
            if let Some(begin) = begun.get(&seen.name).filter(|_| seen.kind == kind) {
                match seen.phase.as_str() {
                    "Running" => drop(times.entry(seen.name.clone()).or_insert(seen.at - *begin)),
                    "Failed" | "Succeeded" => bail!("{kind:?} {} ended: {}", seen.name, seen.phase),
                    _ => {}
                }
            }
            Ok(times.len() == begun.len())
        })?;
        Ok(times.values().map(Duration::as_secs_f64).collect())
    }

    fn delete(&self, kind: Kind, names: &[String]) -> Result<()> {
        let mut left: BTreeSet<String> = names.iter().cloned().collect();
        let mut pods = self.pods()?;
        for name in names {
            self.api.delete(&format!("{}/{name}", kind.path()))?;
        }
        self.watch(&format!("{} of {kind:?} to be gone", names.len()), |seen| {
            if seen.gone {
                if seen.kind == kind {
                    left.remove(&seen.name);
                }
                if seen.kind == Kind::Pod {
                    pods.remove(&seen.name);
                }
            }
            Ok(left.is_empty() && pods.is_empty())
        })
    }

    fn pods(&self) -> Result<BTreeSet<String>> {
        let pods = self.api.get(&Kind::Pod.path())?;
        let names = pods["items"].as_array().into_iter().flatten().filter_map(|pod| pod["metadata"]["name"].as_str());
        Ok(names.map(str::to_owned).collect())
    }

    /// Looks at what comes until it is enough.
    fn watch(&self, what: &str, mut enough: impl FnMut(&Seen) -> Result<bool>) -> Result<()> {
        let end = Instant::now() + DEADLINE;
        loop {
            match self.seen.recv_timeout(Duration::from_millis(200)) {
                Ok(seen) if enough(&seen)? => return Ok(()),
                Err(RecvTimeoutError::Disconnected) => bail!("the API server ended its watches"),
                _ if Instant::now() > end => bail!("timed out waiting for {what} after {} s", DEADLINE.as_secs()),
                _ => process::check_signals()?,
            }
        }
    }
}

fn remove_namespace(api: &Api) -> Result<()> {
    let path = format!("/api/v1/namespaces/{NAMESPACE}");
    if api.get(&path).is_ok() {
        api.delete(&path)?;
    }
    process::wait_for("the namespace to be gone", DEADLINE, || Ok(api.get(&path).is_err().then_some(())))
}

/// A quantity of memory: `96Mi`, `403M`, `100663296`.
fn bytes(quantity: &str) -> Option<f64> {
    let digits = quantity.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &quantity[digits.len()..] {
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "Ki" => 1024.0,
        "Mi" => 1_048_576.0,
        "Gi" => 1_073_741_824.0,
        _ => return None,
    };
    digits.parse::<f64>().ok().map(|number| number * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_quantities() {
        let all = ["100", "403M", "2Ki", "1Gi", "1x"].map(bytes);
        assert_eq!(all, [Some(100.0), Some(403e6), Some(2048.0), Some(1_073_741_824.0), None]);
    }
}
