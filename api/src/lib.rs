//! API types.
#![allow(missing_docs)]

pub mod kubevirt;
pub mod lease;
pub mod nad;
pub mod names;
pub mod pool;
pub mod underlay;
