//! Network wiring: desired state, plan, apply.
//!
//! Pure by default. Effects (netlink, nftables, OVSDB, namespaces) live behind the `kernel` feature.

pub mod model;
