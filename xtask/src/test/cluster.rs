//! The suite `cluster`: on a real Kubernetes with the product installed, in the network of its control plane.
//!
//! Invariant: a cluster that is up stays up, and one that was brought up for the suite goes with it. Either way the nodes
//! have in the end what they had before.

use std::ffi::OsString;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::run::{self, Run, Setting};
use super::suites::Suite;
use crate::cluster::{self, Cluster, Traces};
use crate::process;
use crate::{install, workspace};

/// Name of the suite.
pub const SUITE: &str = "cluster";

/// Longest run: guests without KVM boot in half a minute, and there are many.
const DEADLINE: Duration = Duration::from_secs(1800);
/// What the namespaces begin with that the tests make.
const NAMESPACES: &str = "test-";

/// Runs it on the cluster of this name.
pub fn run(suite: &Suite, name: &str) -> Run {
    let start = Instant::now();
    if let Some(what) = cluster::missing() {
        let line = format!("skipped: suite {SUITE}: this machine has no {what}");
        println!("{line}");
        return Run { skipped: vec![line], ..Run::without_tests(start.elapsed().as_secs_f64(), Ok(())) };
    }
    let cluster = Cluster { name };
    let was_up = cluster.exists();
    let outcome = prepare(suite, cluster).and_then(|(setting, before)| {
        let mut run = run::suite(suite, &setting);
        run.seconds = start.elapsed().as_secs_f64();
        process::check_signals()?;
        let clean = clean(cluster, &before, run.outcome.is_ok());
        if let Err(error) = &clean {
            println!("error: {error:#}");
        }
        // What failed first is what the table tells.
        run.outcome = std::mem::replace(&mut run.outcome, Ok(())).and(clean);
        Ok(run)
    });
    let mut run = outcome.unwrap_or_else(|error| {
        println!("error: {error:#}");
        Run::without_tests(start.elapsed().as_secs_f64(), Err(error))
    });
    if !was_up {
        // Also after Ctrl-C.
        process::forget_signals();
        let down = cluster::take_down(cluster).context("failed to take the cluster down");
        run.outcome = run.outcome.and(down);
    }
    run
}

/// Builds and installs what the tests need; how to run them, and what is on the nodes before.
fn prepare(suite: &Suite, cluster: Cluster<'_>) -> Result<(Setting, Traces)> {
    let virtctl = workspace::build_virtctl()?;
    workspace::build_test(&suite.selection)?;
    cluster::bring_up(cluster, None)?;
    install::ensure(cluster, &mut |line| println!("install: {line}"))?;
    let before = Traces::take(cluster)?;
    Ok((setting(cluster, virtctl.into(), std::env::current_exe()?.into()), before))
}

/// In the control plane's network, one test after the other: each has the machine for itself, and some end components
/// that the others need.
fn setting(cluster: Cluster<'_>, virtctl: OsString, xtask: OsString) -> Setting {
    let mut environment = vec![
        run::runner(format!("nsenter --net=/run/netns/{} --", cluster.netns("cp"))),
        ("HOLDFAST_VIRTCTL".to_owned(), virtctl),
        ("HOLDFAST_XTASK".to_owned(), xtask),
        ("HOLDFAST_CLUSTER".to_owned(), cluster.name.into()),
    ];
    environment.extend(cluster::environment(cluster).map(|(name, value)| (name.to_owned(), value)));
    Setting { environment, arguments: vec!["--test-threads=1".to_owned()], deadline: DEADLINE }
}

/// Removes what tests that failed have left in the cluster; then the nodes must be as they were.
fn clean(cluster: Cluster<'_>, before: &Traces, succeeded: bool) -> Result<()> {
    let listed = cluster::kubectl(cluster).args(["get", "namespaces", "-o", "name"]).output()?;
    let left: Vec<_> = listed.lines().filter(|name| name.starts_with(&format!("namespace/{NAMESPACES}"))).collect();
    if !left.is_empty() {
        println!("left by tests: {}", left.join(", "));
        let delete = cluster::kubectl(cluster).args(["delete", "--timeout=120s"]).args(&left);
        delete.deadline(Duration::from_secs(130)).output().context("failed to remove what tests left")?;
        if succeeded {
            bail!("tests that succeeded left {}", left.join(", "));
        }
    }
    before.none_since(cluster, &mut |_| {})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_run_in_the_network_of_their_cluster() {
        let setting = setting(Cluster { name: "x1" }, "/v".into(), "/x".into());
        let value = |name: &str| {
            let found = setting.environment.iter().find(|(other, _)| other == name).map(|(_, value)| value);
            found.and_then(|value| value.to_str()).unwrap().to_owned()
        };
        assert_eq!(value(&run::runner("").0), "nsenter --net=/run/netns/hf-x1-cp --");
        assert_eq!(value("KUBECONFIG"), "/var/lib/holdfast-x1/admin.kubeconfig");
        assert!(value("PATH").contains("target/cluster/bin:"), "{}", value("PATH"));
        assert_eq!((value("HOLDFAST_CLUSTER").as_str(), value("HOLDFAST_XTASK").as_str()), ("x1", "/x"));
        assert_eq!(setting.arguments, ["--test-threads=1"]);
    }
}
