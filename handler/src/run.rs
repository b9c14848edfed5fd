//! Starting and ending virt-handler.
//!
//! Order of the start, each step needing the ones before: what the disk knows, the agent (which serves the CNI plugin),
//! the watches, the VMs, the server, and what makes the node known to the cluster, so that pods come when all of it is
//! there. None of them needs the API server to answer. At the end what runs is left running.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, bail};
use holdfast_agent::vmi::{Capabilities, Timing, VmiContext};
use holdfast_agent::{Agent, AgentOptions, HttpAddress, kvm};
use holdfast_api::kubevirt::VirtualMachineInstance;
use holdfast_kubernetes::chain;
use holdfast_kubernetes::config::{self, Settings};
use holdfast_kubernetes::events::Events;
use holdfast_net::kernel::rehearse;
use k8s_openapi::api::core::v1 as core;
use kube::Client;
use kube::runtime::watcher;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::follow::{Change, follow};
use crate::leases::NodeLeases;
use crate::networks::{Definitions, Underlays, read_labels, write_labels};
use crate::nics::Nics;
use crate::options::Options;
use crate::pods::{Pod, Pods};
use crate::server::{Serving, serve};
use crate::vmi::{Node, Running, Vmis, supervise};
use crate::workloads::NodeWorkloads;
use crate::{network_status, repairs};

/// How long the parts may take to end.
const ENDING: Duration = Duration::from_secs(15);
/// Before the settings are asked for again.
const SETTINGS_AGAIN: Duration = Duration::from_secs(5);
/// Component of events, as clients know it.
const COMPONENT: &str = "virt-handler";
/// Name of the agent's own HTTP socket in the run folder: /debug/attachments.
const DEBUG_SOCKET: &str = "agent.sock";

/// Runs until SIGTERM or SIGINT.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let mut ending = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (client, namespace) = holdfast_kubernetes::client::client(&options.cluster).await?;
    let namespace = options.namespace.clone().unwrap_or(namespace);
    let verdict = tokio::task::spawn_blocking(kvm::probe).await.context("the KVM probe failed")?;
    tracing::info!(?verdict, "probed KVM");

    let pods = Pods::open(&options.state.join("pods"));
    let nics = Nics::open(&options.state.join("launchers"));
    let definitions = Definitions::open(&options.state);
    let (underlays, networks) = Underlays::open(&options.state);
    let (joined, joined_seen) = mpsc::unbounded_channel();
    let workloads = NodeWorkloads {
        pods: pods.clone(),
        nics: nics.clone(),
        definitions: definitions.clone(),
        client: client.clone(),
        joined,
    };
    let leases = Arc::new(NodeLeases::new(client.clone(), &options.node));
    let agent = Agent::start(agent_options(&options), leases, Arc::new(workloads), networks).await?;
    let agent = Arc::new(agent);

    let stop = CancellationToken::new();
    let vmis = Vmis::default();
    let running = Running::default();
    let events = Events::new(client.clone(), COMPONENT, Some(options.node.clone()));
    let node = Arc::new(Node {
        client: client.clone(),
        name: options.node.clone(),
        kubelet: options.kubelet.clone(),
        pods: pods.clone(),
        nics,
        vmis: vmis.clone(),
        registry: agent.registry(),
        vmi: VmiContext {
            state: options.state.clone(),
            wiring: agent.wiring(),
            emulation: !verdict.is_usable(),
            timing: Timing::default(),
            repairs: agent.repairs(),
            metrics: agent.vmi_metrics(),
            capabilities: Arc::new(read_capabilities(&options.capabilities)),
        },
        kvm: verdict.is_usable(),
        running: running.clone(),
        events: events.clone(),
        used: Mutex::new(BTreeSet::new()),
    });

    let mut roles = Roles::default();
    roles.spawn("pods", follow_pods(client.clone(), options.node.clone(), pods.clone()));
    roles.spawn("virtual machine instances", follow_vmis(client.clone(), options.node.clone(), vmis));
    roles.spawn("networks", follow_networks(client.clone(), definitions, underlays));
    roles.spawn("node", follow_labels(client.clone(), options.node.clone(), options.state.clone(), Arc::clone(&agent)));
    roles.spawn("repairs", repairs::tell(agent.repairs().heard(), pods.clone(), events.clone()));
    roles.spawn("network status", network_status::write_all(client.clone(), pods, joined_seen, stop.clone()));
    roles.spawn("supervisor", supervise(node, stop.clone()));
    let (settings, settings_seen) = watch::channel(Arc::new(Settings::default()));
    roles.spawn("settings", follow_settings(client.clone(), namespace, settings));
    let serving = Serving { running, events, metrics: Arc::new(agent.metrics()) };
    let (port, certificates, clients) = (options.port, options.server_certificates.clone(), options.ca.clone());
    let stopped = stop.clone().cancelled_owned();
    roles.try_spawn("server", async move { Ok(serve(port, &certificates, &clients, serving, stopped).await?) });
    let wiring = rehearse().await.map_err(|error| {
        tracing::error!(error = chain(&error), "the NIC of a VM cannot be wired on this node");
        chain(&error)
    });
    let node_options = node_options(&options, client, (verdict.is_usable(), wiring), settings_seen);
    let node = holdfast_node::spawn(node_options, stop.clone());
    tracing::info!(node = options.node, "ready");

    let ended = tokio::select! {
        _ = ending.0.recv() => None,
        _ = ending.1.recv() => None,
        role = roles.0.join_next() => role,
    };
    stop.cancel();
    let uninstalled = tokio::time::timeout(ENDING, node).await.unwrap_or_else(|_| {
        tracing::warn!("the node's part did not end in time");
        Ok(false)
    });
    // What they do at this moment is done anew by the next start.
    roles.0.shutdown().await;
    if let Some(agent) = Arc::into_inner(agent)
        && tokio::time::timeout(ENDING, agent.stop()).await.is_err()
    {
        tracing::warn!("CNI calls did not end in time");
    }
    // Last of all: whoever still worked would write anew what is taken away.
    if uninstalled.context("the node's part failed")? {
        let (run, state) = (options.run, options.state);
        tokio::task::spawn_blocking(move || holdfast_node::uninstall::clean(&run, &state)).await?;
    }
    match ended {
        None => Ok(()),
        Some(Ok(result)) => result.and_then(|name| bail!("`{name}` came to an end by itself")),
        Some(Err(error)) => Err(error).context("a part failed"),
    }
}

