//! The client of the API server.

use std::path::PathBuf;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// No answer of the API server is waited for longer; watches, which are answered bit by bit, are renewed earlier.
const READ: Duration = Duration::from_secs(295);
const CONNECT: Duration = Duration::from_secs(10);

/// Where the API server is.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ClusterArgs {
    /// Path of a kubeconfig; the pod's own service account where it is not given
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}

/// A client, and the namespace that it works in by default: the pod's own, or the kubeconfig's.
///
/// # Errors
/// Where neither a kubeconfig nor a service account is to be had.
pub async fn client(args: &ClusterArgs) -> anyhow::Result<(Client, String)> {
    // One provider for the whole process; a second call finds the first one's.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut config = match &args.kubeconfig {
        Some(path) => {
            let kubeconfig = Kubeconfig::read_from(path)?;
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?
        }
        None => Config::infer().await?,
    };
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(READ);
    config.write_timeout = Some(CONNECT);
    let namespace = config.default_namespace.clone();
    Ok((Client::try_from(config)?, namespace))
}
