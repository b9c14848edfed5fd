//! virt-launcher: one VM, from its spec and wired NICs to a libvirt domain that runs.
//!
//! The agent says over [`server`] what shall run; [`vm`] decides, with [`disks`] and [`domain`] to prepare it,
//! [`libvirt`] to run it and [`dhcp`] to give the guest its addresses. A launcher holds no capability, is an ordinary
//! user ([`confinement`]), and touches no network configuration: taps and packet sockets come from the agent. Another
//! way of running it, [`probe`], finds out once what all launchers of a node would have to ask.

pub mod allocator;
pub mod confinement;
pub mod console_log;
pub mod dhcp;
pub mod disks;
pub mod domain;
pub mod libvirt;
pub mod paths;
pub mod probe;
pub mod reaper;
pub mod server;
pub mod taps;
pub mod tool;
pub mod vm;
