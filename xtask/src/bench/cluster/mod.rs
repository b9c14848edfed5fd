//! The lane `cluster`: what VMs cost on a test cluster, each figure beside the floor of an empty pod in the same run, or
//! beside what KubeVirt was seen to take on such a machine.

mod api;
mod machines;
mod processes;
mod writes;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::record::{Record, UPSTREAM, percentile};
use crate::cluster::{self, Cluster};
use crate::{install, process};
use api::Api;
use machines::{Kind, Machines};
use processes::{BESIDES_QEMU, OWN, Snapshot};
use writes::Writes;

/// What a VMI is compared with in the same run.
const FLOOR: &str = "empty pod";
/// How many, one at a time.
const ONE_BY_ONE: usize = 12;
/// How many at once.
const BURSTS: [usize; 2] = [12, 30];
/// How long it is watched whether anything is written while nothing changes.
const IDLE: Duration = Duration::from_secs(60);
/// How long after the last VMI runs nothing changes any more: a kubelet has more to say of a pod a minute after its start.
const QUIET: Duration = Duration::from_secs(90);
/// How long after the last VMI runs memory is measured: guests and daemons are done with beginning.
const SETTLE: Duration = Duration::from_secs(10);

/// Measures on the cluster of this name, which is brought up for it, and down again, unless it is up.
pub fn measure(name: &str, records: &mut Vec<Record>, tell: &dyn Fn(&str)) -> Result<()> {
    if let Some(what) = cluster::missing() {
        bail!("this machine has no {what}, which a cluster needs");
    }
    let cluster = Cluster { name };
    let was_up = cluster.exists();
    let measured = cluster::bring_up(cluster, None)
        .and_then(|()| install::ensure(cluster, &mut |line| tell(line)))
        .and_then(|()| measure_on(cluster, records, tell));
    process::forget_signals();
    let down = if was_up { Ok(()) } else { cluster::take_down(cluster) };
    measured.and(down)
}

fn measure_on(cluster: Cluster<'_>, records: &mut Vec<Record>, tell: &dyn Fn(&str)) -> Result<()> {
    let api = Api::open(cluster)?;
    let mut machines = Machines::begin(&api)?;
    let measured = measure_with(cluster, &api, &mut machines, records, tell);
    process::forget_signals();
    let removed = machines.end();
    measured.and(removed)
}

fn measure_with(
    cluster: Cluster<'_>,
    api: &Api,
    machines: &mut Machines<'_>,
    records: &mut Vec<Record>,
    tell: &dyn Fn(&str),
) -> Result<()> {
    tell(&format!("{ONE_BY_ONE} pods and VMIs, one at a time"));
    let (mut pods, mut vmis) = (Vec::new(), Vec::new());
    for _ in 0..ONE_BY_ONE {
        pods.push(machines.one(Kind::Pod)?);
        vmis.push(machines.one(Kind::Vmi)?);
    }
    let (pod, vmi) = (percentile(&pods, 50), percentile(&vmis, 50));
    let running = Record::new(format!("VMI, create to Running, P50 of {ONE_BY_ONE}"), vmi, "s");
    records.push(running.clone().beside(FLOOR, pod));
    records.push(running.beside(UPSTREAM, 4.24).at_most(1.9));
    records.push(Record::new("- beyond the empty pod", vmi - pod, "s").beside(UPSTREAM, 4.24 - 0.87).at_most(1.0));
    records.push(Record::new("- times the empty pod", vmi / pod, "").beside(UPSTREAM, 4.24 / 0.87));

    let empty = Snapshot::take(cluster)?;
    for count in BURSTS {
        tell(&format!("burst of {count} VMIs"));
        burst(cluster, api, machines, count, &empty, records, tell)?;
    }
    let now = Snapshot::take(cluster)?;
    for (kind, upstream) in
        [("virt-api", 224.0), ("virt-controller", 98.0), ("virt-operator", 196.0), ("virt-handler", 92.0)]
    {
        let ours = now.largest(kind).with_context(|| format!("found no {kind}"))?;
        let name = format!("memory of the largest {kind} (RSS)");
        records.push(Record::new(name, ours, "MiB").beside(UPSTREAM, upstream).at_most(30.0));
    }
    Ok(())
}

