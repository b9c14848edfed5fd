//! Starting and ending holdfastd.
//!
//! Order of the start, each step needing the ones before: checks, folders and their lock, objects, leases, the agent
//! (which serves the CNI plugin), the roles (manifests, VMs, VMIs), the API. At the end the other way round; what
//! runs is left running.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::future::Future;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use holdfast_agent::kvm;
use holdfast_agent::vmi::{Timing, VmiContext};
use holdfast_agent::{Agent, AgentOptions};
use holdfast_api::config::ClusterConfig;
use holdfast_api::underlay::UnderlayNetwork;
use holdfast_ipam::leases::{FileStore, LeaseStore};
use nix::fcntl::{Flock, FlockArg};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::cni::{NetworkList, Runtime, default_pod_network};
use crate::host::{Host, Tasks, stopped};
use crate::images::Images;
use crate::manifests::{Applier, FileErrors, watch as watch_manifests};
use crate::options::{Emulation, Options};
use crate::sandbox::Cgroups;
use crate::store::{Events, Kind, Store};
use crate::vm::{Pods, supervise};
use crate::{api_server, checks, controller};

/// How long the roles may take to end.
const ENDING: Duration = Duration::from_secs(20);
/// The feature gates of KubeVirt that are open on one host: what they guard is served here.
const GATES: [&str; 1] = ["HostDisk"];

/// Runs until SIGTERM or SIGINT.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let mut ending = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let own = std::env::current_exe().context("failed to find holdfastd's own program")?;
    let own_folder = own.parent().unwrap_or(Path::new("/")).to_owned();
    let launcher = options.launcher.clone().unwrap_or_else(|| own_folder.join("virt-launcher"));
    let problems = checks::problems(&options.state, &launcher);
    if !problems.is_empty() {
        bail!("this host is not ready:\n- {}", problems.join("\n- "));
    }
    let _lock = prepare(&options)?;
    let kvm = judge_kvm(options.emulation).await?;
    let node = options.node.clone().unwrap_or_else(host_name);
    let store = Store::open(&options.state.join("objects"))?;
    let events = Events::open(&options.state.join("events"), &node).context("failed to open the events")?;
    let leases: Arc<dyn LeaseStore> = Arc::new(FileStore::open(&options.state.join("leases"))?);
    let (networks, networks_seen) = watch::channel(Arc::default());
    publish_networks(&store, &networks);
    let pods = Pods::default();
    // As on a cluster, where the kubelet says it.
    let own_name = ("kubernetes.io/hostname".to_owned(), node.clone());
    let labels: BTreeMap<_, _> = [own_name].into_iter().chain(options.node_labels.iter().cloned()).collect();
    let agent_options = AgentOptions {
        node: node.clone(),
        node_labels: labels.clone(),
        state: options.state.clone(),
        run: options.run.clone(),
        ovsdb: Some(options.ovsdb.clone()),
        http: options.http.clone(),
        quarantine: Duration::from_secs(options.quarantine),
        resync: AgentOptions::RESYNC,
    };
    let agent = Agent::start(agent_options, Arc::clone(&leases), Arc::new(pods.clone()), networks_seen).await?;
    let paths = std::iter::once(own_folder).chain(options.cni_bin_path.iter().cloned()).collect();
    let host = Arc::new(Host {
        node,
        node_labels: labels,
        manifests: options.manifests.clone(),
        state: options.state.clone(),
        run: options.run.clone(),
        netns: options.run.join("netns"),
        host_disk_folders: options.host_disk_folders.clone(),
        // The running program, also after its file was replaced by a newer one.
        program: PathBuf::from("/proc/self/exe"),
        launcher,
        config: config(),
        store,
        events,
        file_errors: FileErrors::default(),
        quarantine: Duration::from_secs(options.quarantine),
        leases,
        images: Images::open(&options.state.join("images"))?,
        cni: Runtime::new(paths),
        pod_network: pod_network(&options)?,
        cgroups: Cgroups::detect(),
        kvm,
        vmi: VmiContext {
            state: options.state.clone(),
            wiring: agent.wiring(),
            emulation: !kvm,
            capabilities: Arc::default(),
            timing: Timing::default(),
            repairs: agent.repairs(),
            metrics: agent.vmi_metrics(),
        },
        pods,
        tasks: Tasks::default(),
        world: watch::Sender::new(0),
    });
    let (stop, stopped) = watch::channel(false);
    let mut roles = start_roles(&host, &stopped, networks)?;
    tracing::info!(manifests = %options.manifests.display(), kvm, "ready");
    let ended = tokio::select! {
        _ = ending.0.recv() => None,
        _ = ending.1.recv() => None,
        role = roles.join_next() => role,
    };
    stop.send_replace(true);
    let rest = async { while roles.join_next().await.is_some() {} };
    if tokio::time::timeout(ENDING, rest).await.is_err() {
        tracing::warn!("a role did not end in time");
    }
    agent.stop().await;
    match ended {
        None => Ok(()),
        Some(Ok(result)) => result.and_then(|name| bail!("`{name}` came to an end by itself")),
        Some(Err(error)) => Err(error).context("a role failed"),
    }
}

