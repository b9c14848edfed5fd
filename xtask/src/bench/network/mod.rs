//! The lane `network`: what an attachment costs, by the CNI plugin and the agent as they are shipped, in namespaces made
//! for it. Beside ours stand the reference plugins, called by the same code in the same run, a call of theirs between
//! any two of ours; or, where nobody does the same, the least that it can take.
//!
//! A pod's interface is what is measured: a VM's NIC is attached by the same calls, and the guest's own part (emulated on
//! most machines that this is run on) would hide what they take.

mod bed;
mod drift;
mod plugin;
mod throughput;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::record::{Record, UPSTREAM, percentile};
use crate::{cluster, process, workspace};
use bed::{BRIDGE, Bed, OVS_BRIDGE, REFERENCE_BRIDGE, inside_of, node};
use plugin::{Plugin, exec};

/// How many ADDs a figure is of.
const CALLS: usize = 50;
/// How many attachments there are when memory is measured, and of which ports are taken away.
const ATTACHED: usize = 20;
/// How many ports there are when it is measured whether their number counts.
const MANY: usize = 500;
/// How many ADDs and DELs that is measured by.
const ROUNDS: usize = 15;
/// How many are added at once while a bridge is filled.
const AT_ONCE: usize = 25;
/// Longest wait for what a DEL leaves to be done behind it.
const DEADLINE: Duration = Duration::from_secs(60);
/// The peer of what the reference plugins do as well.
const REFERENCE: &str = "reference bridge plugin and host-local";

/// Makes what is needed, measures, and takes it down.
pub fn measure(records: &mut Vec<Record>, tell: &dyn Fn(&str)) -> Result<()> {
    tell("building holdfastd and the plugins");
    workspace::build_node()?;
    cluster::build_cni(&mut |line| tell(line))?;
    let mut bed = Bed::up()?;
    let measured = measure_on(&mut bed, records, tell);
    let down = bed.down();
    measured.and(down)
}

fn measure_on(bed: &mut Bed, records: &mut Vec<Record>, tell: &dyn Fn(&str)) -> Result<()> {
    tell("attachments to a Linux bridge");
    linux_bridge(bed, records)?;
    tell("attachments to an OVS bridge");
    ovs(bed, records)?;
    tell("what is deleted behind our back");
    drift::measure(bed, records)?;
    tell("throughput");
    throughput::measure(bed, records)?;
    many(bed, records, tell)
}

fn linux_bridge(bed: &mut Bed, records: &mut Vec<Record>) -> Result<()> {
    let (ours, reference) = (Plugin::ours(bed, "linux-bridge", BRIDGE), Plugin::reference(bed, REFERENCE_BRIDGE));
    let pods = bed.pods(2 * CALLS)?.to_vec();
    let (mine, theirs) = pods.split_at(CALLS);
    let bed = &*bed;
    let (mut add, mut del, mut memory) = (Pair::default(), Pair::default(), 0.0);
    let floor = inside_of(&node(), || {
        let floor = (0..CALLS).map(|_| Ok(exec(Path::new("/bin/true"), &BTreeMap::new(), "")?.0));
        let floor = floor.collect::<Result<Vec<_>>>()?;
        let mut ports = Vec::new();
        for (pod, other) in mine.iter().zip(theirs) {
            process::check_signals()?;
            let added = ours.add(pod)?;
            add.ours.push(added.took);
            ports.push(added.port);
            add.theirs.push(reference.add(other)?.took);
            if ports.len() == ATTACHED {
                memory = bed.memory()?;
            }
        }
        for (pod, other) in mine.iter().zip(theirs) {
            process::check_signals()?;
            del.ours.push(ours.del(pod)?);
            del.theirs.push(reference.del(other)?);
        }
        ports.iter().try_for_each(|port| until_gone(port)).map(|()| floor)
    })?;
    let (ours, theirs) = add.medians();
    records.push(Record::new("start and end of a program (/bin/true), P50", percentile(&floor, 50), "ms"));
    let name = |what: &str| format!("linux-bridge, {what}");
    records.push(Record::new(name("ADD, P50"), ours, "ms").beside(REFERENCE, theirs).at_most(3.0));
    records.push(Record::new(name("ADD, times as fast"), theirs / ours, "").beside(REFERENCE, 1.0).at_least(4.0));
    let (ours, theirs) = del.medians();
    records.push(Record::new(name("DEL, P50"), ours, "ms").beside(REFERENCE, theirs).at_most(2.0));
    let record = Record::new(format!("memory of holdfastd with {ATTACHED} attachments (RSS)"), memory, "MiB");
    records.push(record.beside(&format!("virt-handler of {UPSTREAM}"), 92.0).at_most(30.0));
    Ok(())
}

