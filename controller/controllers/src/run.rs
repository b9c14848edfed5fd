//! The process: who leads works, the others wait. Who has lost the lead stops at once, forgets what it knew, and waits
//! again.

use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Parser;
use holdfast_api::kubevirt::{
    VirtualMachine, VirtualMachineInstance, VirtualMachineInstanceReplicaSet, VirtualMachinePool,
};
use holdfast_api::lease::IPLease;
use holdfast_api::underlay::UnderlayNetwork;
use holdfast_kubernetes::client::{ClusterArgs, client};
use holdfast_kubernetes::config;
use holdfast_kubernetes::events::Events;
use holdfast_kubernetes::leader::{Held, hold};
use holdfast_kubernetes::log::{self, LogArgs};
use holdfast_kubernetes::store::KubeStore;
use holdfast_kubernetes::{probes, tls};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Client;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::context::{Context, Launcher, Queues};
use crate::engine::queue::{Inbox, work};
use crate::engine::watch::follow_all;
use crate::engine::{Cache, Key, Queue};
use crate::metrics::Metrics;
use crate::pod::COMPONENT_LABEL;
use crate::sets::{self, owner_name};
use crate::usage::{self, Address, Counted};
use crate::{leases, nodes, vm, vmi};

/// Name of the Lease that the leader holds.
const LEASE: &str = "virt-controller";
/// Who says what the VM and VMI controllers say.
const COMPONENT: &str = "virtualmachine-controller";
/// Who says what is said of nodes.
const NODE_COMPONENT: &str = "node-controller";

/// Makes VMIs of VMs and pods of VMIs, and follows them.
#[derive(Debug, Parser)]
#[command(name = "virt-controller", version)]
struct Args {
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    log: LogArgs,
    /// Port of probes and metrics
    #[arg(long, value_name = "PORT", default_value_t = 8443)]
    port: u16,
    /// Image of the launcher's pods
    #[arg(long, value_name = "IMAGE")]
    launcher_image: String,
    /// When that image is pulled
    #[arg(long, value_name = "POLICY", default_value = "IfNotPresent")]
    image_pull_policy: String,
    /// Folder with tls.crt and tls.key
    #[arg(long, value_name = "FOLDER", default_value = "/etc/virt-controller/certificates")]
    certificates: PathBuf,
    /// Name of this process among those that want to lead
    #[arg(long, value_name = "NAME", env = "POD_NAME", default_value = "virt-controller")]
    pod_name: String,
    /// Namespace of the installation
    #[arg(long, value_name = "NAMESPACE", env = "POD_NAMESPACE")]
    pod_namespace: Option<String>,
}

/// Runs virt-controller until it is told to end.
///
/// # Errors
/// Whatever keeps it from running.
pub async fn run() -> anyhow::Result<()> {
    let args = Args::parse();
    log::init(&args.log);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (client, own) = client(&args.cluster).await?;
    let namespace = args.pod_namespace.clone().unwrap_or(own);
    let metrics = Metrics::default();
    serve(&args, &metrics).await?;
    let mut held = None;
    let told = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    tokio::pin!(told);
    tokio::select! {
        () = &mut told => {}
        result = take_turns(&args, &client, &namespace, &metrics, &mut held) => result?,
    }
    if let Some(held) = held {
        held.release().await;
    }
    tracing::info!("ended");
    Ok(())
}

/// Leads whenever it can. `held` is the leadership while there is one, for whoever stops this to give it up.
async fn take_turns(
    args: &Args,
    client: &Client,
    namespace: &str,
    metrics: &Metrics,
    held: &mut Option<Held>,
) -> anyhow::Result<()> {
    let mut settings = None;
    loop {
        let leadership = held.insert(hold(client.clone(), namespace, LEASE, &args.pod_name).await?);
        metrics.leads(true);
        let term = async {
            let settings = match &settings {
                Some(known) => known,
                None => settings.insert(config::watch(client.clone(), namespace).await?),
            };
            let (context, inboxes) = context(args, client.clone(), settings.clone());
            control(context, inboxes, metrics.clone()).await;
            anyhow::bail!("a controller ended")
        };
        tokio::select! {
            result = term => return result,
            () = leadership.lost() => {}
        }
        metrics.leads(false);
        *held = None;
    }
}

