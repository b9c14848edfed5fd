//! Networks and the addresses on them: what a network is on a node, and who holds which address.
//!
//! [`network`] makes one network of a CNI configuration and the UnderlayNetwork that it names (pure); [`leases`]
//! takes, binds and releases addresses in a store of leases, whichever that is; [`nic`] reads from a VMI which NICs ask
//! for which; [`disk`] is for files of leases and records.

pub mod disk;
pub mod leases;
pub mod network;
pub mod nic;
