//! The chores of the workspace: `cargo xtask <chore>`.
//!
//! Invariant: this crate builds on a machine that has nothing but Rust (no libvirt, no C library headers), because
//! `cargo xtask setup` is what installs the rest.

mod bench;
mod cluster;
mod crds;
mod demo;
mod deps;
mod dist;
#[cfg(test)]
mod docs;
mod fuzz;
mod guest;
mod images;
mod install;
mod leaks;
mod manifests;
mod node_vm;
mod process;
mod setup;
mod test;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Chores of the Holdfast workspace.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Boot a VM from deploy/examples on an underlay of its own, and prove that it keeps its address
    Demo(demo::Arguments),
    /// Run a real Kubernetes on this machine, for tests and demo
    Cluster(cluster::Arguments),
    /// Run everything that can be tested on this machine
    Test(test::Arguments),
    /// Give the parsers of foreign bytes inputs that nobody thought of
    Fuzz(fuzz::Arguments),
    /// Measure what VMs cost on a test cluster, beside what an empty pod costs there
    Bench(bench::Arguments),
    /// Build the programs that a host needs into target/dist
    Dist(dist::Arguments),
    /// Install the Debian packages, the users and the groups that building, the tests and the demo need
    Setup(setup::Arguments),
    /// Build the test guest: a small bootable disk, made of Debian packages
    Guest(guest::Arguments),
    /// Build the container images of a cluster into target/images
    Images(images::Arguments),
    /// Write what a user applies to install Holdfast into deploy
    Manifests(manifests::Arguments),
    /// Write the custom resource definitions into deploy/crds
    Crds(crds::Arguments),
    /// List what a run could leave behind, or what is there since an earlier list
    Leaks(leaks::Arguments),
    /// Run a program in a node VM that runs; `cargo xtask test --lane node-vm` has cargo run tests with it
    #[command(hide = true)]
    NodeVm(node_vm::execute::Arguments),
    /// Check that dependencies point the way that ARCHITECTURE.md says
    CheckDeps(deps::Arguments),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().chore {
        Chore::Test(arguments) => return exit_code(test::run(&arguments)),
        Chore::Cluster(arguments) => return exit_code(cluster::run(&arguments)),
        Chore::NodeVm(arguments) => return exit_code(node_vm::execute::run(&arguments)),
        Chore::Demo(arguments) => demo::run(&arguments),
        Chore::Fuzz(arguments) => fuzz::run(&arguments),
        Chore::Bench(arguments) => bench::run(&arguments),
        Chore::Dist(arguments) => dist::run(&arguments),
        Chore::Setup(arguments) => setup::run(&arguments),
        Chore::Guest(arguments) => guest::run(&arguments),
        Chore::Images(arguments) => images::run(&arguments),
        Chore::Manifests(arguments) => manifests::run(&arguments),
        Chore::Crds(arguments) => crds::run(&arguments),
        Chore::Leaks(arguments) => leaks::run(&arguments),
        Chore::CheckDeps(arguments) => deps::run(&arguments),
    };
    exit_code(outcome.map(|()| ExitCode::SUCCESS))
}

fn exit_code(outcome: anyhow::Result<ExitCode>) -> ExitCode {
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
