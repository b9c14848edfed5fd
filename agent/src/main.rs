//! `virt-handler`: the agent as a process of its own, for a node of plain pods.
//!
//! It serves the CNI plugin from the UnderlayNetworks of a folder, which is read once at the start, and keeps
//! attachments and leases under its state folder. VMs come with `holdfastd`, which embeds the library. It ends on
//! SIGTERM or SIGINT after the operations at hand and leaves all networking as it is.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use holdfast_agent::leases::FileStore;
use holdfast_agent::network::read_folder;
use holdfast_agent::workloads::PlainPods;
use holdfast_agent::{Agent, AgentOptions, HttpAddress, node_label};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

/// Serves the holdfast CNI plugin on this node.
#[derive(Parser)]
#[command(name = "virt-handler", version)]
struct Cli {
    /// Folder of attachments and leases
    #[arg(long, value_name = "DIR", default_value = "/var/lib/holdfast")]
    state: PathBuf,
    /// Folder of the CNI socket
    #[arg(long, value_name = "DIR", default_value = "/run/holdfast")]
    run: PathBuf,
    /// Folder of UnderlayNetwork manifests, read at the start; without it, configurations say all inline
    #[arg(long, value_name = "DIR")]
    networks: Option<PathBuf>,
    /// Socket of OVSDB; none on a node without Open vSwitch
    #[arg(long, value_name = "SOCKET")]
    ovsdb: Option<PathBuf>,
    /// Name of this node
    #[arg(long, value_name = "NAME")]
    node: String,
    /// A label of this node, for `nodes` of an UnderlayNetwork
    #[arg(long = "node-label", value_name = "KEY=VALUE", value_parser = node_label)]
    node_labels: Vec<(String, String)>,
    /// Where to answer /healthz, /metrics and /debug/attachments: an address such as 127.0.0.1:9200, or a path
    #[arg(long, value_name = "ADDRESS")]
    http: Option<HttpAddress>,
    /// Seconds that a released address stays locked
    #[arg(long, value_name = "SECONDS", default_value_t = AgentOptions::QUARANTINE.as_secs())]
    quarantine: u64,
    /// Seconds between two comparisons of everything with the kernel
    #[arg(long, value_name = "SECONDS", default_value_t = AgentOptions::RESYNC.as_secs(), value_parser = clap::value_parser!(u64).range(1..))]
    resync: u64,
    /// Log as JSON
    #[arg(long)]
    json: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    if cli.json {
        logs.json().init()
    } else {
        logs.init()
    }

    let networks = match &cli.networks {
        Some(folder) => read_folder(folder).context("failed to load the networks")?,
        None => BTreeMap::new(),
    };
    let (_networks, watched) = watch::channel(Arc::new(networks));
    let leases = FileStore::open(&cli.state.join("leases"))?;
    let options = AgentOptions {
        node: cli.node,
        node_labels: cli.node_labels.into_iter().collect(),
        state: cli.state,
        run: cli.run,
        ovsdb: cli.ovsdb,
        http: cli.http,
        quarantine: Duration::from_secs(cli.quarantine),
        resync: Duration::from_secs(cli.resync),
    };
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let agent = Agent::start(options, Arc::new(leases), Arc::new(PlainPods), watched).await?;
    tracing::info!("serving");
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    tracing::info!("ending; networking stays as it is");
    agent.stop().await;
    Ok(())
}
