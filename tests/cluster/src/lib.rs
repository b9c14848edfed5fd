//! What the cluster suite works with: the API server, and the replays of what upstream was seen to answer.
//!
//! Everything here runs in the network namespace of the test cluster's control plane and reads `KUBECONFIG`;
//! `cargo xtask test` and `cargo xtask cluster shell` see to both.

pub mod api;
pub mod replay;
pub mod rights;