/// Makes the folders and takes the lock on the state.
fn prepare(options: &Options) -> anyhow::Result<Flock<File>> {
    if !options.manifests.is_dir() {
        bail!("the manifests folder `{}` is not there: make it", options.manifests.display());
    }
    for folder in [&options.state, &options.run, &options.state.join("vms"), &options.run.join("netns")] {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.with_context(|| format!("failed to make folder `{}`", folder.display()))?;
    }
    let path = options.state.join("holdfastd.lock");
    let file = File::create(&path).with_context(|| format!("failed to open `{}`", path.display()))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| {
        anyhow::anyhow!(
            "another holdfastd uses the state folder `{}`: end it, or choose another by --state",
            options.state.display()
        )
    })
}

/// Whether guests run on KVM.
async fn judge_kvm(emulation: Emulation) -> anyhow::Result<bool> {
    if emulation == Emulation::Always {
        return Ok(false);
    }
    let verdict = tokio::task::spawn_blocking(kvm::probe).await.context("the KVM probe failed")?;
    match &verdict {
        kvm::KvmVerdict::Usable => return Ok(true),
        kvm::KvmVerdict::Absent => tracing::info!("there is no KVM here: guests' CPUs are emulated"),
        kvm::KvmVerdict::Unusable { why } => tracing::info!(why, "KVM cannot run a guest here: CPUs are emulated"),
    }
    if emulation == Emulation::Never {
        bail!("KVM cannot run a guest here ({verdict:?}): allow --emulation auto, or enable (nested) virtualisation");
    }
    Ok(false)
}

fn host_name() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| "localhost".to_owned())
}

/// KubeVirt's configuration as this host has it.
fn config() -> ClusterConfig {
    let feature_gates = GATES.into_iter().map(str::to_owned).collect();
    ClusterConfig { feature_gates, ..ClusterConfig::default() }
}

fn pod_network(options: &Options) -> anyhow::Result<NetworkList> {
    let socket = options.run.join("cni.sock");
    let Some(file) = &options.pod_network else {
        let default = default_pod_network(options.pod_cidr, &socket);
        return Ok(NetworkList::read(&default, "holdfast-pod")?);
    };
    let context = || format!("failed to read the pod network `{}`", file.display());
    let text = fs::read_to_string(file).with_context(context)?;
    Ok(NetworkList::parse(&text, "pod").with_context(context)?.with_agent_socket(&socket))
}

/// Tells the agent the UnderlayNetworks as they are.
fn publish_networks(store: &Store, networks: &watch::Sender<Arc<BTreeMap<String, UnderlayNetwork>>>) {
    let all = store.keys(Kind::UnderlayNetwork).into_iter().filter_map(|key| {
        let network: UnderlayNetwork = store.read("", &key.name)?;
        Some((key.name, network))
    });
    let all: BTreeMap<String, UnderlayNetwork> = all.collect();
    networks.send_if_modified(|known| {
        let changed = **known != all;
        *known = Arc::new(all);
        changed
    });
}

type Roles = JoinSet<anyhow::Result<&'static str>>;

/// Starts the roles; each returns its name when it ends.
fn start_roles(
    host: &Arc<Host>,
    stop: &watch::Receiver<bool>,
    networks: watch::Sender<Arc<BTreeMap<String, UnderlayNetwork>>>,
) -> anyhow::Result<Roles> {
    let mut roles = Roles::new();
    let listener = api_server::listen(&host.run.join("api.sock"))?;
    let applier = Applier::new(host.store.clone(), host.events.clone(), host.config.clone(), host.file_errors.clone());
    let manifests = watch_manifests(host.manifests.clone(), applier, stop.clone());
    roles.spawn(async move { manifests.await.map(|()| "manifests").map_err(anyhow::Error::from) });
    spawn(&mut roles, "networks", follow_networks(host.store.clone(), networks, stop.clone()));
    spawn(&mut roles, "controller", controller::control(Arc::clone(host), stop.clone()));
    spawn(&mut roles, "supervisor", supervise(Arc::clone(host), stop.clone()));
    spawn(&mut roles, "api", api_server::serve(listener, Arc::clone(host), stop.clone()));
    Ok(roles)
}

fn spawn(roles: &mut Roles, name: &'static str, role: impl Future<Output = ()> + Send + 'static) {
    roles.spawn(async move {
        role.await;
        Ok(name)
    });
}

async fn follow_networks(
    store: Store,
    networks: watch::Sender<Arc<BTreeMap<String, UnderlayNetwork>>>,
    mut stop: watch::Receiver<bool>,
) {
    let mut changes = store.subscribe();
    publish_networks(&store, &networks);
    loop {
        tokio::select! {
            () = stopped(&mut stop) => return,
            change = changes.recv() => match change {
                Ok(key) if key.kind == Kind::UnderlayNetwork => publish_networks(&store, &networks),
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => publish_networks(&store, &networks),
                Err(RecvError::Closed) => return,
            }
        }
    }
}
