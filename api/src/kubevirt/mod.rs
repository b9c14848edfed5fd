//! kubevirt.io/v1.

mod clock;
mod compute;
mod data_volume;
mod device;
mod disk;
mod domain;
mod features;
mod firmware;
mod network;
mod security;
mod status;
mod vm;
mod vmi;
mod volume;

pub use clock::*;
pub use compute::*;
pub use data_volume::*;
pub use device::*;
pub use disk::*;
pub use domain::*;
pub use features::*;
pub use firmware::*;
pub use network::*;
pub use security::*;
pub use status::*;
pub use vm::*;
pub use vmi::*;
pub use volume::*;
