//! `cargo xtask demo --cluster`: the same promises on a Kubernetes of two nodes, with the product installed as users
//! install it.
//!
//! Invariant: a cluster that was up stays up, without anything of the demo; one that was brought up for it goes with it.
//! What `--keep` handed over, only `--down` takes away.

mod look;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::control::{self, Vmi};
use super::report::Report;
use super::steps::{Step, Steps};
use super::{Arguments, guest_view, world};
use crate::cluster::{self, Cluster, Traces};
use crate::leaks::{self, Snapshot};
use crate::{images, install, process, setup, workspace};
use look::Look;

/// The example.
const EXAMPLE: &str = "deploy/examples/cluster.yaml";

/// Longest wait for a deletion.
const GONE: Duration = Duration::from_secs(120);

/// The demo.
pub fn run(arguments: &Arguments, cluster: Cluster<'_>) -> Result<()> {
    let mut steps = Steps::begin();
    if arguments.down {
        let was_up = fs::read_to_string(kept(cluster)).is_ok_and(|text| text.trim() == "was up");
        take_down(cluster, was_up, &mut steps)?;
        println!("demo: everything of it is down");
        return Ok(());
    }
    if kept(cluster).exists() {
        bail!("a demo is kept up: use it, or end it with `cargo xtask demo --cluster --down`");
    }
    if let Some(what) = cluster::missing() {
        bail!("this machine has no {what}, which a cluster needs; `cargo xtask demo` does without");
    }
    process::catch_signals()?;
    let mut report = Report::default();
    let virtctl = build(&mut steps)?;
    let before = Snapshot::take()?;
    let was_up = cluster.exists();
    let look = Look { cluster, virtctl };
    if let Some(taken) = was_up.then(|| look.kubectl(&["get", "--ignore-not-found", "-o", "name", "-f", &example()]))
        && let Some(object) = taken.unwrap_or_default().lines().next()
    {
        bail!("the cluster has a {object} already, and it may be yours: the demo would change it, and delete it");
    }
    let outcome = prove(&look, arguments.keep, &mut steps, &mut report);
    let outcome = if arguments.keep && outcome.is_ok() {
        fs::write(kept(cluster), if was_up { "was up" } else { "" }).context("failed to note that the demo is kept")
    } else {
        // Taken down also after a failure and after Ctrl-C; what failed first is what is told.
        process::forget_signals();
        let down = take_down(cluster, was_up, &mut steps).and_then(|()| {
            steps.run("nothing stays behind", |_| leaks::none_since(&before, "the demo").map(|()| String::new()))
        });
        outcome.and(down)
    };
    (report.steps, report.total_seconds) = steps.finish();
    report.publish(arguments.json.as_deref())?;
    outcome?;
    println!("\n{}", if arguments.keep { how_to_play(&look) } else { what_next() });
    Ok(())
}

/// The note that a demo was handed over. It goes with the cluster, or with the demo.
fn kept(cluster: Cluster<'_>) -> PathBuf {
    cluster.folder().join("demo")
}

/// Packages, virtctl, images.
fn build(steps: &mut Steps) -> Result<PathBuf> {
    steps.run("install packages", |step| {
        setup::ensure(&mut |line| step.tell(line)).map(|count| format!("{count} new"))
    })?;
    steps.run("build virtctl and the images", |step| {
        let virtctl = step.aside(|| -> Result<_> {
            let virtctl = workspace::build_virtctl()?;
            images::ensure_all()?;
            Ok(virtctl)
        })?;
        Ok((virtctl, String::new()))
    })
}

/// Brings cluster, product and VM up, and proves what is promised of it.
fn prove(look: &Look<'_>, keep: bool, steps: &mut Steps, report: &mut Report) -> Result<()> {
    steps.run("bring up a Kubernetes", |step| {
        step.aside(|| cluster::bring_up(look.cluster, None))?;
        Ok(format!("{} nodes", cluster::nodes(look.cluster)?.len()))
    })?;
    steps.run("install Holdfast: kubectl apply -f deploy/...", |step| {
        install::ensure(look.cluster, &mut |line| step.tell(line)).map(|()| String::new())
    })?;
    let empty = Traces::take(look.cluster)?;
    let outcome = prove_vm(look, steps, report).and_then(|()| if keep { Ok(()) } else { delete(look, &empty, steps) });
    if outcome.is_err() && process::check_signals().is_ok() {
        look.explain();
    }
    outcome
}

