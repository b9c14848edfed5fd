//! virt-handler: the agent on a node of a Kubernetes cluster.
//!
//! Reading order: [`run`] starts and ends everything; [`follow`] is a watch of the API server, [`pods`], [`networks`] and
//! [`nics`] are what the watches have told, in memory and on disk; [`workloads`] answers the agent from them;
//! [`vmi`] looks after the VMs, [`server`] answers virt-api.
//!
//! Invariants: nothing that a running VM, or a pod that is restarted on this node, needs is in the API server only;
//! this process ends at any moment without a VM or a pod noticing.

mod allocator;
mod disk;
mod follow;
mod leases;
mod network_status;
mod networks;
mod nics;
mod options;
mod pods;
mod repairs;
mod run;
mod server;
mod vmi;
mod workloads;

use clap::Parser;

use crate::options::Options;

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    holdfast_kubernetes::log::init(&options.log);
    allocator::be_sparing();
    // Born in the node's network namespace, as each thread that the agent works on must be. Two: the work is waiting.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(run::run(options))
}
