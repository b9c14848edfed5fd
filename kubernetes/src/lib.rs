//! What every process that talks to a Kubernetes API server shares: the client, the log, leader election, events,
//! TLS from mounted Secrets, the HTTP of probes and metrics, and leases as objects of the API.
//!
//! Nothing here knows what a virtual machine is.

pub mod client;
pub mod config;
pub mod events;
pub mod leader;
pub mod log;
pub mod probes;
pub mod store;
pub mod tls;

/// An error with its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
