//! The plugin's binary, a real agent, the real kernel and a real Open vSwitch, each test on a node of its own.
#![allow(clippy::unwrap_used, missing_docs)]

mod annotated;
mod chained;
mod crash;
mod edges;
mod host;
mod load;
mod plugin;
mod verbs;
mod vms;
