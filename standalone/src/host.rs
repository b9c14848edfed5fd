//! What the parts of holdfastd share: this host's folders, stores and services.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_agent::vmi::{VmiContext, VmiTask};
use holdfast_api::config::ClusterConfig;
use holdfast_ipam::leases::LeaseStore;
use tokio::sync::watch;

use crate::cni::{NetworkList, Runtime};
use crate::images::Images;
use crate::manifests::FileErrors;
use crate::sandbox::{Cgroups, Ground};
use crate::store::{Events, Store};
use crate::vm::Pods;

/// This host.
pub struct Host {
    /// Its name as a node.
    pub node: String,
    /// Its labels as a node, for UnderlayNetworks.
    pub node_labels: BTreeMap<String, String>,
    /// The folder of manifests.
    pub manifests: PathBuf,
    /// State folder.
    pub state: PathBuf,
    /// Folder of sockets.
    pub run: PathBuf,
    /// Folder of named network namespaces.
    pub netns: PathBuf,
    /// Folders below which hostDisk volumes may lie.
    pub host_disk_folders: Vec<PathBuf>,
    /// holdfastd's own program, which becomes each sandbox's first process.
    pub program: PathBuf,
    /// virt-launcher's program.
    pub launcher: PathBuf,
    /// Settings for defaulting and validation.
    pub config: ClusterConfig,
    /// Objects.
    pub store: Store,
    /// Events.
    pub events: Events,
    /// What is wrong with files of the folder of manifests.
    pub file_errors: FileErrors,
    /// How long a released address stays locked.
    pub quarantine: Duration,
    /// Leases of addresses.
    pub leases: Arc<dyn LeaseStore>,
    /// Disks of images.
    pub images: Images,
    /// Executes CNI plugins.
    pub cni: Runtime,
    /// The network of networks `pod: {}`.
    pub pod_network: NetworkList,
    /// Control groups.
    pub cgroups: Cgroups,
    /// Whether KVM can run guests here and may be used.
    pub kvm: bool,
    /// What VMIs' tasks share.
    pub vmi: VmiContext,
    /// Which NICs the sandboxes' interfaces carry.
    pub pods: Pods,
    /// The VMIs' tasks, for those who command.
    pub tasks: Tasks,
    /// Counts changes that may let what failed succeed: of networks, secrets, and objects that went.
    pub world: watch::Sender<u64>,
}

impl Host {
    /// Where sandboxes leave traces.
    pub fn ground(&self) -> Ground<'_> {
        Ground { state: &self.state, netns: &self.netns, cgroups: &self.cgroups, cni: &self.cni }
    }

    /// The folder of a VMI's files.
    pub fn vm_folder(&self, uid: &str) -> PathBuf {
        self.state.join("vms").join(uid)
    }
}

/// The tasks of the VMIs that have a sandbox, by uid.
#[derive(Clone, Default)]
pub struct Tasks(Arc<Mutex<BTreeMap<String, Arc<VmiTask>>>>);

impl Tasks {
    /// The task of a VMI.
    pub fn get(&self, uid: &str) -> Option<Arc<VmiTask>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(uid).cloned()
    }

    /// Makes a task known for as long as what is returned lives.
    pub fn enter(&self, uid: &str, task: Arc<VmiTask>) -> Entry {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(uid.to_owned(), task);
        Entry { tasks: self.clone(), uid: uid.to_owned() }
    }
}

/// Keeps a task known.
pub struct Entry {
    tasks: Tasks,
    uid: String,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.tasks.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.uid);
    }
}

/// An error with its causes, in a line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Transparent errors say the same twice.
        if !text.ends_with(&cause_text) {
            text.push_str(&format!(": {cause_text}"));
        }
        source = cause.source();
    }
    text
}

/// Returns when holdfastd is to end.
pub async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that whoever would say so is gone: that is an end, too.
    let _ = stop.wait_for(|stop| *stop).await;
}
