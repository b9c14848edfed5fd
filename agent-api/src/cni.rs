//! The CNI plugin's call to the agent: one request, one answer, one connection.
//!
//! The plugin takes no decision: it forwards its environment and its configuration as they are and prints what
//! comes back (CNI specification 1.1.0, sections 2 and 5).

pub use holdfast_net::model::IfName;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Where the agent listens for the plugin unless the network's configuration says otherwise by `agentSocket`.
pub const DEFAULT_SOCKET: &str = "/run/holdfast/cni.sock";

/// Versions of CNI that are spoken, oldest first.
pub const SUPPORTED_VERSIONS: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// Folder beside the socket where the plugin leaves a DEL that the agent was not there to take: one request in
/// each file, named by [`note_key`].
pub const NOTES: &str = "deleted";

/// Error codes of CNI (specification section 5, "Error").
pub mod code {
    /// The version of the configuration is not spoken.
    pub const VERSION: u32 = 1;
    /// A field of the configuration is not supported.
    pub const UNSUPPORTED: u32 = 2;
    /// The container is not known.
    pub const UNKNOWN_CONTAINER: u32 = 3;
    /// An environment variable is missing or malformed.
    pub const ENVIRONMENT: u32 = 4;
    /// Input or output failed.
    pub const IO: u32 = 5;
    /// Something is not the JSON that it should be.
    pub const DECODE: u32 = 6;
    /// The configuration is invalid.
    pub const CONFIG: u32 = 7;
    /// The network namespace cannot be used.
    pub const NETNS: u32 = 8;
    /// It may pass by itself.
    pub const TRY_AGAIN: u32 = 11;
    /// ADD would not be served (STATUS).
    pub const UNAVAILABLE: u32 = 50;
    /// Ours: an address is somebody else's.
    pub const CONFLICT: u32 = 100;
    /// Ours: the interface, or what it hangs on, is not as ADD left it (CHECK).
    pub const DRIFT: u32 = 101;
    /// Ours: the node lacks something that the configuration names, such as the bridge.
    pub const NODE: u32 = 102;
    /// A defect of ours.
    pub const INTERNAL: u32 = 999;
}

/// Name of an attachment's file: `<container id>.<ifname>`, with `.` and `%` in the ifname escaped, so that no
/// two attachments share one.
pub fn file_key(container_id: &str, ifname: &str) -> String {
    format!("{container_id}.{}", ifname.replace('%', "%25").replace('.', "%2e"))
}

/// Name of a note in [`NOTES`]: that of the attachment, or of all that were made behind a call of the primary network.
pub fn note_key(container_id: &str, ifname: &str, chained: bool) -> String {
    // `file_key` leaves no dot in an ifname.
    format!("{}{}", file_key(container_id, ifname), if chained { ".chain" } else { "" })
}

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

impl Request {
    /// Whether our plugin stands behind a cluster's primary one (`"chained": true` in its configuration): then it makes
    /// no interface of its own, but those that the pod's annotation asks for, and `ifname` is the primary's.
    pub fn is_chained(&self) -> bool {
        self.config.get("chained") == Some(&Value::Bool(true))
    }

    /// Name of this DEL's note in [`NOTES`].
    pub fn note_key(&self) -> String {
        note_key(&self.container_id, &self.ifname, self.is_chained())
    }
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