fn ovs(bed: &mut Bed, records: &mut Vec<Record>) -> Result<()> {
    let plugin = Plugin::ours(bed, "ovs", OVS_BRIDGE);
    let pods = bed.pods(CALLS)?.to_vec();
    let alone = inside_of(&node(), || rounds(&plugin, &pods))?;
    let burst = inside_of(&node(), || at_once(&plugin, &pods))?;
    inside_of(&node(), || remove(&plugin, &pods))?;
    let (one, all) = ports_by_hand(bed)?;
    let name = |what: &str| format!("ovs, {what}");
    let took = percentile(&alone.add, 50);
    records.push(Record::new(name("ADD alone, P50"), took, "ms").beside("ovs-vsctl add-port", one).at_most(12.0));
    records.push(Record::new(name("DEL, P50"), percentile(&alone.del, 50), "ms"));
    records.push(Record::new(name("DEL until the port is gone, P50"), percentile(&alone.gone, 50), "ms"));
    let each = burst / CALLS as f64;
    let record = Record::new(name(&format!("ADD in a burst of {CALLS}, time for each")), each, "ms");
    records.push(record.beside("one ovs-vsctl for all ports", all / CALLS as f64).at_most(1.0));
    Ok(())
}

/// Milliseconds that ovs-vsctl takes to add one port, and all at once, until the switch has taken them in. The links are
/// there already, and nothing is asked of them.
fn ports_by_hand(bed: &Bed) -> Result<(f64, f64)> {
    let names: Vec<String> = (0..CALLS).map(|number| format!("hand{number}")).collect();
    for name in &names {
        let line = ["link", "add", name, "type", "veth", "peer", "name", &format!("{name}p")];
        bed.on_node("ip").args(line).output()?;
        bed.on_node("ip").args(["link", "set", name, "up"]).output()?;
    }
    let timed = |arguments: &[&str]| -> Result<f64> {
        let begin = Instant::now();
        bed.vsctl(arguments)?;
        Ok(begin.elapsed().as_secs_f64() * 1e3)
    };
    let mut each = Vec::new();
    for name in &names {
        each.push(timed(&["add-port", OVS_BRIDGE, name])?);
        bed.vsctl(&["del-port", OVS_BRIDGE, name])?;
    }
    let joined = |verb| names.iter().flat_map(|name| ["--", verb, OVS_BRIDGE, name]).collect::<Vec<_>>();
    let all = timed(&joined("add-port"))?;
    bed.vsctl(&joined("del-port"))?;
    for name in &names {
        bed.on_node("ip").args(["link", "del", name]).output()?;
    }
    Ok((percentile(&each, 50), all))
}

