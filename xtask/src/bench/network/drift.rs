//! How long what is deleted behind our back is gone: a port's link on a Linux bridge, a port of an OVS bridge.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::bed::{BRIDGE, Bed, OVS_BRIDGE, inside_of, node};
use super::plugin::Plugin;
use super::{ATTACHED, Record, percentile, remove};
use crate::process;

/// How long each one is waited for before the next is deleted; one that takes longer is looked after besides.
const PATIENCE: Duration = Duration::from_secs(1);
/// Longest wait for the last one.
const DEADLINE: Duration = Duration::from_secs(90);
/// What upstream's plugins do of it.
const NOBODY: &str = "reference bridge plugin, which never does";

/// A port, and when it was deleted.
struct Deleted<'a> {
    port: &'a str,
    at: Instant,
}

/// Measures both backends.
pub fn measure(bed: &mut Bed, records: &mut Vec<Record>) -> Result<()> {
    for (backend, bridge) in [("linux-bridge", BRIDGE), ("ovs", OVS_BRIDGE)] {
        let plugin = Plugin::ours(bed, backend, bridge);
        let pods = bed.pods(ATTACHED)?.to_vec();
        let bed = &*bed;
        let times = inside_of(&node(), || of_ports(bed, &plugin, &pods, backend == "ovs"))?;
        let name = format!("{backend}, a port deleted behind our back, until it is back, P95 of {ATTACHED}");
        records.push(Record::new(name, percentile(&times, 95), "ms").unlike(NOBODY).at_most(300.0));
    }
    Ok(())
}

fn of_ports(bed: &Bed, plugin: &Plugin, pods: &[PathBuf], ovs: bool) -> Result<Vec<f64>> {
    let ports = pods.iter().map(|pod| Ok(plugin.add(pod)?.port)).collect::<Result<Vec<_>>>()?;
    let (mut missing, mut times) = (Vec::new(), Vec::new());
    for port in &ports {
        if ovs {
            bed.vsctl(&["--no-wait", "del-port", OVS_BRIDGE, port])?;
        } else {
            bed.on_node("ip").args(["link", "del", port]).output()?;
        }
        let at = Instant::now();
        missing.push(Deleted { port, at });
        while at.elapsed() < PATIENCE && !missing.is_empty() {
            look(bed, &mut missing, &mut times, ovs)?;
        }
    }
    while let Some(Deleted { port, at }) = missing.first() {
        if at.elapsed() > DEADLINE {
            bail!("port {port} did not come back within {} s", DEADLINE.as_secs());
        }
        look(bed, &mut missing, &mut times, ovs)?;
    }
    remove(plugin, pods)?;
    Ok(times)
}

/// Notes those that are back.
fn look(bed: &Bed, missing: &mut Vec<Deleted<'_>>, times: &mut Vec<f64>, ovs: bool) -> Result<()> {
    process::check_signals()?;
    let there = if ovs {
        bed.vsctl(&["--no-wait", "--columns=name", "--bare", "find", "Interface", "ofport>0"])?
    } else {
        bed.on_node("ip").args(["-br", "link", "show", "master", BRIDGE, "up"]).output()?
    };
    let back = |port: &str| there.split(['@', ' ', '\n']).any(|word| word == port);
    missing.retain(|Deleted { port, at }| {
        let back = back(port);
        if back {
            times.push(at.elapsed().as_secs_f64() * 1e3);
        }
        !back
    });
    Ok(())
}
