//! What our wiring takes of a path's throughput: TCP from a pod to a host on the network, through the node's bridge,
//! beside a pod that was plugged into the same bridge by hand, with no port security and nobody who looks after it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::bed::{BRIDGE, Bed, HOST, inside_of, node};
use super::plugin::Plugin;
use super::{Pair, Record, remove};
use crate::process;

/// How often each is measured, in turns.
const TURNS: usize = 7;
/// Seconds of each.
const SECONDS: &str = "1";
/// Longest wait for iperf3 to listen.
const DEADLINE: Duration = Duration::from_secs(10);
/// The address of the one that was plugged in by hand.
const BY_HAND: &str = "10.77.255.253/16";

/// Measures it.
pub fn measure(bed: &mut Bed, records: &mut Vec<Record>) -> Result<()> {
    let plugin = Plugin::ours(bed, "linux-bridge", BRIDGE);
    let pods = bed.pods(2)?.to_vec();
    let bed = &*bed;
    let (ours, theirs) = (&pods[0], &pods[1]);
    inside_of(&node(), || plugin.add(ours).map(drop))?;
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let line = ["link", "add", "hand", "master", BRIDGE, "up", "type", "veth", "peer", "name", "net1", "netns"];
    bed.on_node("ip").args(line).arg(name(theirs)).output()?;
    for line in [&["address", "add", BY_HAND, "dev", "net1"][..], &["link", "set", "net1", "up"]] {
        bed.on_node("ip").args(["-n", &name(theirs)]).args(line).output()?;
    }
    let mut pair = Pair::default();
    for _ in 0..TURNS {
        pair.ours.push(transfer(bed, &name(ours))?);
        pair.theirs.push(transfer(bed, &name(theirs))?);
    }
    bed.on_node("ip").args(["link", "del", "hand"]).output()?;
    inside_of(&node(), || remove(&plugin, std::slice::from_ref(ours)))?;
    let (ours, theirs) = pair.medians();
    let record = Record::new("linux-bridge, TCP from a pod to the network", ours, "Gbit/s");
    records.push(record.beside("a veth made by hand on the same bridge", theirs).at_least(0.95 * theirs));
    Ok(())
}

/// Gigabits in a second from a pod to the host.
fn transfer(bed: &Bed, pod: &str) -> Result<f64> {
    // It serves one transfer, and ends.
    let mut server = bed.on_host("iperf3").args(["--server", "--one-off", "--bind", HOST]).start()?;
    let measured = process::wait_for("iperf3 to listen", DEADLINE, || {
        let listening = bed.on_host("ss").args(["-Hltn", "sport", "=", ":5201"]).output()?;
        Ok((!listening.is_empty()).then_some(()))
    })
    .and_then(|()| {
        let client = ["netns", "exec", pod, "iperf3", "--client", HOST, "--time", SECONDS, "--json"];
        bed.on_node("ip").args(client).output()
    });
    process::end(&mut server);
    let measured: Value = serde_json::from_str(&measured?).context("what iperf3 prints is no JSON")?;
    let bits = measured["end"]["sum_received"]["bits_per_second"].as_f64();
    Ok(bits.context("iperf3 tells no throughput")? / 1e9)
}
