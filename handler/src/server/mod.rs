//! What virt-api asks of this node: verbs on VMs that run here, what their guests tell, and streams to their consoles
//! and screens; and for whoever asks, whether we are alive, and metrics.
//!
//! **Invariant:** a verb or a stream is virt-api's alone, told by its certificate.

mod guest;
mod screenshot;
mod stream;
mod verbs;

use std::future::Future;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use axum::{Extension, Router};
use futures::future::BoxFuture;
use holdfast_kubernetes::events::Events;
use holdfast_kubernetes::tls::{self, Peer, TlsError};
use tokio::net::TcpListener;

use crate::vmi::Running;
use stream::Consoles;

/// The one client that may command VMs: virt-api.
const CLIENT: &str = "kubevirt.io:system:client:virt-handler";
/// What OpenMetrics text is called (OpenMetrics 1.0, "Text Format").
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Tells all metrics as text.
pub type Metrics = Arc<dyn Fn() -> BoxFuture<'static, Result<String, String>> + Send + Sync>;

/// What the routes share.
#[derive(Clone)]
pub struct Serving {
    /// The VMIs that run here.
    pub running: Running,
    /// Tells of VMIs.
    pub events: Events,
    /// What is counted.
    pub metrics: Metrics,
}

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Nobody can listen there.
    #[error("failed to listen on port {0}")]
    Listen(u16, #[source] std::io::Error),
    /// There can be no TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Answers on `port` until `stop`. Streams that are open then are cut with this process.
///
/// # Errors
/// [`ServeError`].
pub async fn serve(
    port: u16,
    certificates: &Path,
    clients: &Path,
    serving: Serving,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let config = tls::server(certificates, Some(clients))?;
    let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let listener = match TcpListener::bind(address).await {
        Ok(listener) => listener,
        // A node without IPv6.
        Err(_) => TcpListener::bind((std::net::Ipv4Addr::UNSPECIFIED, port))
            .await
            .map_err(|error| ServeError::Listen(port, error))?,
    };
    tls::serve(listener, config, router(serving), stop).await;
    Ok(())
}

fn router(serving: Serving) -> Router {
    let verbs = ["pause", "unpause", "softreboot", "reset"];
    let vmi = |rest: &str| format!("/v1/namespaces/{{namespace}}/virtualmachineinstances/{{name}}/{rest}");
    let mut commanded = Router::new();
    for verb in verbs {
        let command = move |state, path| verbs::command(state, path, verb);
        commanded = commanded.route(&vmi(verb), put(command));
    }
    let commanded = commanded
        .route(&vmi("guestosinfo"), get(guest::os_info))
        .route(&vmi("userlist"), get(guest::users))
        .route(&vmi("filesystemlist"), get(guest::file_systems))
        .route(&vmi("console"), get(stream::console))
        .route(&vmi("vnc"), get(stream::vnc))
        .route(&vmi("vnc/screenshot"), get(screenshot::screenshot))
        .layer(Extension(Consoles::default()))
        .layer(from_fn(only_virt_api));
    Router::new()
        .route("/healthz", get(async || "ok"))
        .route("/readyz", get(async || "ok"))
        .route("/metrics", get(metrics))
        .merge(commanded)
        .with_state(serving)
}

async fn only_virt_api(request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>();
    if peer.and_then(Peer::common_name) == Some(CLIENT) {
        return next.run(request).await;
    }
    (StatusCode::FORBIDDEN, "this is virt-api's to ask").into_response()
}

async fn metrics(State(serving): State<Serving>) -> Response {
    match (serving.metrics)().await {
        Ok(text) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error).into_response(),
    }
}

/// A refusal in words.
fn refuse(code: StatusCode, why: impl Into<String>) -> Response {
    (code, why.into()).into_response()
}
