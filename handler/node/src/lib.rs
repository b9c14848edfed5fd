//! A node as Kubernetes sees it, made able to run VMs and kept so.
//!
//! [`devices`] offers the devices that launchers need to kubelet, [`labels`] says what CPUs and machines there are,
//! [`cni`] puts our plugin behind the cluster's primary one, [`checks`] judges whether VMs can run here, and `publish`
//! writes all that to the Node object, with a heartbeat. Invariants: a node is schedulable for VMs only while all of it
//! works; a beat writes what changed and nothing else; what was installed is taken away again when the whole
//! installation goes, and only then, so that an update of the agent disturbs nobody.

pub mod checks;
pub mod cni;
pub mod devices;
mod facts;
pub mod labels;
mod publish;
pub mod uninstall;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_kubernetes::config::Settings;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use facts::Facts;

/// The node, and where things are on it.
#[derive(Clone)]
pub struct NodeOptions {
    /// Its name.
    pub node: String,
    /// The API server.
    pub client: kube::Client,
    /// The agent's folder of sockets; device nodes go below it.
    pub run: PathBuf,
    /// The agent's state.
    pub state: PathBuf,
    /// kubelet's folder.
    pub kubelet: PathBuf,
    /// Where the container runtime looks for CNI plugins.
    pub cni_bin: PathBuf,
    /// Where it looks for its network.
    pub cni_conf: PathBuf,
    /// Our CNI plugin.
    pub cni_plugin: PathBuf,
    /// What `virt-launcher probe` has left.
    pub capabilities: PathBuf,
    /// OVSDB's socket, where there shall be one.
    pub ovsdb: Option<PathBuf>,
    /// Whether KVM can run a guest here.
    pub kvm: bool,
    /// Whether a NIC could be wired; what was in the way where not.
    pub wiring: Result<(), String>,
    /// The installation's settings.
    pub settings: watch::Receiver<Arc<Settings>>,
}

/// Does all of it until `stop`, and then leaves the node in order. What it returns says whether the whole installation
/// goes: then [`uninstall::clean`] is to follow when nothing of this process works any more.
pub fn spawn(options: NodeOptions, stop: CancellationToken) -> JoinHandle<bool> {
    let facts = watch::Sender::new(Facts::default());
    let devices = devices::offer(&options, facts.clone(), stop.clone());
    let chain = cni::keep(cni::Places::of(&options), facts.clone(), stop.clone());
    let publish = publish::run(options.clone(), facts.subscribe(), stop.clone());
    let installation = uninstall::follow(options.settings.clone(), stop);
    tokio::spawn(async move {
        let ((), (), mut publisher, gone) = tokio::join!(devices, chain, publish, installation);
        if gone {
            uninstall::unchain(&options).await;
            publisher.erase().await;
        } else {
            publisher.leave().await;
        }
        gone
    })
}

/// Wakes at each change of what is in a folder, for as long as what is returned lives. Without it, a regular look has to
/// do.
fn watch_folder(folder: &Path, wake: watch::Sender<()>) -> Option<RecommendedWatcher> {
    let told = move |event: notify::Result<notify::Event>| {
        // Our own reading is no change.
        if event.is_ok_and(|event| !event.kind.is_access()) {
            wake.send_replace(());
        }
    };
    let watched = notify::recommended_watcher(told).and_then(|mut watcher| {
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    });
    watched.inspect_err(|error| tracing::warn!(%error, folder = %folder.display(), "failed to watch a folder")).ok()
}

/// An error with its causes, in a line.
fn text(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
