//! The CNI plugin's call to the agent: one request, one answer, one connection.
//!
//! The plugin takes no decision: it forwards its environment and its configuration as they are and prints what
//! comes back (CNI specification 1.1.0, sections 2 and 5).

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Where the agent listens for the plugin unless the network's configuration says otherwise by `agentSocket`.
pub const DEFAULT_SOCKET: &str = "/run/holdfast/cni.sock";

/// The verbs of CNI that need the agent (VERSION does not).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verb {
    /// Attach.
    Add,
    /// Detach.
    Del,
    /// Check that what ADD made is still there.
    Check,
    /// Remove what no valid attachment owns.
    Gc,
    /// Say whether ADD would be served.
    Status,
}

/// One invocation of the plugin.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// [`crate::PROTOCOL_VERSION`] of the caller.
    pub version: u32,
    /// CNI_COMMAND.
    pub verb: Verb,
    /// CNI_CONTAINERID; empty where the verb has none.
    #[serde(default)]
    pub container_id: String,
    /// CNI_NETNS, a path; empty where the verb has none or the namespace is gone.
    #[serde(default)]
    pub netns: String,
    /// CNI_IFNAME; empty where the verb has none.
    #[serde(default)]
    pub ifname: String,
    /// CNI_ARGS as given: `K=V;K=V`.
    #[serde(default)]
    pub args: String,
    /// Whether CNI_NETNS_OVERRIDE was set.
    #[serde(default)]
    pub netns_override: bool,
    /// Standard input, parsed: the network's configuration with `cniVersion`, `prevResult`, `runtimeConfig`.
    pub config: Value,
}

/// The agent's answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Response {
    /// Print this (a result in the version of the configuration), or nothing where it is null; exit 0.
    Done(Value),
    /// Print this as the error object; exit 1.
    Failed(CniError),
}

/// A CNI error (specification section 5, "Error").
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CniError {
    /// One of the specification's codes, or 100 and above for ours.
    pub code: u32,
    /// What failed, in a line.
    pub msg: String,
    /// The chain of causes, and what to do next.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub details: String,
}
