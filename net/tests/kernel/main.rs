//! The wiring against the real kernel and the real switch, in namespaces of each test's own. Needs root; what the
//! machine promises (veth, bridge, tap, nftables, Open vSwitch with its userspace datapath) fails where it is missing.
#![allow(clippy::unwrap_used, reason = "in a test, to panic is to fail")]

mod bandwidth;
mod bindings;
mod frames;
mod links;
mod linux_bridge;
mod macvtap;
mod ovs;
mod pods;
mod security;
mod switch;
mod traffic;
mod world;