/// The parts that run for as long as the process does.
#[derive(Default)]
struct Roles(JoinSet<anyhow::Result<&'static str>>);

impl Roles {
    fn spawn(&mut self, name: &'static str, role: impl Future<Output = ()> + Send + 'static) {
        self.try_spawn(name, async move {
            role.await;
            Ok(())
        });
    }

    fn try_spawn(&mut self, name: &'static str, role: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        self.0.spawn(async move { role.await.map(|()| name) });
    }
}

fn agent_options(options: &Options) -> AgentOptions {
    AgentOptions {
        node: options.node.clone(),
        node_labels: read_labels(&options.state),
        state: options.state.clone(),
        run: options.run.clone(),
        ovsdb: Some(options.ovsdb.clone()),
        http: Some(HttpAddress::Unix(options.run.join(DEBUG_SOCKET))),
        quarantine: AgentOptions::QUARANTINE,
        resync: AgentOptions::RESYNC,
    }
}

/// What launchers need not find out again; without it they do.
fn read_capabilities(folder: &Path) -> Capabilities {
    Capabilities::read(folder).unwrap_or_else(|error| {
        tracing::warn!(folder = %folder.display(), %error, "what QEMU can do here is left for launchers to find out");
        Capabilities::default()
    })
}

fn node_options(
    options: &Options,
    client: Client,
    (kvm, wiring): (bool, Result<(), String>),
    settings: watch::Receiver<Arc<Settings>>,
) -> holdfast_node::NodeOptions {
    holdfast_node::NodeOptions {
        node: options.node.clone(),
        client,
        run: options.run.clone(),
        state: options.state.clone(),
        kubelet: options.kubelet.clone(),
        cni_bin: options.cni_bin.clone(),
        cni_conf: options.cni_conf.clone(),
        cni_plugin: options.cni_plugin.clone(),
        capabilities: options.capabilities.clone(),
        ovsdb: Some(options.ovsdb.clone()),
        kvm,
        wiring,
        settings,
    }
}

async fn follow_pods(client: Client, node: String, pods: Pods) {
    let config = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
    follow::<core::Pod>(client, config, |change| match change {
        Change::Set(pod) => Pod::of(&pod).into_iter().for_each(|pod| pods.set(pod)),
        Change::Gone(key) => pods.gone(&key),
        Change::Only(keys) => pods.only(&keys),
    })
    .await;
}

async fn follow_vmis(client: Client, node: String, vmis: Vmis) {
    let config = watcher::Config::default().labels(&format!("kubevirt.io/nodeName={node}"));
    follow::<VirtualMachineInstance>(client, config, |change| vmis.take(change)).await;
}

async fn follow_networks(client: Client, definitions: Definitions, mut underlays: Underlays) {
    let networks = follow(client.clone(), watcher::Config::default(), |change| underlays.take(change));
    let nads = follow(client, watcher::Config::default(), |change| definitions.take(change));
    tokio::join!(networks, nads);
}

async fn follow_labels(client: Client, node: String, state: PathBuf, agent: Arc<Agent>) {
    let config = watcher::Config::default().fields(&format!("metadata.name={node}"));
    let mut known = read_labels(&state);
    follow::<core::Node>(client, config, |change| {
        let Change::Set(node) = change else { return };
        let labels = node.metadata.labels.unwrap_or_default();
        if labels != known {
            write_labels(&state, &labels);
            agent.set_node_labels(labels.clone());
            known = labels;
        }
    })
    .await;
}

/// Follows the settings, from whenever the API server answers.
async fn follow_settings(client: Client, namespace: String, settings: watch::Sender<Arc<Settings>>) {
    loop {
        match config::watch(client.clone(), &namespace).await {
            Ok(mut followed) => loop {
                settings.send_replace(followed.borrow_and_update().clone());
                if followed.changed().await.is_err() {
                    break;
                }
            },
            Err(error) => tracing::warn!(error = holdfast_kubernetes::chain(&error), "the settings are not known yet"),
        }
        tokio::time::sleep(SETTINGS_AGAIN).await;
    }
}