/// Probes and metrics.
async fn serve(args: &Args, metrics: &Metrics) -> anyhow::Result<()> {
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, args.port));
    let listener = TcpListener::bind(address).await.with_context(|| format!("failed to listen on {address}"))?;
    let server = tls::server(&args.certificates, None).context("failed to set up TLS")?;
    tokio::spawn(tls::serve(listener, server, probes::router(registry), std::future::pending()));
    Ok(())
}

/// The receiving ends of the queues.
struct Inboxes {
    vms: Inbox,
    vmis: Inbox,
    replica_sets: Inbox,
    pools: Inbox,
    nodes: Inbox,
    leases: Inbox,
    usage: Inbox,
}

fn context(args: &Args, client: Client, settings: watch::Receiver<Arc<config::Settings>>) -> (Arc<Context>, Inboxes) {
    let ((vms, vms_in), (vmis, vmis_in)) = (Queue::new(), Queue::new());
    let ((replica_sets, sets_in), (pools, pools_in)) = (Queue::new(), Queue::new());
    let ((nodes, nodes_in), (leases, leases_in)) = (Queue::new(), Queue::new());
    let (usage, usage_in) = Queue::new();
    let instance = Some(args.pod_name.clone());
    let context = Context {
        vms: Cache::default(),
        vmis: Cache::default(),
        replica_sets: Cache::default(),
        pools: Cache::default(),
        pods: Cache::default(),
        troubles: vmi::trouble::Troubles::default(),
        nodes: Cache::default(),
        handlers: Cache::default(),
        underlays: Cache::default(),
        ip_leases: Cache::default(),
        counted: Counted::default(),
        unrestored: leases::Unrestored::default(),
        queues: Queues { vms, vmis, replica_sets, pools, nodes, leases, usage },
        leases: Arc::new(KubeStore::new(client.clone())),
        settings,
        events: Events::new(client.clone(), COMPONENT, instance.clone()),
        node_events: Events::new(client.clone(), NODE_COMPONENT, instance),
        launcher: Launcher { image: args.launcher_image.clone(), pull_policy: args.image_pull_policy.clone() },
        revisions: vm::revision::Revisions::default(),
        client,
    };
    let inboxes = Inboxes {
        vms: vms_in,
        vmis: vmis_in,
        replica_sets: sets_in,
        pools: pools_in,
        nodes: nodes_in,
        leases: leases_in,
        usage: usage_in,
    };
    (Arc::new(context), inboxes)
}

