//! virt-operator: from the KubeVirt object to an installation.
//!
//! [`build`] makes the whole list of objects from the KubeVirt object, [`live`] knows which of them are there, and
//! [`install`] and [`uninstall`] do what is missing, step by step; each pass looks anew, and none remembers how far an
//! earlier one came. One of several operators leads; all of them answer the webhooks of the KubeVirt object.

mod build;
mod certificates;
mod cluster;
mod customize;
mod install;
mod lead;
mod live;
mod object;
mod review;
mod rollout;
mod serve;
mod status;
mod target;
mod uninstall;

use std::sync::Arc;

use clap::Parser;
use holdfast_kubernetes::client::{ClusterArgs, client};
use holdfast_kubernetes::leader;
use holdfast_kubernetes::log::{self, LogArgs};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Installs Holdfast as the KubeVirt object wants it.
#[derive(Debug, Parser)]
#[command(name = "virt-operator", version)]
struct Options {
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    log: LogArgs,
    /// Port of probes and metrics
    #[arg(long, default_value_t = 8443)]
    port: u16,
    /// Port of the webhooks
    #[arg(long, default_value_t = 8444)]
    webhook_port: u16,
    /// Name of this operator among others
    #[arg(long, env = "POD_NAME", default_value = "virt-operator")]
    name: String,
    /// Namespace of the installation; the pod's own where it is not given
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAME")]
    namespace: Option<String>,
    /// Image of the operator, of which registry and tag hold for all images
    #[arg(long, env = "VIRT_OPERATOR_IMAGE", value_name = "IMAGE")]
    image: String,
}

/// Runs virt-operator until it is told to end.
///
/// # Errors
/// Whatever keeps it from running.
pub async fn run() -> anyhow::Result<()> {
    let options = Options::parse();
    log::init(&options.log);
    let (client, default_namespace) = client(&options.cluster).await?;
    let namespace = options.namespace.unwrap_or(default_namespace);
    let (stop, tracker) = (CancellationToken::new(), TaskTracker::new());
    let mut ending = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn({
        let stop = stop.clone();
        async move {
            tokio::select! { _ = ending.0.recv() => {}, _ = ending.1.recv() => {} }
            stop.cancel();
        }
    });

    let mut registry = Registry::default();
    let leading = Gauge::<i64>::default();
    registry.register("kubevirt_virt_operator_leading_status", "Whether this operator leads", leading.clone());
    registry.register("kubevirt_virt_operator_ready_status", "Whether this operator is ready", {
        let ready = Gauge::<i64>::default();
        ready.set(1);
        ready
    });

    let watched = Arc::<live::Watched>::default();
    let cluster = Arc::new(cluster::Cluster::new(client.clone(), &namespace, watched.clone()));
    let reviewer = serve::Reviewer { cluster: cluster.clone(), image: options.image.clone() };
    let serving = tokio::spawn(serve::serve([options.port, options.webhook_port], reviewer, registry, stop.clone()));
    let lead = async {
        let objects = lead::Objects::default();
        let leader =
            lead::Leader { cluster, objects: objects.clone(), namespace: namespace.clone(), image: options.image };
        let mut looks = false;
        loop {
            let held = leader::hold(client.clone(), &namespace, "virt-operator", &options.name).await?;
            leading.set(1);
            if !std::mem::replace(&mut looks, true) {
                live::follow(&client, &namespace, &watched, &tracker, &stop);
                let objects = lead::follow(client.clone(), objects.clone(), watched.clone());
                tracker.spawn(stop.clone().run_until_cancelled_owned(objects));
            }
            tokio::select! {
                () = leader.run(&stop) => {
                    held.release().await;
                    return anyhow::Ok(());
                }
                // Two leaders would undo each other's work.
                () = held.lost() => drop(leading.set(0)),
            }
        }
    };
    tokio::select! {
        result = lead => result?,
        () = stop.cancelled() => {}
        result = serving => result??,
    }
    stop.cancel();
    tracker.close();
    tracker.wait().await;
    Ok(())
}
