//! What reads the answers of the kernel and of Open vSwitch: from bytes to values, without a socket.
//!
//! Invariant: no bytes make any of them panic or go on without end; what cannot be read is an error.

pub use super::guard::read_elements;
pub use super::netlink::Answer;
pub use super::nft::read_rule;
pub use super::openflow::{Told, read_commit, read_flows, read_told};
pub use super::ovsdb::{JsonStream, Replica, Touched};
