//! `up`: looks at what is there, and starts what is not. What is healthy is left alone, so that a second call does
//! nothing, and a call on a cluster that is half dead repairs it.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use serde_json::Value;

use super::control_plane::{self, kubectl};
use super::layout::{Cluster, MOST_NODES, Node};
use super::pki::Pki;
use super::{network, node, programs};
use crate::process;

/// Longest wait for the nodes to be Ready.
const DEADLINE: Duration = Duration::from_secs(120);
/// How many nodes there are unless the call says it.
const NODES: u8 = 2;

/// Says what goes on, and how long it took.
struct Steps {
    begin: Instant,
}

impl Steps {
    fn step<T>(&self, what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let start = Instant::now();
        let result = work()?;
        let took = start.elapsed().as_secs_f64();
        // What was there already is not worth a line.
        if took >= 0.2 {
            eprintln!("cluster: {what} {took:.1} s");
        }
        Ok(result)
    }
}

/// How many nodes the cluster has or gets.
pub fn size(cluster: Cluster<'_>, asked: Option<u8>) -> Result<u8> {
    let there: Option<u8> = fs::read_to_string(cluster.size_file()).ok().and_then(|text| text.trim().parse().ok());
    match (there, asked) {
        (_, Some(asked)) if !(1..=MOST_NODES).contains(&asked) => bail!("a cluster has 1 to {MOST_NODES} nodes"),
        (Some(there), Some(asked)) if asked < there => {
            bail!("the cluster has {there} nodes; `cargo xtask cluster down` first, for it to have {asked}")
        }
        (there, asked) => Ok(asked.or(there).unwrap_or(NODES)),
    }
}

