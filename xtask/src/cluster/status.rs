//! `status`: machines, components, their memory; and what the API server says of the nodes.

use std::fs;

use anyhow::Result;
use comfy_table::{Cell, CellAlignment, Table, presets};

use super::component::Component;
use super::control_plane::{self, kubectl};
use super::layout::{Cluster, Machine};
use super::pki::Pki;
use super::record::Record;
use super::{node, up};

/// Shows it, and says whether all runs.
pub fn show(cluster: Cluster<'_>) -> Result<bool> {
    let nodes = up::nodes(cluster)?;
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["MACHINE", "COMPONENT", "STATE", "PID", "MEMORY"]);
    let mut add = |machine: &Machine<'_>, components: &[Component]| {
        let rows = components.iter().map(|component| row(&mut table, machine, component));
        // Every row is wanted, also where one says no.
        rows.filter(|runs| !runs).count() == 0
    };
    let mut healthy = add(&cluster.control_plane(), &control_plane::components(cluster, &Pki::of(cluster)?));
    for node in &nodes {
        healthy &= add(&node.machine, &node::components(node));
    }
    println!("{table}\n");
    let listed = kubectl(cluster).args(["get", "nodes", "-o", "wide"]).output();
    match listed {
        Ok(text) => print!("{text}"),
        Err(error) => {
            println!("the API server does not answer: {error:#}");
            healthy = false;
        }
    }
    Ok(healthy)
}

fn row(table: &mut Table, machine: &Machine<'_>, component: &Component) -> bool {
    let running = component.running(machine);
    let (state, pid, memory) = match running {
        Some(record) => ("running", record.pid.to_string(), memory(&record)),
        None => ("not running", String::new(), String::new()),
    };
    let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
    table.add_row([Cell::new(&machine.name), Cell::new(component.name), Cell::new(state), right(pid), right(memory)]);
    running.is_some()
}

/// Its share of memory (PSS).
fn memory(record: &Record) -> String {
    let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", record.pid)).unwrap_or_default();
    proportional_kib(&text).map(|kib| format!("{} MiB", kib / 1024)).unwrap_or_default()
}

fn proportional_kib(rollup: &str) -> Option<u64> {
    let value = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    value.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_share_of_memory() {
        let text = "00400000-7fff rollup\nRss:  9000 kB\nPss:     4096 kB\nPss_Dirty: 1 kB\n";
        assert_eq!(proportional_kib(text), Some(4096));
        assert_eq!(proportional_kib(""), None);
    }
}
