//! `cargo xtask bench`: what the product costs on a cluster, each figure beside the floor of an empty pod, measured in
//! the same run. It tells, and fails nothing: no figure is a test, for machines differ.

mod api;
mod figures;
mod machines;
mod processes;
mod writes;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};

use crate::cluster::{self, Cluster};
use crate::{install, process, setup};
use api::Api;
use figures::{Figures, percentile};
use machines::{Kind, Machines};
use processes::{BESIDES_QEMU, OWN, Snapshot};
use writes::Writes;

/// Options of the chore.
#[derive(Args)]
pub struct Arguments {
    /// The cluster to measure on; brought up for it, and down again, unless it is up
    #[arg(value_name = "CLUSTER", default_value = cluster::DEFAULT, value_parser = cluster::name)]
    cluster: String,
    /// How to print the figures
    #[arg(long, short, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Table,
    Json,
}

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

/// The chore.
pub fn run(arguments: &Arguments) -> Result<()> {
    setup::require_root("the test cluster")?;
    if let Some(what) = cluster::missing() {
        bail!("this machine has no {what}, which a cluster needs");
    }
    process::catch_signals()?;
    // What is printed but for the figures is for who waits.
    let tell = |line: &str| eprintln!("bench: {line}");
    setup::ensure(&mut |line| tell(line))?;
    let cluster = Cluster { name: &arguments.cluster };
    let was_up = cluster.exists();
    let measured = cluster::bring_up(cluster, None)
        .and_then(|()| install::ensure(cluster, &mut |line| tell(line)))
        .and_then(|()| measure(cluster, &tell));
    process::forget_signals();
    let down = if was_up { Ok(()) } else { cluster::take_down(cluster) };
    let figures = measured?;
    match arguments.output {
        Output::Table => println!("{}", figures.table()),
        Output::Json => println!("{}", serde_json::to_string_pretty(&figures)?),
    }
    down
}

fn measure(cluster: Cluster<'_>, tell: &dyn Fn(&str)) -> Result<Figures> {
    let api = Api::open(cluster)?;
    let mut machines = Machines::begin(&api)?;
    let measured = measure_with(cluster, &api, &mut machines, tell);
    process::forget_signals();
    let removed = machines.end();
    measured.and_then(|figures| removed.map(|()| figures))
}

fn measure_with(cluster: Cluster<'_>, api: &Api, machines: &mut Machines<'_>, tell: &dyn Fn(&str)) -> Result<Figures> {
    let mut figures = Figures::default();
    tell(&format!("{ONE_BY_ONE} pods and VMIs, one at a time"));
    let (mut pods, mut vmis) = (Vec::new(), Vec::new());
    for _ in 0..ONE_BY_ONE {
        pods.push(machines.one(Kind::Pod)?);
        vmis.push(machines.one(Kind::Vmi)?);
    }
    let (pod, vmi) = (percentile(&pods, 50), percentile(&vmis, 50));
    figures.add(&format!("VMI, create to Running, P50 of {ONE_BY_ONE}"), "s", vmi, 4.24, 1.9);
    figures.with_floor(pod);
    figures.add("- beyond the empty pod", "s", vmi - pod, 4.24 - 0.87, 1.0);
    figures.add("- times the empty pod", "", vmi / pod, 4.24 / 0.87, None);

    let empty = Snapshot::take(cluster)?;
    for count in BURSTS {
        tell(&format!("burst of {count} VMIs"));
        burst(cluster, api, machines, count, &empty, &mut figures, tell)?;
    }
    let now = Snapshot::take(cluster)?;
    for (kind, upstream) in
        [("virt-api", 224.0), ("virt-controller", 98.0), ("virt-operator", 196.0), ("virt-handler", 92.0)]
    {
        let ours = now.largest(kind).with_context(|| format!("found no {kind}"))?;
        figures.add(&format!("memory of the largest {kind} (RSS)"), "MiB", ours, upstream, 30.0);
    }
    Ok(figures)
}

