//! The agent: the network and the launchers of one node, as a library.
//!
//! Reading order, along the way of one NIC: [`cni`] takes the plugin's call, `holdfast_ipam` says what
//! the network is and which addresses the NIC has, [`registry`] writes the attachment down
//! and converges the kernel and OVS to it.
//!
//! Invariants: what is on disk precedes what is in the kernel (a record is synced before a device is touched);
//! an agent that ends, for whatever reason, leaves the networking of running pods alone; nothing without our
//! mark is ever removed.

pub mod agent;
pub mod beneath;
pub mod cni;
mod context;
mod http;
pub mod kvm;
mod metrics;
pub mod netns;
pub mod registry;
pub mod repairs;
pub mod vmi;
pub mod workloads;

pub use agent::{Agent, AgentOptions, HttpAddress, StartError, node_label};
pub(crate) use vmi::chain;
