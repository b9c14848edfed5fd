//! Starting and ending an agent.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use holdfast_net::kernel::{Wiring, WiringError, WiringOptions};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, socket};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::context::Context;
use crate::metrics::Metrics;
use crate::netns::{NetnsId, Visitor};
use crate::registry::{self, DiskError, Folder, Registry};
use crate::repairs::Repairs;
use crate::vmi::VmiMetrics;
use crate::workloads::Workloads;
use crate::{cni, http};
use holdfast_ipam::leases::LeaseStore;
use holdfast_ipam::network::Networks;

/// Name of the CNI plugin's socket in the run folder.
pub const CNI_SOCKET: &str = "cni.sock";
/// Name of the abstract socket that whoever looks after a network namespace holds.
const NAMESPACE_LOCK: &str = "holdfast-agent";

/// What an agent needs to know of its node.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// Name of the node.
    pub node: String,
    /// Its labels at the start, for `nodes` of an UnderlayNetwork.
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

impl AgentOptions {
    /// How long a released address stays locked, unless told otherwise.
    pub const QUARANTINE: Duration = Duration::from_secs(60);
    /// How often everything is compared with the kernel, unless told otherwise.
    pub const RESYNC: Duration = Duration::from_secs(30);
}

/// Where HTTP is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpAddress {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

impl FromStr for HttpAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with('/') {
            return Ok(Self::Unix(text.into()));
        }
        let address = text.parse().map_err(|_| "it must be ADDRESS:PORT, or a path that begins with `/`")?;
        Ok(Self::Tcp(address))
    }
}

/// A label of a node as an option gives it, `KEY=VALUE`.
///
/// # Errors
/// Without `=`, in words for the command line.
pub fn node_label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("it must be of the form KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// A running agent. Dropped without [`Agent::stop`], it ends as if it had crashed.
pub struct Agent {
    context: Context,
    registry: Registry,
    node_labels: watch::Sender<Arc<BTreeMap<String, String>>>,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Keeps a second agent from the same state.
    _locks: (Flock<File>, OwnedFd),
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent").field("options", &self.context.options).finish_non_exhaustive()
    }
}

impl Agent {
    /// Loads the registry, drops what has lost its namespace, and serves the CNI plugin and HTTP from then on.
    /// The network namespace of the calling thread is the node's.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(
        options: AgentOptions,
        leases: Arc<dyn LeaseStore>,
        workloads: Arc<dyn Workloads>,
        networks: Networks,
    ) -> Result<Self, StartError> {
        let locks = (prepare(&options)?, claim_namespace()?);
        let (folder, records) = Folder::open(&options.state.join("attachments"))?;
        let wiring = Wiring::open(WiringOptions { ovsdb: options.ovsdb.clone() })?;
        let (node_labels, labels) = watch::channel(Arc::new(options.node_labels.clone()));
        let own_netns = |source| StartError::Io { path: "/proc/self/ns/net".into(), source };
        let context = Context {
            node_labels: labels,
            wiring,
            leases,
            workloads,
            networks,
            metrics: Arc::new(Metrics::default()),
            repairs: Repairs::default(),
            own_netns: NetnsId::own().map_err(own_netns)?,
            visitor: Visitor::start().map_err(own_netns)?,
            options: Arc::new(options),
        };
        let options = &context.options;
        let socket = options.run.join(CNI_SOCKET);
        let listener = bind_socket(&socket).map_err(|source| StartError::Io { path: socket, source })?;
        let http = match &options.http {
            Some(address) => Some(
                http::bind(address).await.map_err(|source| StartError::Http { address: address.clone(), source })?,
            ),
            None => None,
        };

        let (removals, gathered) = mpsc::unbounded_channel();
        let registry = Registry::new(folder, records, removals);
        registry.take_notes(&options.run).await;
        registry::drop_dead(&context, &registry).await;

        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        tasks.spawn(registry::clean(context.clone(), registry.clone(), gathered, stop.clone()));
        tasks.spawn(cni::serve(context.clone(), registry.clone(), listener, stop.clone()));
        if let Some(listener) = http {
            tasks.spawn(http::serve(context.clone(), registry.clone(), listener, stop.clone()));
        }
        tasks.spawn(registry::resync_forever(context.clone(), registry.clone(), stop.clone()));
        tasks.close();
        Ok(Self { context, registry, node_labels, tasks, stop, _locks: locks })
    }

    /// The node's wiring, shared.
    pub fn wiring(&self) -> Wiring {
        self.context.wiring.clone()
    }

    /// Tells of what was found changed, and mended.
    pub fn repairs(&self) -> Repairs {
        self.context.repairs.clone()
    }

    /// What the tasks of this node's VMIs count into, so that `/metrics` tells it.
    pub fn vmi_metrics(&self) -> VmiMetrics {
        self.context.metrics.vmi.clone()
    }

    /// Everything that is counted, as OpenMetrics text, for whoever serves it elsewhere.
    pub fn metrics(&self) -> impl Fn() -> BoxFuture<'static, Result<String, String>> + Clone + Send + Sync + 'static {
        let (context, registry) = (self.context.clone(), self.registry.clone());
        move || {
            let (context, registry) = (context.clone(), registry.clone());
            Box::pin(async move { http::metrics_text(&context, &registry).await })
        }
    }

    /// Says that the node's labels are others now: the next ADD goes by them.
    pub fn set_node_labels(&self, labels: BTreeMap<String, String>) {
        self.node_labels.send_if_modified(|known| {
            let changed = **known != labels;
            *known = Arc::new(labels);
            changed
        });
    }

    /// The attachments of this node.
    pub fn registry(&self) -> Registry {
        self.registry.clone()
    }

    /// Finishes the operations at hand and ends. Touches no networking beyond them.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

