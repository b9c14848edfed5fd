//! `cargo xtask test --lane node-vm`: suites in a node VM, for what this machine's kernel lacks.
//!
//! Invariant: the tests are the same programs as on the machine. They go by what the kernel can do; in the VM, whose
//! kernel is known, `HOLDFAST_LANE=node-vm` tells them that what it promises must be there.

use std::ffi::OsString;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::ValueEnum;

use super::run::{self, Setting};
use super::suites::Suite;
use crate::node_vm::NodeVm;
use crate::workspace;

/// Where tests run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Lane {
    /// On this machine.
    #[default]
    Machine,
    /// In a VM with the kernel of Debian's cloud images.
    NodeVm,
}

/// The suites that have something to show on another kernel, and the tests of each that have.
const SUITES: [(&str, &str); 3] = [("net", "kernel"), ("cni-plugin", "cni"), ("standalone", "host")];
/// Longest run of a suite: an emulated machine is ten times as slow.
const DEADLINE: Duration = Duration::from_secs(1800);

impl Lane {
    /// Those of its suites.
    pub fn suites(self, all: Vec<Suite>) -> Vec<Suite> {
        match self {
            Self::Machine => all,
            Self::NodeVm => all.into_iter().filter_map(of_kernel).collect(),
        }
    }
}

/// What of a suite is about the kernel, if anything.
fn of_kernel(suite: Suite) -> Option<Suite> {
    let (_, test) = SUITES.into_iter().find(|(name, _)| *name == suite.name)?;
    Some(Suite { selection: vec!["--test".to_owned(), test.to_owned()], ..suite })
}

/// Builds what these suites run in the VM, where nothing can be built.
pub fn build(suites: &[Suite]) -> Result<()> {
    if suites.iter().any(|suite| suite.name == "standalone") {
        workspace::build_host_programs()?;
    }
    workspace::build_test(&suites.iter().flat_map(|suite| suite.selection.clone()).collect::<Vec<_>>())
}

/// Boots the VM, and says how long it took.
pub fn boot() -> Result<NodeVm> {
    let start = Instant::now();
    let vm = NodeVm::boot()?;
    println!("node VM: ready after {:.1} s", start.elapsed().as_secs_f32());
    Ok(vm)
}

/// How tests are run in it. Few at a time: it has two emulated processors, and tests have deadlines.
pub fn setting(vm: &NodeVm) -> Result<Setting> {
    let mut runner = OsString::from(std::env::current_exe()?);
    runner.push(" node-vm ");
    runner.push(vm.socket());
    Ok(Setting {
        environment: vec![run::runner(runner), ("HOLDFAST_LANE".to_owned(), "node-vm".into())],
        arguments: vec!["--test-threads=2".to_owned()],
        deadline: DEADLINE,
    })
}
