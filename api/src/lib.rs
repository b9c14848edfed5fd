//! The types that users see, and the decisions that follow from them alone.
//!
//! [`kubevirt`] has the kinds of upstream's API, [`nad`] the networks of Multus, [`underlay`] and
//! [`lease`] our own; [`crd`] makes CRDs of them, and [`decode`] reads manifests. Defaulting,
//! validation and run-strategy decisions are here as well, so that whoever admits an object decides
//! the same; [`admit`] is all of that as webhooks need it, [`instancetype`] what sizes and
//! preferences make of a machine.
//!
//! Invariant: pure. Nothing here reads a clock, a file, the network or the environment; times and
//! random numbers come in as arguments.
#![allow(clippy::duplicated_attributes, reason = "each printer column of a kind repeats the keys of the others")]

pub mod addresses;
pub mod admit;
pub mod config;
pub mod crd;
pub mod decode;
pub mod defaults;
pub mod error_status;
pub mod honoured;
pub mod instancetype;
pub mod kubevirt;
pub mod lease;
pub mod nad;
pub mod names;
pub mod pool;
pub mod quantity;
pub mod run_strategy;
pub mod selector;
pub mod status;
pub mod underlay;
pub mod validate;
