//! virt-handler of a node: found by its pod, spoken to over TLS with certificates on both sides.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::header::{CONNECTION, HOST, UPGRADE};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use holdfast_kubernetes::tls::keep_alive;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// The name in virt-handler's certificate: one for all nodes, for their addresses change.
const NAME: &str = "virt-handler";
const SELECTOR: &str = "kubevirt.io=virt-handler";
/// Until there is a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Until virt-handler has answered: it waits for libvirt.
const ANSWER: Duration = Duration::from_secs(30);
/// The largest answer: a picture of a large screen.
const LIMIT: usize = 64 << 20;

/// virt-handler cannot be spoken to.
#[derive(Debug, thiserror::Error)]
pub enum HandlerError {
    /// The VMI is on no node.
    #[error("the VMI has no node")]
    NoNode,
    /// The pods cannot be listed.
    #[error("failed to look for virt-handler of node `{0}`")]
    Look(String, #[source] Box<kube::Error>),
    /// There is none.
    #[error("there is no virt-handler on node `{0}`")]
    None(String),
    /// It cannot be reached.
    #[error("failed to connect to virt-handler at {0}")]
    Connect(SocketAddr, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// It does not answer well.
    #[error("failed to ask virt-handler at {0}")]
    Ask(SocketAddr, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// It does not answer.
    #[error("no answer of {0} in time")]
    Late(String),
}

/// What virt-handler answered.
#[derive(Debug)]
pub struct Reply {
    /// The code.
    pub status: StatusCode,
    /// The body.
    pub body: Bytes,
}

/// What became of an upgrade.
pub enum Upgrade {
    /// There is a stream.
    Open(HeaderMap, TokioIo<Upgraded>),
    /// There is none.
    Refused(Reply),
}

/// All virt-handlers.
pub struct Handlers {
    client: Client,
    namespace: String,
    port: u16,
    tls: TlsConnector,
}

impl Handlers {
    /// Those whose pods are in `namespace`, at `port` of their nodes.
    pub fn new(client: Client, namespace: &str, port: u16, tls: ClientConfig) -> Self {
        Self { client, namespace: namespace.to_owned(), port, tls: TlsConnector::from(Arc::new(tls)) }
    }

    /// Asks the one on `node`.
    pub async fn request(&self, node: &str, method: Method, path: &str, body: Bytes) -> Result<Reply, HandlerError> {
        let address = self.address(node).await?;
        let asked = async {
            let mut sender = self.connect(address).await?;
            let request = Request::builder().method(method).uri(path).header(HOST, NAME).body(Full::new(body));
            let request = request.map_err(|error| HandlerError::Ask(address, error.into()))?;
            let response = sender.send_request(request).await;
            reply(address, response.map_err(|error| HandlerError::Ask(address, error.into()))?).await
        };
        timeout(ANSWER, asked).await.map_err(|_| HandlerError::Late(address.to_string()))?
    }

    /// Asks the one on `node` for a websocket, with the headers of a client's handshake.
    pub async fn upgrade(&self, node: &str, path: &str, headers: HeaderMap) -> Result<Upgrade, HandlerError> {
        let address = self.address(node).await?;
        let asked = async {
            let mut sender = self.connect(address).await?;
            let request = Request::get(path).header(HOST, NAME).body(Full::new(Bytes::new()));
            let mut request = request.map_err(|error| HandlerError::Ask(address, error.into()))?;
            request.headers_mut().extend(headers);
            request.headers_mut().insert(CONNECTION, "Upgrade".parse().map_err(|error| ask(address, error))?);
            request.headers_mut().insert(UPGRADE, "websocket".parse().map_err(|error| ask(address, error))?);
            let response = sender.send_request(request).await.map_err(|error| ask(address, error))?;
            if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                return reply(address, response).await.map(Upgrade::Refused);
            }
            let headers = response.headers().clone();
            let upgraded = hyper::upgrade::on(response).await.map_err(|error| ask(address, error))?;
            Ok(Upgrade::Open(headers, TokioIo::new(upgraded)))
        };
        timeout(ANSWER, asked).await.map_err(|_| HandlerError::Late(address.to_string()))?
    }

    async fn connect(&self, address: SocketAddr) -> Result<SendRequest<Full<Bytes>>, HandlerError> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| HandlerError::Connect(address, error);
        let connected = async {
            let stream = TcpStream::connect(address).await?;
            keep_alive(&stream)?;
            let tls = self.tls.connect(ServerName::try_from(NAME)?, stream).await?;
            let (sender, connection) = handshake(TokioIo::new(tls)).await?;
            tokio::spawn(async move {
                if let Err(error) = connection.with_upgrades().await {
                    tracing::debug!(%error, %address, "the connection to virt-handler ended");
                }
            });
            Ok(sender)
        };
        match timeout(CONNECT, connected).await {
            Ok(connected) => connected.map_err(failed),
            Err(_) => Err(HandlerError::Late(address.to_string())),
        }
    }

    async fn address(&self, node: &str) -> Result<SocketAddr, HandlerError> {
        if node.is_empty() {
            return Err(HandlerError::NoNode);
        }
        let pods = Api::<Pod>::namespaced(self.client.clone(), &self.namespace);
        let params = ListParams::default().labels(SELECTOR).fields(&format!("spec.nodeName={node}"));
        let pods =
            timeout(CONNECT, pods.list(&params)).await.map_err(|_| HandlerError::Late("the API server".to_owned()))?;
        let pods = pods.map_err(|error| HandlerError::Look(node.to_owned(), Box::new(error)))?;
        let ip = address_of(&pods.items).ok_or_else(|| HandlerError::None(node.to_owned()))?;
        Ok(SocketAddr::new(ip, self.port))
    }
}

/// The address of a pod that is there to stay; during an update there may be one that goes as well.
fn address_of(pods: &[Pod]) -> Option<IpAddr> {
    let running = pods.iter().filter(|pod| pod.status.as_ref().is_some_and(|s| s.phase.as_deref() == Some("Running")));
    let pod = running.min_by_key(|pod| pod.metadata.deletion_timestamp.is_some())?;
    pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()
}

fn ask(address: SocketAddr, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> HandlerError {
    HandlerError::Ask(address, error.into())
}

async fn reply(address: SocketAddr, response: hyper::Response<hyper::body::Incoming>) -> Result<Reply, HandlerError> {
    let status = response.status();
    let body = Limited::new(response.into_body(), LIMIT).collect().await.map_err(|error| ask(address, error))?;
    Ok(Reply { status, body: body.to_bytes() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_pod_that_stays_is_asked() {
        let pod = |ip: Value, phase: &str, deleted: bool| -> Pod {
            let deleted = deleted.then_some("2026-01-01T00:00:00Z");
            let meta = json!({"name": "a", "deletionTimestamp": deleted});
            serde_json::from_value(json!({"metadata": meta, "status": {"phase": phase, "podIP": ip}})).unwrap()
        };
        let ip = |last: u8| Some(IpAddr::from([10, 0, 0, last]));
        let (old, new) = (pod(json!("10.0.0.1"), "Running", true), pod(json!("10.0.0.2"), "Running", false));
        assert_eq!(address_of(&[old.clone(), new.clone()]), ip(2));
        assert_eq!(address_of(&[new, old.clone()]), ip(2));
        assert_eq!(address_of(&[old]), ip(1), "better than nobody");
        assert_eq!(address_of(&[pod(json!("10.0.0.3"), "Pending", false)]), None);
        assert_eq!(address_of(&[pod(Value::Null, "Running", false)]), None);
    }
}