/// What an ADD takes beside one port, and beside many.
fn many(bed: &mut Bed, records: &mut Vec<Record>, tell: &dyn Fn(&str)) -> Result<()> {
    let linux = Plugin::ours(bed, "linux-bridge", BRIDGE);
    let (ovs, reference) = (Plugin::ours(bed, "ovs", OVS_BRIDGE), Plugin::reference(bed, REFERENCE_BRIDGE));
    let pods = bed.pods(MANY + ROUNDS)?.to_vec();
    let (there, measured) = pods.split_at(MANY);
    let bed = &*bed;
    let ratio = |name: &str, plugin: &Plugin| {
        tell(&format!("{MANY} ports of {name}"));
        inside_of(&node(), || {
            plugin.add(&there[0])?;
            let few = percentile(&rounds(plugin, measured)?.add, 50);
            for group in there[1..].chunks(AT_ONCE) {
                at_once(plugin, group)?;
            }
            let many = percentile(&rounds(plugin, measured)?.add, 50);
            let (by_hand, _) = ports_by_hand(bed)?;
            remove(plugin, there)?;
            Ok((many / few, by_hand))
        })
    };
    let (theirs, by_hand) = ratio(REFERENCE, &reference)?;
    let (ours, _) = ratio("linux-bridge", &linux)?;
    let name = |backend: &str| format!("{backend}, ADD beside {MANY} ports : beside 1");
    records.push(Record::new(name("linux-bridge"), ours, "").beside(REFERENCE, theirs).at_most(1.5));
    // Of the switch's ports there is one while the reference has its own.
    let (ours, by_hand_beside_many) = ratio("ovs", &ovs)?;
    let theirs = by_hand_beside_many / by_hand;
    records.push(Record::new(name("ovs"), ours, "").beside("ovs-vsctl add-port", theirs).at_most(1.5));
    Ok(())
}

/// The same of ours and of the peer, measured in turns.
#[derive(Default)]
struct Pair {
    ours: Vec<f64>,
    theirs: Vec<f64>,
}

impl Pair {
    fn medians(&self) -> (f64, f64) {
        (percentile(&self.ours, 50), percentile(&self.theirs, 50))
    }
}

/// Milliseconds of ADDs and DELs, and from the begin of a DEL until its port is gone.
#[derive(Default)]
struct Rounds {
    add: Vec<f64>,
    del: Vec<f64>,
    gone: Vec<f64>,
}

/// Adds and deletes one pod after the other.
fn rounds(plugin: &Plugin, pods: &[PathBuf]) -> Result<Rounds> {
    let mut rounds = Rounds::default();
    for pod in pods {
        process::check_signals()?;
        let added = plugin.add(pod)?;
        let begin = Instant::now();
        rounds.add.push(added.took);
        rounds.del.push(plugin.del(pod)?);
        until_gone(&added.port)?;
        rounds.gone.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    Ok(rounds)
}

/// Adds all pods at once; milliseconds until the last one is.
fn at_once(plugin: &Plugin, pods: &[PathBuf]) -> Result<f64> {
    let start = Barrier::new(pods.len() + 1);
    std::thread::scope(|scope| {
        let calls: Vec<_> = pods
            .iter()
            .map(|pod| {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    plugin.add(pod).map(drop)
                })
            })
            .collect();
        start.wait();
        let begin = Instant::now();
        for call in calls {
            call.join().unwrap_or_else(|_| bail!("a thread of the bench panicked"))?;
        }
        Ok(begin.elapsed().as_secs_f64() * 1e3)
    })
}

/// Deletes all pods, and returns when their ports are gone.
fn remove(plugin: &Plugin, pods: &[PathBuf]) -> Result<()> {
    let before = links()?;
    for pod in pods {
        process::check_signals()?;
        plugin.del(pod)?;
    }
    process::wait_for("the ports to be gone", DEADLINE, || Ok((links()? + pods.len() <= before).then_some(())))
}

/// How many links the namespace of this thread has.
fn links() -> Result<usize> {
    Ok(nix::net::if_::if_nameindex().context("failed to list the links")?.iter().count())
}

/// Returns when there is no such link in the namespace of this thread.
fn until_gone(port: &str) -> Result<()> {
    until(&format!("port {port} to be gone"), DEADLINE, || Ok(nix::net::if_::if_nametoindex(port).is_err()))
}

/// Returns as soon as something is so; what is measured needs a closer look than other waits.
fn until(what: &str, deadline: Duration, mut so: impl FnMut() -> Result<bool>) -> Result<()> {
    let begin = Instant::now();
    while !so()? {
        process::check_signals()?;
        if begin.elapsed() > deadline {
            bail!("timed out waiting for {what} after {} s", deadline.as_secs());
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    Ok(())
}
