//! The API groups of kubevirt.io, as KubeVirt 1.9 has them.
//!
//! Names, types, optional fields and list semantics are those of the upstream API;
//! `tests/schema.rs` holds them against it. Values that upstream keeps as free strings are strings
//! here too: which of them are allowed is said beside the field and checked by `crate::validate`.
//! All types are exported from this module, wherever they are defined.

mod access;
mod clock;
mod compute;
mod configuration;
mod data_volume;
mod device;
mod disk;
mod domain;
mod features;
mod firmware;
mod installation;
mod instancetype;
mod migration;
mod migration_status;
mod network;
mod pool;
mod preference;
mod probe;
mod replica_set;
mod storage_status;
mod vm;
mod vm_status;
mod vmi;
mod vmi_status;
mod volume;

pub use access::*;
pub use clock::*;
pub use compute::*;
pub use configuration::*;
pub use data_volume::*;
pub use device::*;
pub use disk::*;
pub use domain::*;
pub use features::*;
pub use firmware::*;
pub use installation::*;
pub use instancetype::*;
pub use migration::*;
pub use migration_status::*;
pub use network::*;
pub use pool::*;
pub use preference::*;
pub use probe::*;
pub use replica_set::*;
pub use storage_status::*;
pub use vm::*;
pub use vm_status::*;
pub use vmi::*;
pub use vmi_status::*;
pub use volume::*;

/// Reads a field in which null says something else than silence: upstream writes times that nobody keeps as null,
/// and clients compare objects to the letter.
fn null_is_given<'de, D: serde::Deserializer<'de>>(reader: D) -> Result<Option<serde_json::Value>, D::Error> {
    serde::Deserialize::deserialize(reader).map(Some)
}
