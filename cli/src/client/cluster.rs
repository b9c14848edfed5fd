//! Requests to the API server of a cluster, as a kubeconfig says.

use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};

use clap::Args;
use futures::{SinkExt as _, StreamExt as _, TryStreamExt as _, future};
use http_body_util::BodyExt as _;
use hyper::body::Bytes;
use hyper::header::{
    CONNECTION, CONTENT_TYPE, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::http::Response;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use kube::Config;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use secrecy::SecretString;
use serde_json::Value;
use tokio::io::{self, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};

use super::{Answer, CallError, STREAM, Stream, refusal};

/// Which cluster, and as whom; kubectl's flags.
#[derive(Clone, Debug, Default, Args)]
pub struct ClusterArgs {
    /// Path of the kubeconfig
    #[arg(long, global = true, value_name = "FILE", display_order = 110)]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig
    #[arg(long, global = true, value_name = "NAME", display_order = 111)]
    pub context: Option<String>,
    /// Cluster of the kubeconfig
    #[arg(long, global = true, value_name = "NAME", display_order = 112)]
    pub cluster: Option<String>,
    /// User of the kubeconfig
    #[arg(long, global = true, value_name = "NAME", display_order = 113)]
    pub user: Option<String>,
    /// URL of the API server, in the place of the kubeconfig's
    #[arg(short, long, global = true, value_name = "URL", display_order = 114)]
    pub server: Option<String>,
    /// Bearer token, in the place of the kubeconfig's credentials
    #[arg(long, global = true, value_name = "TOKEN", display_order = 115)]
    pub token: Option<SecretString>,
    /// User to act as
    #[arg(long = "as", global = true, value_name = "USER", display_order = 116)]
    pub impersonate: Option<String>,
    /// Group to act as; may be given several times
    #[arg(long = "as-group", global = true, value_name = "GROUP", display_order = 117)]
    pub impersonate_groups: Vec<String>,
}

/// The API server of a cluster.
pub struct Cluster {
    client: kube::Client,
    url: String,
    namespace: String,
}

impl Cluster {
    /// Reads the kubeconfig. Nothing is asked of the cluster yet.
    pub async fn new(args: &ClusterArgs) -> Result<Self, CallError> {
        // There is one client in this process, so nobody was first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let config = config(args).await.map_err(|error| CallError::Kubeconfig(Box::new(error)))?;
        let (url, namespace) = (config.cluster_url.to_string(), config.default_namespace.clone());
        let client =
            kube::Client::try_from(config).map_err(|error| CallError::Cluster(url.clone(), Box::new(error)))?;
        Ok(Self { client, url, namespace })
    }

    /// Where it is.
    pub fn place(&self) -> String {
        format!("the API server at {}", self.url)
    }

    /// The namespace of the context.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Sends a request and reads its answer.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer, CallError> {
        let request = Request::builder().method(method).uri(path).header(CONTENT_TYPE, "application/json");
        let content = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let response = self.send(path, request, content).await?;
        let (status, headers) = (response.status(), response.headers().clone());
        Ok(Answer { status, headers, body: self.collect(response).await? })
    }

    /// Opens a websocket whose binary messages are a raw stream.
    pub async fn stream(&self, path: &str) -> Result<Stream, CallError> {
        let request = Request::get(path)
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "websocket")
            .header(SEC_WEBSOCKET_VERSION, "13")
            .header(SEC_WEBSOCKET_KEY, generate_key())
            .header(SEC_WEBSOCKET_PROTOCOL, STREAM);
        let response = self.send(path, request, Vec::new()).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(refusal(response.status(), &self.collect(response).await?));
        }
        if response.headers().get(SEC_WEBSOCKET_PROTOCOL).is_none_or(|protocol| protocol != STREAM) {
            return Err(CallError::NoStream(self.place()));
        }
        let upgraded = hyper::upgrade::on(response).await.map_err(|error| CallError::Http(self.place(), error))?;
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None).await;
        let (sink, source) = socket.split();
        let bytes = source.map_err(io::Error::other).try_filter_map(|message| {
            future::ok(match message {
                Message::Binary(bytes) => Some(bytes),
                Message::Text(text) => Some(Bytes::from(text)),
                Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => None,
            })
        });
        let sink = sink.sink_map_err(io::Error::other).with(|bytes| future::ok::<_, io::Error>(Message::Binary(bytes)));
        let writer = KeepOpen(SinkWriter::new(CopyToBytes::new(sink)));
        Ok(Stream { reader: Box::new(StreamReader::new(Box::pin(bytes))), writer: Box::new(writer) })
    }

    async fn send(
        &self,
        path: &str,
        request: hyper::http::request::Builder,
        body: Vec<u8>,
    ) -> Result<Response<Body>, CallError> {
        let request = request.body(Body::from(body)).map_err(|error| CallError::Path(path.to_owned(), error))?;
        self.client.send(request).await.map_err(|error| self.failed(error))
    }

    async fn collect(&self, response: Response<Body>) -> Result<Bytes, CallError> {
        Ok(response.into_body().collect().await.map_err(|error| self.failed(error))?.to_bytes())
    }

    fn failed(&self, error: kube::Error) -> CallError {
        CallError::Cluster(self.place(), Box::new(error))
    }
}

async fn config(args: &ClusterArgs) -> Result<Config, kube::config::KubeconfigError> {
    let options =
        KubeConfigOptions { context: args.context.clone(), cluster: args.cluster.clone(), user: args.user.clone() };
    let mut kubeconfig = match &args.kubeconfig {
        Some(path) => Kubeconfig::read_from(path)?,
        None => Kubeconfig::read()?,
    };
    if let Some(server) = &args.server {
        for cluster in kubeconfig.clusters.iter_mut().filter_map(|named| named.cluster.as_mut()) {
            cluster.server = Some(server.clone());
        }
    }
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
    if let Some(token) = &args.token {
        config.auth_info = kube::config::AuthInfo { token: Some(token.clone()), ..Default::default() };
    }
    config.auth_info.impersonate = args.impersonate.clone().or(config.auth_info.impersonate);
    if !args.impersonate_groups.is_empty() {
        config.auth_info.impersonate_groups = Some(args.impersonate_groups.clone());
    }
    // A console may be silent for hours; every other request is bounded as a whole.
    config.read_timeout = None;
    Ok(config)
}

/// A writer that stays open when its user has no more to say: a websocket cannot be closed one way only, and what
/// the other side still says shall be heard.
struct KeepOpen<W>(W);

impl<W: AsyncWrite + Unpin> AsyncWrite for KeepOpen<W> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }
}