fn burst(
    cluster: Cluster<'_>,
    api: &Api,
    machines: &mut Machines<'_>,
    count: usize,
    empty: &Snapshot,
    records: &mut Vec<Record>,
    tell: &dyn Fn(&str),
) -> Result<()> {
    let largest = count == BURSTS[BURSTS.len() - 1];
    let (cpu, writes) = (Snapshot::take(cluster)?.cpu(), Writes::take(api)?);
    let times = machines.burst(Kind::Vmi, count)?;
    let (cpu, writes) = (since(&Snapshot::take(cluster)?.cpu(), &cpu), Writes::take(api)?.since(&writes));
    let each = count as f64;
    if largest {
        for (percent, upstream, goal) in [(50, 65.6, 32.8), (95, 95.1, 47.55)] {
            let name = format!("burst of {count}, create to Running, P{percent}");
            let record = Record::new(name, percentile(&times, percent), "s");
            records.push(record.beside(UPSTREAM, upstream).at_most(goal));
        }
        report_cpu(&cpu, each, records);
        let of_vmi = writes.of("virtualmachineinstances", "POST") / each;
        records.push(Record::new("writes of the VMI, until it runs", of_vmi, "").beside(UPSTREAM, 7.0).at_most(3.0));
        let events = writes.of("events", "") / each;
        records.push(Record::new("events for each VMI, until it runs", events, "").beside(UPSTREAM, 10.0));
        records.extend(listed("writes for each VMI, until it runs", &writes, each));
        let request = machines.memory_request()?;
        records.push(Record::new("memory request of the pod of a 96 MiB guest", request, "MB").beside(UPSTREAM, 403.0));
    }
    std::thread::sleep(SETTLE);
    let memory = (Snapshot::take(cluster)?.pss(BESIDES_QEMU) - empty.pss(BESIDES_QEMU)) / each;
    let upstream = if largest { 35.0 } else { 41.0 };
    let name = format!("memory of each of {count} VMs beyond QEMU (PSS)");
    records.push(Record::new(name, memory, "MiB").beside(UPSTREAM, upstream).at_most(15.0));
    if largest {
        tell("nothing, for a while");
        std::thread::sleep(QUIET - SETTLE);
        let before = Writes::take(api)?;
        std::thread::sleep(IDLE);
        let idle = Writes::take(api)?.since(&before);
        // Nodes and leaders say that they are there by these: it is what they are for.
        let but = ["leases", "nodes"];
        records
            .push(Record::new("writes in an idle minute, but for leases and nodes", idle.but(&but), "").at_most(0.0));
        records.extend(listed("writes in an idle minute", &idle, 1.0));
    }
    let gone = machines.delete_all(Kind::Vmi)?;
    machines.burst(Kind::Pod, count)?;
    let pods_gone = machines.delete_all(Kind::Pod)?;
    let (upstream, goal) = if largest { (12.0, 6.0) } else { (4.0, 2.0) };
    let record = Record::new(format!("delete of {count}, until the pods are gone"), gone, "s");
    records.push(record.clone().beside(FLOOR, pods_gone));
    records.push(record.beside(UPSTREAM, upstream).at_most(goal));
    Ok(())
}

fn report_cpu(cpu: &BTreeMap<&'static str, f64>, each: f64, records: &mut Vec<Record>) {
    let of = |kinds: &[&str]| kinds.iter().filter_map(|kind| cpu.get(kind)).sum::<f64>() / each;
    let all: Vec<&str> = cpu.keys().copied().collect();
    records.push(Record::new("CPU for each VMI of the burst", of(&all), "s").beside(UPSTREAM, 6.4).at_most(3.6));
    let measured: [(&str, &[&str], f64); 7] = [
        ("launcher", &["launcher"], 1.5 + 0.43),
        ("QEMU", &["QEMU"], 0.9),
        ("libvirt", &["libvirt"], 0.37),
        ("containerd and shims", &["containerd", "shim"], 1.0),
        ("API server", &["API server"], 0.55),
        ("kubelet", &["kubelet"], 0.3),
        ("virt-handler", &["virt-handler"], 0.17),
    ];
    for (what, kinds, upstream) in measured {
        records.push(Record::new(format!("- {what}"), of(kinds), "s").beside(UPSTREAM, upstream));
    }
    for kind in all.iter().filter(|kind| !measured.iter().any(|(_, kinds, _)| kinds.contains(kind))) {
        records.push(Record::new(format!("- {kind}"), of(&[kind]), "s"));
    }
    let own = Record::new("- our own processes", of(OWN), "s");
    records.push(own.beside(UPSTREAM, 1.5 + 0.43 + 0.17).at_most(0.4));
}

/// Each kind of write, as a figure of its own.
fn listed(what: &str, writes: &Writes, divisor: f64) -> Vec<Record> {
    let all = writes.list(divisor).into_iter();
    all.map(|(write, count)| Record::new(format!("- {what}: {write}"), count, "")).collect()
}

/// What was used after `before`.
fn since(now: &BTreeMap<&'static str, f64>, before: &BTreeMap<&'static str, f64>) -> BTreeMap<&'static str, f64> {
    now.iter().map(|(kind, seconds)| (*kind, seconds - before.get(kind).unwrap_or(&0.0))).collect()
}