/// The nodes that it has.
pub fn nodes(cluster: Cluster<'_>) -> Result<Vec<Node<'_>>> {
    let file = cluster.size_file();
    let Ok(text) = fs::read_to_string(&file) else {
        bail!("there is no cluster `{}`; `cargo xtask cluster up` makes one", cluster.name)
    };
    let size: u8 = text.trim().parse().with_context(|| format!("failed to parse {}", file.display()))?;
    Ok((1..=size).map(|number| cluster.node(number)).collect())
}

/// Brings it up.
pub fn up(cluster: Cluster<'_>, asked: Option<u8>) -> Result<()> {
    let size = size(cluster, asked)?;
    let steps = Steps { begin: Instant::now() };
    steps.step("programs", || programs::build(&mut |line| eprintln!("cluster: {line}")))?;
    let fresh = !cluster.folder().exists();
    if fresh {
        // Those of an earlier cluster explain nothing about this one.
        let _ = fs::remove_dir_all(cluster.logs());
    }
    let pki = steps.step("certificates", || Pki::of(cluster))?;
    fs::write(cluster.size_file(), format!("{size}\n")).context("failed to note the number of nodes")?;
    let nodes = nodes(cluster)?;
    steps.step("network of the control plane and underlay", || {
        control_plane::start_machine(cluster)?;
        network::make_underlay(cluster)
    })?;
    // Nodes do not need the API server to begin.
    std::thread::scope(|scope| -> Result<()> {
        let starting: Vec<_> = nodes
            .iter()
            .map(|node| {
                let (pki, steps) = (&pki, &steps);
                scope.spawn(move || {
                    steps.step(&format!("namespaces and links of {}", node.machine.name), || {
                        node::start_machine(node, pki)
                    })?;
                    steps.step(&format!("daemons of {}", node.machine.name), || node::start(node))
                })
            })
            .collect();
        let own = steps.step("control plane", || control_plane::start(cluster, &pki));
        let all = starting.into_iter().map(|thread| thread.join().unwrap_or_else(|_| bail!("a thread ended")));
        std::iter::once(own).chain(all).collect()
    })?;
    route(&nodes)?;
    steps.step("nodes Ready", || wait_for_nodes(cluster, &nodes))?;
    eprintln!("cluster: up, {size} nodes Ready in {:.1} s", steps.begin.elapsed().as_secs_f64());
    Ok(())
}

/// Starts one node, and waits until it is Ready.
pub fn start_node(cluster: Cluster<'_>, node: &Node<'_>) -> Result<()> {
    node::start_machine(node, &Pki::of(cluster)?)?;
    node::start(node)?;
    route(&nodes(cluster)?)?;
    wait_for_nodes(cluster, std::slice::from_ref(node))
}

/// The ways between the pods of all nodes that run.
fn route(nodes: &[Node<'_>]) -> Result<()> {
    for from in nodes.iter().filter(|node| node.machine.init().is_some()) {
        for to in nodes.iter().filter(|to| to.number != from.number) {
            network::route_pods(from, to)?;
        }
    }
    Ok(())
}

/// Waits until all nodes are Ready. A failure says what each of those that are not says, and shows why.
pub fn wait_for_nodes(cluster: Cluster<'_>, nodes: &[Node<'_>]) -> Result<()> {
    let mut listed = Value::Null;
    let waited = process::wait_for("the nodes to be Ready", DEADLINE, || {
        for node in nodes {
            node::components(node).iter().try_for_each(|component| component.check(&node.machine))?;
        }
        if let Ok(text) = kubectl(cluster).args(["get", "nodes", "-o", "json"]).output() {
            listed = serde_json::from_str(&text).context("failed to parse the nodes")?;
            if nodes.iter().all(|node| unreadiness(&listed, node).is_none()) {
                return Ok(Some(()));
            }
        }
        std::thread::sleep(Duration::from_millis(100));
        Ok(None)
    });
    waited.map_err(|error| {
        let late = nodes.iter().filter_map(|node| {
            let why = unreadiness(&listed, node)?;
            let [.., kubelet, _] = node::components(node);
            Some(format!("\n{} is not Ready: {why}\n{}", node.machine.name, kubelet.explanation(&node.machine)))
        });
        anyhow::anyhow!("{error:#}{}", late.collect::<String>())
    })
}

/// Why a node is not Ready; nothing where it is. What its kubelet said before it was started anew does not count.
fn unreadiness(listed: &Value, node: &Node<'_>) -> Option<String> {
    let [.., kubelet, _] = node::components(node);
    let started = kubelet.started(&node.machine).and_then(|time| Timestamp::try_from(time).ok());
    unreadiness_since(listed, &node.machine.name, started.unwrap_or(Timestamp::MIN))
}

fn unreadiness_since(listed: &Value, name: &str, started: Timestamp) -> Option<String> {
    let Some(node) = listed["items"].as_array().into_iter().flatten().find(|node| node["metadata"]["name"] == name)
    else {
        return Some("it is not registered".to_owned());
    };
    let conditions = node["status"]["conditions"].as_array().into_iter().flatten();
    let Some(ready) = conditions.into_iter().find(|condition| condition["type"] == "Ready") else {
        return Some("it has said nothing yet".to_owned());
    };
    if ready["status"] != "True" {
        return Some(ready["message"].as_str().unwrap_or_default().to_owned());
    }
    let said: Option<Timestamp> = ready["lastHeartbeatTime"].as_str().and_then(|time| time.parse().ok());
    // The API server knows whole seconds only.
    let fresh = said.is_some_and(|said| said.as_second() >= started.as_second());
    (!fresh).then(|| "it has said nothing since its kubelet was started".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tells_why_a_node_is_not_ready() {
        let node = |status: &str| {
            json!({ "items": [{
                "metadata": { "name": "node1" },
                "status": { "conditions": [{
                    "type": "Ready",
                    "status": status,
                    "message": "no network",
                    "lastHeartbeatTime": "2026-01-02T03:04:05Z",
                }] },
            }] })
        };
        let why = |status, name, started: &str| unreadiness_since(&node(status), name, started.parse().unwrap());
        assert_eq!(why("True", "node1", "2026-01-02T03:04:05.9Z"), None);
        assert!(why("True", "node1", "2026-01-02T03:04:06Z").unwrap().contains("nothing since"));
        assert_eq!(why("False", "node1", "2026-01-02T03:04:05Z").as_deref(), Some("no network"));
        assert!(why("True", "node2", "2026-01-02T03:04:05Z").unwrap().contains("not registered"));
    }
}
