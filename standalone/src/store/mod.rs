//! The object store: what a cluster's API server would keep, for one host, in a folder.
//!
//! Invariants: an object is on disk (synced, renamed) before anybody sees its change; writing what is already
//! there changes nothing, wakes nobody and costs no revision; `uid`, `creationTimestamp`, `namespace` and `name`
//! never change; an object with finalizers is only marked by a deletion and goes with its last finalizer.

mod disk;
mod events;
mod kind;
mod objects;

pub use disk::write_atomically;
pub use events::{EventKind, Events, Involved};
pub use kind::{Key, Kind, Stored};
pub use objects::{Store, StoreError};
