//! API types.
#![allow(missing_docs)]

pub mod config;
pub mod crd;
pub mod decode;
pub mod defaults;
pub mod error_status;
pub mod honoured;
pub mod kubevirt;
pub mod lease;
pub mod nad;
pub mod names;
pub mod pool;
pub mod quantity;
pub mod run_strategy;
pub mod status;
pub mod underlay;