/// Watches and works until one of the parts ends, which none does by itself.
async fn control(context: Arc<Context>, inboxes: Inboxes, metrics: Metrics) {
    let mut tasks = JoinSet::new();
    let mut ready = Vec::new();
    let mut watched = || {
        let (sender, receiver) = watch::channel(false);
        ready.push(receiver);
        sender
    };
    let labelled = |component: &str| format!("{COMPONENT_LABEL}={component}");

    let (to, done) = (context.clone(), watched());
    let vms = context.vms.clone();
    tasks.spawn(async move {
        let changed = |key: &Key, vm: &VirtualMachine| {
            if to.vms.get(key).is_none() {
                to.revisions.forget(vm.metadata.uid.as_deref().unwrap_or_default());
                to.queues.leases.add(Key::default());
            }
            to.queues.vms.add(key.clone());
            if let Some(pool) = owner_name(&vm.metadata, "VirtualMachinePool") {
                to.queues.pools.add(key.beside(&pool));
            }
        };
        follow_all::<VirtualMachine, _>(to.client.clone(), None, vms, done, changed).await;
    });
    let (to, done) = (context.clone(), watched());
    let vmis = context.vmis.clone();
    tasks.spawn(async move {
        let changed = |key: &Key, vmi: &VirtualMachineInstance| {
            if to.vmis.get(key).is_none() {
                to.queues.leases.add(Key::default());
            }
            to.queues.vmis.add(key.clone());
            if let Some(vm) = vmi::owner(vmi) {
                to.queues.vms.add(key.beside(&vm));
            }
            if let Some(set) = owner_name(&vmi.metadata, "VirtualMachineInstanceReplicaSet") {
                to.queues.replica_sets.add(key.beside(&set));
            }
        };
        follow_all::<VirtualMachineInstance, _>(to.client.clone(), None, vmis, done, changed).await;
    });
    let (to, done) = (context.clone(), watched());
    let replica_sets = context.replica_sets.clone();
    tasks.spawn(async move {
        let changed = |key: &Key, _: &VirtualMachineInstanceReplicaSet| to.queues.replica_sets.add(key.clone());
        follow_all::<VirtualMachineInstanceReplicaSet, _>(to.client.clone(), None, replica_sets, done, changed).await;
    });
    let (to, done) = (context.clone(), watched());
    let pools = context.pools.clone();
    tasks.spawn(async move {
        let changed = |key: &Key, _: &VirtualMachinePool| to.queues.pools.add(key.clone());
        follow_all::<VirtualMachinePool, _>(to.client.clone(), None, pools, done, changed).await;
    });
    let (to, done) = (context.clone(), watched());
    let pods = context.pods.clone();
    tasks.spawn(async move {
        let changed = |key: &Key, pod: &crate::pod::PodFacts| to.queues.vmis.add(key.beside(&pod.owner_name));
        let labels = labelled("virt-launcher");
        follow_all::<Pod, _>(to.client.clone(), Some(&labels), pods, done, changed).await;
    });
    let (to, done) = (context.clone(), watched());
    let handlers = context.handlers.clone();
    tasks.spawn(async move {
        let changed = |_: &Key, pod: &crate::pod::PodFacts| {
            if let Some(node) = &pod.node {
                to.queues.nodes.add(Key::new("", node));
            }
        };
        let labels = labelled("virt-handler");
        follow_all::<Pod, _>(to.client.clone(), Some(&labels), handlers, done, changed).await;
    });
    let (to, done) = (context.clone(), watched());
    let known = context.nodes.clone();
    tasks.spawn(async move {
        let changed = |key: &Key, _: &nodes::NodeFacts| to.queues.nodes.add(key.clone());
        follow_all::<Node, _>(to.client.clone(), None, known, done, changed).await;
    });

    let (to, done) = (context.clone(), watched());
    let underlays = context.underlays.clone();
    tasks.spawn(async move {
        let changed = |_: &Key, _: &UnderlayNetwork| to.queues.usage.add(Key::default());
        follow_all::<UnderlayNetwork, _>(to.client.clone(), None, underlays, done, changed).await;
    });
    let (to, done) = (context.clone(), watched());
    let held = context.ip_leases.clone();
    tasks.spawn(async move {
        let changed = |key: &Key, _: &Address| {
            to.queues.usage.add(Key::default());
            if to.ip_leases.get(key).is_none() {
                to.queues.leases.add_in(Key::default(), leases::BURST);
            }
        };
        follow_all::<IPLease, _>(to.client.clone(), None, held, done, changed).await;
    });

    // Nothing is decided before everything was seen once.
    for mut ready in ready {
        let _ = ready.wait_for(|ready| *ready).await;
    }
    tracing::info!("caches are filled");
    context.queues.leases.add(Key::default());
    let to = context.clone();
    tasks.spawn(work("vm", inboxes.vms, metrics.queue("vm"), move |key| vm::reconcile(to.clone(), key)));
    let to = context.clone();
    tasks.spawn(work("vmi", inboxes.vmis, metrics.queue("vmi"), move |key| vmi::reconcile(to.clone(), key)));
    let to = context.clone();
    tasks.spawn(work("replicaset", inboxes.replica_sets, metrics.queue("replicaset"), move |key| {
        sets::replica_set::reconcile(to.clone(), key)
    }));
    let to = context.clone();
    tasks.spawn(work("pool", inboxes.pools, metrics.queue("pool"), move |key| sets::pool::reconcile(to.clone(), key)));
    let to = context.clone();
    tasks.spawn(work("usage", inboxes.usage, metrics.queue("usage"), move |key| usage::reconcile(to.clone(), key)));
    let to = context.clone();
    tasks.spawn(work("node", inboxes.nodes, metrics.queue("node"), move |key| nodes::reconcile(to.clone(), key)));
    tasks.spawn(work("lease", inboxes.leases, metrics.queue("lease"), move |key| {
        leases::reconcile(context.clone(), key)
    }));
    tasks.join_next().await;
}
