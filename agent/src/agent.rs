//! Starting and ending an agent.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::leases::LeaseStore;
use crate::network::Networks;
use crate::workloads::Workloads;

/// What an agent needs to know of its node.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// Name of the node.
    pub node: String,
    /// Its labels, for `nodes` of an UnderlayNetwork.
    pub node_labels: BTreeMap<String, String>,
    /// State folder: `attachments/` is kept here. Made with mode 0700 where it is missing.
    pub state: PathBuf,
    /// Run folder: `cni.sock` is made here. Made with mode 0700 where it is missing.
    pub run: PathBuf,
    /// OVSDB's socket; none on a node without OVS.
    pub ovsdb: Option<PathBuf>,
    /// Where to answer /healthz, /metrics and /debug/attachments; nowhere where none is given.
    pub http: Option<HttpAddress>,
    /// How long a released address stays locked.
    pub quarantine: Duration,
    /// How often everything is compared with the kernel.
    pub resync: Duration,
}

/// Where HTTP is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpAddress {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {}

impl Agent {
    /// Loads the registry, cleans up what nobody owns, and serves the CNI plugin and HTTP from then on.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(
        options: AgentOptions,
        leases: Arc<dyn LeaseStore>,
        workloads: Arc<dyn Workloads>,
        networks: Networks,
    ) -> Result<Self, StartError> {
        let _ = (options, leases, workloads, networks);
        Ok(Self {})
    }

    /// Finishes the operations at hand and ends. Touches no networking.
    pub async fn stop(self) {}
}

/// Why an agent did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A folder or socket cannot be made.
    #[error("failed to prepare `{}`", .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}
