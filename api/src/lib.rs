//! API types.
#![allow(missing_docs)]

pub mod kubevirt;
