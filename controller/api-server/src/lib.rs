//! virt-api: the subresources of virtual machines, and the webhooks that default and validate objects.
//!
//! Everything is at one port. The API server hands users' requests on by its aggregation layer ([`front_proxy`],
//! [`access`]) and asks about objects that are written ([`webhooks`]). Nothing is cached but the configuration:
//! each request reads the objects that it needs as they are now.

mod access;
mod answer;
mod body;
mod front_proxy;
mod handlers;
mod metrics;
mod path;
mod served;
mod server;
mod subresources;
mod verbs;
mod webhooks;

#[cfg(test)]
mod tests;

use std::fmt::Display;
use std::future::Future;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use holdfast_kubernetes::client::{ClusterArgs, client};
use holdfast_kubernetes::config;
use holdfast_kubernetes::log::{self, LogArgs};
use holdfast_kubernetes::tls::{self, Pem};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use front_proxy::FrontProxy;
use handlers::Handlers;
use metrics::Metrics;
use server::{Server, router};

/// How long the API server may take for one answer.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long requests are still taken after the end was asked for: until no node and no API server sends any more.
const LEAVE: Duration = Duration::from_secs(3);
/// Between two tries to begin.
const PAUSE: Duration = Duration::from_secs(3);

/// The API of virtual machines beyond reading and writing objects
#[derive(Debug, Parser)]
#[command(name = "virt-api", version)]
struct Args {
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    log: LogArgs,
    /// Port to serve on
    #[arg(long, default_value_t = 8443)]
    port: u16,
    /// Port of virt-handler on each node
    #[arg(long, default_value_t = 8186)]
    handler_port: u16,
    /// Folder with the certificate to serve with
    #[arg(long, value_name = "FOLDER", default_value = "/etc/virt-api/certificates")]
    certificates: PathBuf,
    /// Folder with the certificate that virt-handler is shown
    #[arg(long, value_name = "FOLDER", default_value = "/etc/virt-handler/clientcertificates")]
    handler_certificates: PathBuf,
    /// Bundle of the authorities that sign virt-handler's certificate
    #[arg(long, value_name = "FILE", default_value = "/etc/kubevirt/ca/ca-bundle")]
    ca: PathBuf,
}

/// Runs virt-api until it is told to end.
///
/// # Errors
/// Whatever keeps it from running.
pub async fn run() -> anyhow::Result<()> {
    let args = Args::parse();
    log::init(&args.log);
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = CancellationToken::new();
    let told = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        told.cancel();
    });
    serve(&args, stop).await
}

async fn serve(args: &Args, stop: CancellationToken) -> anyhow::Result<()> {
    let (client, namespace) = client(&args.cluster).await?;
    let begin = async {
        let settings = patiently("follow the configuration", || config::watch(client.clone(), &namespace)).await;
        let front_proxy = patiently("follow the front proxy", || front_proxy::follow(client.clone())).await;
        (settings, front_proxy)
    };
    let Some((settings, front_proxy)) = stop.run_until_cancelled(begin).await else { return Ok(()) };
    let authorities = authorities(front_proxy.clone());
    let [chain, key] = ["tls.crt", "tls.key"].map(|file| Pem::File(args.certificates.join(file)));
    let tls = tls::server_of(chain, key, Some(Pem::Watched(authorities)))?;
    let handler_tls = tls::client(&args.handler_certificates, &args.ca)?;
    let handlers = Handlers::new(client.clone(), &namespace, args.handler_port, handler_tls);
    let (metrics, registry) = Metrics::new();
    let listener = listen(args.port).await?;
    tracing::info!(port = args.port, namespace, "virt-api serves");
    let server = Server { client, namespace, settings, front_proxy, handlers, metrics };
    let end = async {
        stop.cancelled().await;
        tokio::time::sleep(LEAVE).await;
    };
    tls::serve(listener, tls, router(server, registry), end).await;
    Ok(())
}

/// Tries until it works: the API server may come up after us.
async fn patiently<T, E, F>(what: &str, mut attempt: impl FnMut() -> F) -> T
where
    E: Display,
    F: Future<Output = Result<T, E>>,
{
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(error) => tracing::warn!("failed to {what}; trying again: {error:#}"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The front proxy's authorities, by which client certificates are verified.
fn authorities(mut front_proxy: watch::Receiver<Arc<FrontProxy>>) -> watch::Receiver<Vec<u8>> {
    let (sender, receiver) = watch::channel(front_proxy.borrow_and_update().authorities().to_vec());
    tokio::spawn(async move {
        while front_proxy.changed().await.is_ok() {
            sender.send_replace(front_proxy.borrow_and_update().authorities().to_vec());
        }
    });
    receiver
}

/// Listens on all addresses, on those of IPv4 alone where the kernel has no others.
async fn listen(port: u16) -> anyhow::Result<TcpListener> {
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Ok(listener) => Ok(listener),
        Err(_) => {
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await;
            listener.with_context(|| format!("failed to listen on port {port}"))
        }
    }
}