fn prove_vm(look: &Look<'_>, steps: &mut Steps, report: &mut Report) -> Result<()> {
    let lan = look.cluster.netns("lan");
    steps.run(&format!("kubectl apply -f {EXAMPLE}"), |step| {
        look.kubectl(&["apply", "-f", &example()])?.lines().for_each(|line| step.print(line));
        Ok(String::new())
    })?;
    let (first, node) = steps.run("VM runs", |step| {
        let (vmi, node) = look.wait_running(None, step)?;
        let detail = format!("uid {} on {node}", vmi.uid);
        Ok(((vmi, node), detail))
    })?;
    let seen = steps.run("guest answers ping and HTTP on the underlay", |step| {
        let seen = guest_view::wait(&lan, step)?;
        Ok((seen.clone(), format!("{} is at {}", seen.address, seen.mac)))
    })?;
    report.nics = control::nics(&first, &seen)?;
    steps.run("kubectl lists it", |step| {
        look.kubectl(&["get", "vm,vmi"])?.lines().for_each(|line| step.print(line));
        Ok(String::new())
    })?;
    steps.run("its Service answers a pod on another node", |step| look.service_answers(&node, step))?;
    steps.run("virtctl console shows the guest's login", |_| look.console())?;
    let again = steps.run("VM restarts", |step| restart(look, &first, step))?;
    steps.run("guest answers at the same address, from the same MAC", |step| {
        let seen = guest_view::wait(&lan, step)?;
        // The address on the pod network is that of the pod, which is another one now.
        report.compare(&control::nics(&again, &seen)?, |nic| nic.name == world::UNDERLAY)?;
        Ok(format!("{} is at {}", seen.address, seen.mac))
    })
}

fn restart(look: &Look<'_>, first: &Vmi, step: &mut Step) -> Result<(Vmi, String)> {
    look.virtctl(&["restart", world::VM])?;
    let (vmi, node) = look.wait_running(Some(&first.uid), step)?;
    let detail = format!("uid {} on {node}", vmi.uid);
    Ok((vmi, detail))
}

/// Deletes what was applied as a user would; then the nodes are as empty as they were.
fn delete(look: &Look<'_>, empty: &Traces, steps: &mut Steps) -> Result<()> {
    steps.run(&format!("kubectl delete -f {EXAMPLE}"), |_| delete_example(look.cluster).map(|()| String::new()))?;
    steps.run("nothing of it is left on the nodes", |step| {
        empty.none_since(look.cluster, &mut |line| step.tell(line)).map(|()| String::new())
    })
}

fn delete_example(cluster: Cluster<'_>) -> Result<()> {
    let timeout = format!("--timeout={}s", GONE.as_secs());
    let delete = |arguments: &[&str]| {
        let program = cluster::kubectl(cluster).args(["delete", "--ignore-not-found", &timeout]).args(arguments);
        program.deadline(GONE + Duration::from_secs(10)).output().map(drop)
    };
    delete(&["pod", look::CLIENT])?;
    delete(&["-f", &example()])
}

/// Takes the demo's own away: what was applied from a cluster that was up before it, else the cluster.
fn take_down(cluster: Cluster<'_>, was_up: bool, steps: &mut Steps) -> Result<()> {
    if !was_up {
        return steps.run("take the cluster down", |_| cluster::take_down(cluster).map(|()| String::new()));
    }
    steps.run("take away what was applied", |_| {
        delete_example(cluster)?;
        match fs::remove_file(kept(cluster)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(String::new()),
        }
    })
}

fn example() -> String {
    workspace::root().join(EXAMPLE).display().to_string()
}

/// What to do after a demo that took itself down.
fn what_next() -> String {
    format!(
        "What to try next:\n  \
         cargo xtask demo --cluster --keep     leave it up and log in\n  \
         cargo xtask cluster up; cargo xtask cluster install     a cluster of your own to play with\n  \
         less {EXAMPLE}     the manifest that ran; change one\n  \
         less docs/development/test-cluster.md"
    )
}

/// What to do with a demo that was left up.
fn how_to_play(look: &Look<'_>) -> String {
    let Look { cluster, virtctl } = look;
    let folder = virtctl.parent().unwrap_or(Path::new("/")).display();
    let name = if cluster.name == cluster::DEFAULT { String::new() } else { format!(" --name {}", cluster.name) };
    let down = if name.is_empty() { String::new() } else { format!(" {}", cluster.name) };
    format!(
        "Everything is up. What to try, in a shell that reaches the cluster:\n  \
         cargo xtask cluster{name} shell\n    \
         export PATH=$PATH:{folder}\n    \
         kubectl get vm,vmi -o wide\n    \
         kubectl describe vmi {vm}\n    \
         virtctl console {vm}     (login root, password guest; leave with Ctrl-])\n    \
         virtctl restart {vm}\n    \
         kubectl get ipleases,macleases\n    \
         kubectl explain vmi.spec.domain.devices.interfaces\n  \
         cargo xtask cluster{name} shell --on lan -- ping {address}     from the host on the underlay\n  \
         cargo xtask cluster{name} shell --on lan -- curl http://{address}/\n  \
         cargo xtask cluster{name} shell --on node1 -- ip link     a node's own links\n\
         And at the end:\n  \
         cargo xtask demo --cluster{down} --down",
        vm = world::VM,
        address = world::GUEST_ADDRESS,
    )
}
