//! TLS of mounted Secrets, and HTTP over it.
//!
//! Certificates change while a process runs: the kubelet exchanges the files of a mounted Secret, and config maps
//! of the cluster are followed. So nothing is read once: each handshake takes what is there then (files are looked
//! at again at most every few seconds), and keeps what it had where that cannot be used.
//!
//! **Invariant:** what a peer says of itself is believed only by its certificate, verified in its handshake. There
//! is no resumption of sessions, for that would carry a certificate past the exchange of its authority.

mod client;
mod peer;
mod pem;
mod serve;
mod server;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;

pub use client::client;
pub use peer::{Peer, Subject};
pub use pem::{Pem, PemError};
pub use serve::{keep_alive, serve};
pub use server::{server, server_of};

/// File of the certificate's chain in the folder of a mounted Secret.
const CERTIFICATE: &str = "tls.crt";
/// File of its key.
const KEY: &str = "tls.key";

/// There can be no TLS.
#[derive(Debug, thiserror::Error)]
#[error("failed to set up TLS")]
pub struct TlsError(#[from] rustls::Error);

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Certificate and key of a mounted Secret.
fn identity(folder: &Path) -> (Pem, Pem) {
    (Pem::File(folder.join(CERTIFICATE)), Pem::File(folder.join(KEY)))
}
