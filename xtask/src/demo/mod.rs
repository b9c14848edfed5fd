//! `cargo xtask demo`: a VM from deploy/examples on an underlay made of network namespaces, proved from outside.
//!
//! Invariant: everything that the demo makes has a fixed name ([`world`]), so that a later run, or `--down`, takes
//! down what an earlier one that was killed has left. What `--keep` handed over, only `--down` takes down.

mod control;
pub mod daemon;
mod guest_view;
mod inventory;
mod on_cluster;
mod report;
mod steps;
pub mod switch;
pub mod world;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::cluster::{self, Cluster};
use crate::leaks::{self, Snapshot};
use crate::process;
use crate::workspace::{self, Profile};
use crate::{guest, setup};
use daemon::Daemon;
use report::Report;
use steps::Steps;
use world::DEMO;

/// Options of the chore.
#[derive(Args)]
pub struct Arguments {
    /// On a test cluster; it is brought up for the demo, and down again, unless it is up
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = cluster::DEFAULT)]
    #[arg(value_parser = cluster::name)]
    cluster: Option<String>,
    /// Leave everything up at the end, and say how to play with it
    #[arg(long, conflicts_with = "down")]
    keep: bool,
    /// Take down what `--keep` left up
    #[arg(long)]
    down: bool,
    /// Write the table to FILE as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// The chore.
pub fn run(arguments: &Arguments) -> Result<()> {
    setup::require_root("the demo makes network namespaces and")?;
    let _only = DEMO.lock()?;
    if let Some(name) = &arguments.cluster {
        return on_cluster::run(arguments, Cluster { name });
    }
    if arguments.down {
        take_down("take everything down", &mut Steps::begin())?;
        println!("demo: everything is down");
        return Ok(());
    }
    if DEMO.is_kept() {
        bail!("a demo is kept up: use it, or end it with `cargo xtask demo --down`");
    }
    process::catch_signals()?;
    let mut steps = Steps::begin();
    let mut report = Report::default();
    let outcome = prepare(&mut steps).and_then(|guest| {
        let before = Snapshot::take()?;
        let outcome = prove(&guest, arguments.keep, &mut steps, &mut report)
            .and_then(|()| if arguments.keep { DEMO.note_kept() } else { Ok(()) });
        if arguments.keep && outcome.is_ok() {
            return Ok(());
        }
        // Taken down also after a failure and after Ctrl-C; what failed first is what is told.
        process::forget_signals();
        let down = take_down("take everything down", &mut steps).and_then(|()| {
            steps.run("nothing stays behind", |_| leaks::none_since(&before, "the demo").map(|()| String::new()))
        });
        outcome.and(down)
    });
    (report.steps, report.total_seconds) = steps.finish();
    report.publish(arguments.json.as_deref())?;
    outcome?;
    println!("\n{}", if arguments.keep { report::how_to_play() } else { report::what_next() });
    Ok(())
}

/// Packages, programs, the guest, and an empty place.
fn prepare(steps: &mut Steps) -> Result<guest::Guest> {
    steps.run("install packages", |step| {
        setup::ensure(&mut |line| step.tell(line)).map(|count| format!("{count} new"))
    })?;
    steps.run("build holdfastd and its kin", |step| {
        step.aside(|| workspace::build_programs(PROFILE)).map(|()| String::new())
    })?;
    let guest = steps.run("build the test guest", |_| Ok((guest::ensure(false)?, String::new())))?;
    if DEMO.exists() {
        take_down("take down what an earlier demo left", steps)?;
    }
    Ok(guest)
}

/// Brings the VM up, and proves what is promised of it.
fn prove(guest: &guest::Guest, keep: bool, steps: &mut Steps, report: &mut Report) -> Result<()> {
    steps.run("make an underlay: OVS bridge, uplink, a host on it", |_| DEMO.up().map(|()| String::new()))?;
    let empty = inventory::take()?;
    let daemon = steps.run("start holdfastd", |_| {
        DEMO.write_manifests(guest)?;
        Ok((Daemon::start()?, String::new()))
    })?;
    let outcome = prove_vm(&daemon, steps, report).and_then(|()| if keep { Ok(()) } else { delete(&empty, steps) });
    if outcome.is_err() && process::check_signals().is_ok() {
        daemon.explain();
    }
    outcome
}

fn prove_vm(daemon: &Daemon, steps: &mut Steps, report: &mut Report) -> Result<()> {
    let first = steps.run("VM runs", |step| {
        let vmi = control::wait_running(daemon, None, step)?;
        Ok((vmi.clone(), format!("uid {}", vmi.uid)))
    })?;
    let seen = steps.run("guest answers ping and HTTP on the underlay", |step| {
        let seen = guest_view::wait(&DEMO.lan(), step)?;
        Ok((seen.clone(), format!("{} is at {}", seen.address, seen.mac)))
    })?;
    report.nics = control::nics(&first, &seen)?;
    steps.run("launcher has no privilege", |_| daemon::launcher_privileges())?;
    steps.run("virtctl lists it", |step| {
        let text = control::virtctl(&["get", "vm,vmi"])?;
        text.lines().for_each(|line| step.print(line));
        Ok(String::new())
    })?;
    let second = steps.run("VM restarts", |step| {
        control::virtctl(&["restart", world::VM])?;
        let vmi = control::wait_running(daemon, Some(&first.uid), step)?;
        Ok((vmi.clone(), format!("uid {}", vmi.uid)))
    })?;
    steps.run("guest answers at the same address, from the same MAC", |step| {
        let again = guest_view::wait(&DEMO.lan(), step)?;
        report.compare(&control::nics(&second, &again)?, |_| true)?;
        Ok(format!("{} is at {}", again.address, again.mac))
    })
}

/// Deletes the VM as a user would; then the node is as empty as it was.
fn delete(empty: &BTreeSet<String>, steps: &mut Steps) -> Result<()> {
    steps.run("virtctl deletes it", |step| control::delete_all(step).map(|()| String::new()))?;
    steps.run("nothing of it is left on the node", |step| {
        let mut more = Vec::new();
        let emptied = process::wait_for("the node to be empty", VM_DEADLINE, || {
            more = inventory::take()?.difference(empty).cloned().collect();
            if let Some(text) = inventory::sum_up(&more) {
                step.tell(&text);
            }
            Ok(more.is_empty().then_some(()))
        });
        emptied.with_context(|| format!("left on the node: {}", more.join(", "))).map(|()| String::new())
    })
}

/// Ends holdfastd and removes the underlay; whatever is left, by force. A VM that is still there is deleted before.
fn take_down(name: &str, steps: &mut Steps) -> Result<()> {
    steps.run(name, |step| {
        let deleted = if control::answers() { control::delete_all(step) } else { Ok(()) };
        let forced = DEMO.down()?;
        deleted?;
        Ok(if forced == 0 { String::new() } else { format!("{forced} processes had to be ended by force") })
    })
}

/// The demo starts soon rather than runs fast: its daemons have little to do.
const PROFILE: Profile = Profile::Dev;

/// How long a VM may take to be up: minutes, for machines without KVM that do something else beside.
const VM_DEADLINE: Duration = Duration::from_secs(120);
