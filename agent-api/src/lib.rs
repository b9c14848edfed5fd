//! What the CNI plugin, the launcher and the agent say to each other.
//!
//! One framing ([`frame`]) on unix stream sockets: a length, a JSON document, and file descriptors beside it
//! where a message carries them. Blocking, with a deadline on each call, and free of an async runtime, so that
//! the CNI plugin stays small. Each request names [`PROTOCOL_VERSION`]; a peer that does not speak it answers
//! with an error that names both versions.

pub mod cni;
pub mod frame;
pub mod launcher;

/// Version of all messages in this crate. Fields may be added within a version (readers ignore what they do
/// not know); anything else raises it.
pub const PROTOCOL_VERSION: u32 = 1;
