//! Network wiring: desired state, plan, apply.
//!
//! [`attachment::desired`] and [`binding::desired`] say what shall be, [`plan::plan`] says what is to be done about it,
//! and with the feature `kernel` a `kernel::Wiring` observes and does it. Pure by default: effects (netlink, nftables,
//! OVSDB, namespaces) live behind that feature.

pub mod attachment;
pub mod binding;
pub mod desired;
pub mod error;
#[cfg(feature = "kernel")]
pub mod kernel;
pub mod mark;
pub mod model;
pub mod observed;
pub mod op;
pub mod plan;
pub mod security;
pub mod table;