fn burst(
    cluster: Cluster<'_>,
    api: &Api,
    machines: &mut Machines<'_>,
    count: usize,
    empty: &Snapshot,
    figures: &mut Figures,
    tell: &dyn Fn(&str),
) -> Result<()> {
    let largest = count == BURSTS[BURSTS.len() - 1];
    let (cpu, writes) = (Snapshot::take(cluster)?.cpu(), Writes::take(api)?);
    let times = machines.burst(Kind::Vmi, count)?;
    let (cpu, writes) = (since(&Snapshot::take(cluster)?.cpu(), &cpu), Writes::take(api)?.since(&writes));
    let each = count as f64;
    if largest {
        figures.add(&format!("burst of {count}, create to Running, P50"), "s", percentile(&times, 50), 65.6, 32.8);
        figures.add(&format!("burst of {count}, create to Running, P95"), "s", percentile(&times, 95), 95.1, 47.55);
        report_cpu(&cpu, each, figures);
        figures.add(
            "writes of the VMI, until it runs",
            "",
            writes.of("virtualmachineinstances", "POST") / each,
            7.0,
            3.0,
        );
        figures.add("events for each VMI, until it runs", "", writes.of("events", "") / each, 10.0, None);
        figures.writes_per_vmi = writes.list(each);
        let request = machines.memory_request()?;
        figures.add("memory request of the pod of a 96 MiB guest", "MB", request, 403.0, None);
    }
    std::thread::sleep(SETTLE);
    let memory = (Snapshot::take(cluster)?.pss(BESIDES_QEMU) - empty.pss(BESIDES_QEMU)) / each;
    let upstream = if largest { 35.0 } else { 41.0 };
    figures.add(&format!("memory of each of {count} VMs beyond QEMU (PSS)"), "MiB", memory, upstream, 15.0);
    if largest {
        tell("nothing, for a while");
        std::thread::sleep(QUIET - SETTLE);
        let before = Writes::take(api)?;
        std::thread::sleep(IDLE);
        let idle = Writes::take(api)?.since(&before);
        // Nodes and leaders say that they are there by these: it is what they are for.
        let but = ["leases", "nodes"];
        figures.add("writes in an idle minute, but for leases and nodes", "", idle.but(&but), None, 0.0);
        figures.writes_while_idle = idle.list(1.0);
    }
    let gone = machines.delete_all(Kind::Vmi)?;
    machines.burst(Kind::Pod, count)?;
    let pods_gone = machines.delete_all(Kind::Pod)?;
    let (upstream, goal) = if largest { (12.0, 6.0) } else { (4.0, 2.0) };
    figures.add(&format!("delete of {count}, until the pods are gone"), "s", gone, upstream, goal);
    figures.with_floor(pods_gone);
    Ok(())
}

fn report_cpu(cpu: &BTreeMap<&'static str, f64>, each: f64, figures: &mut Figures) {
    let of = |kinds: &[&str]| kinds.iter().filter_map(|kind| cpu.get(kind)).sum::<f64>() / each;
    let all: Vec<&str> = cpu.keys().copied().collect();
    figures.add("CPU for each VMI of the burst", "s", of(&all), 6.4, 3.6);
    for (what, kinds, upstream) in [
        ("launcher", &["launcher"][..], 1.5 + 0.43),
        ("QEMU", &["QEMU"], 0.9),
        ("libvirt", &["libvirt"], 0.37),
        ("containerd and shims", &["containerd", "shim"], 1.0),
        ("API server", &["API server"], 0.55),
        ("kubelet", &["kubelet"], 0.3),
        ("virt-handler", &["virt-handler"], 0.17),
    ] {
        figures.add(&format!("- {what}"), "s", of(kinds), upstream, None);
    }
    figures.add("- our own processes", "s", of(OWN), 1.5 + 0.43 + 0.17, 0.4);
    figures.cpu_per_vmi = cpu.iter().map(|(kind, seconds)| (*kind, seconds / each)).collect();
}

/// What was used after `before`.
fn since(now: &BTreeMap<&'static str, f64>, before: &BTreeMap<&'static str, f64>) -> BTreeMap<&'static str, f64> {
    now.iter().map(|(kind, seconds)| (*kind, seconds - before.get(kind).unwrap_or(&0.0))).collect()
}