/// Makes the folders and takes the lock of the state.
fn prepare(options: &AgentOptions) -> Result<Flock<File>, StartError> {
    for folder in [&options.state, &options.run] {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        // It may have been there with another mode: the socket's protection is its folder's.
        let set = made.and_then(|()| fs::set_permissions(folder, fs::Permissions::from_mode(0o700)));
        set.map_err(|source| StartError::Io { path: folder.clone(), source })?;
    }
    let path = options.state.join(".agent.lock");
    let file = File::create(&path).map_err(|source| StartError::Io { path, source })?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| StartError::Locked(options.state.clone()))
}

/// Takes the node's network namespace: two agents would each take the other's devices for strays.
///
/// An abstract socket belongs to the network namespace of its maker and goes with its process, however that ends
/// (unix(7)); so this is a lock that is neither stale nor held by a process that only shares a file system.
fn claim_namespace() -> Result<OwnedFd, StartError> {
    let taken = |errno| match errno {
        Errno::EADDRINUSE => StartError::NamespaceTaken,
        errno => StartError::Io { path: NAMESPACE_LOCK.into(), source: errno.into() },
    };
    let socket = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).map_err(taken)?;
    let address = UnixAddr::new_abstract(NAMESPACE_LOCK.as_bytes()).map_err(taken)?;
    bind(socket.as_raw_fd(), &address).map_err(taken)?;
    Ok(socket)
}

/// Listens on a unix socket, in place of one that a crash has left.
pub(crate) fn bind_socket(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
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
        source: io::Error,
    },
    /// Nobody can listen there.
    #[error("failed to serve HTTP on {address:?}")]
    Http {
        /// Where.
        address: HttpAddress,
        /// Why.
        source: io::Error,
    },
    /// Another agent works on the same state.
    #[error("the state `{}` is in use by another agent", .0.display())]
    Locked(PathBuf),
    /// Another agent looks after the same network namespace.
    #[error("another agent (holdfastd or virt-handler) looks after this host's network: end it first")]
    NamespaceTaken,
    /// The registry cannot be read.
    #[error(transparent)]
    Registry(#[from] DiskError),
    /// The node's network cannot be opened.
    #[error("failed to open the node's network")]
    Wiring(#[from] WiringError),
}
