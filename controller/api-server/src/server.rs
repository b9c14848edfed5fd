//! What is served at the one port, and by whom.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{Extension, Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use holdfast_kubernetes::config::Settings;
use holdfast_kubernetes::probes;
use holdfast_kubernetes::tls::Peer;
use kube::Client;
use prometheus_client::registry::Registry;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use crate::answer::{Answer, Refusal, json, method_not_allowed, no_such_path, overloaded};
use crate::front_proxy::FrontProxy;
use crate::handlers::Handlers;
use crate::metrics::Metrics;
use crate::path::{Target, parse};
use crate::served::{discovery, health, openapi};
use crate::subresources::{self, Call};
use crate::verbs::Verb;
use crate::{DEADLINE, access, webhooks};

/// Requests at a time. Open streams are not among them.
const REQUESTS: usize = 64;

/// What all requests share.
pub struct Server {
    /// The API server.
    pub client: Client,
    /// Where Holdfast is installed.
    pub namespace: String,
    /// What is configured.
    pub settings: watch::Receiver<Arc<Settings>>,
    /// Who may say who asks.
    pub front_proxy: watch::Receiver<Arc<FrontProxy>>,
    /// The nodes' virt-handlers.
    pub handlers: Handlers,
    /// What is counted.
    pub metrics: Metrics,
}

#[derive(Clone)]
struct Shared {
    server: Arc<Server>,
    slots: Arc<Semaphore>,
}

/// Everything that is served. Requests need the extension [`Peer`].
pub fn router(server: Server, registry: Registry) -> Router {
    let shared = Shared { server: Arc::new(server), slots: Arc::new(Semaphore::new(REQUESTS)) };
    Router::new().fallback(handle).with_state(shared).merge(probes::router(registry))
}

async fn handle(State(shared): State<Shared>, Extension(peer): Extension<Peer>, request: Request) -> Response {
    let began = Instant::now();
    let path = request.uri().path().to_owned();
    let method = request.method().clone();
    let target = parse(&path);
    let answer = match timeout(DEADLINE, shared.slots.acquire()).await {
        Ok(Ok(_slot)) => answer(&shared.server, target, &path, &peer, request).await,
        _ => Err(overloaded()),
    };
    let code = answer.as_ref().map_or_else(Refusal::code, Response::status);
    shared.server.metrics.answered(label(target), code, began.elapsed());
    answer.unwrap_or_else(|refusal| {
        let why = refusal.message();
        if code.is_server_error() {
            tracing::warn!(%method, path, code = code.as_u16(), why, "failed");
        } else {
            tracing::debug!(%method, path, code = code.as_u16(), why, "refused");
        }
        refusal.into_response()
    })
}

async fn answer(server: &Server, target: Target<'_>, path: &str, peer: &Peer, request: Request) -> Answer {
    let document = |value| Ok(json(StatusCode::OK, &value));
    match target {
        Target::Admission(admission) => webhooks::serve(server, admission, request).await,
        Target::Verb { verb, version, namespace, name } => {
            if *request.method() != verb.method() {
                return Err(method_not_allowed(request.method()));
            }
            let user = server.front_proxy.borrow().user(peer, request.headers())?;
            access::check(&server.client, user, verb, version, namespace, name).await?;
            subresources::serve(server, Call { verb, namespace, name }, request).await
        }
        Target::UnknownVerb => Err(no_such_path()),
        // In the form that clients know.
        Target::Unknown if path.starts_with("/apis/") => {
            Err(Refusal::Text(StatusCode::UNAUTHORIZED, format!("unknown api endpoint: {path}")))
        }
        Target::Unknown => Err(no_such_path()),
        _ if *request.method() != Method::GET && *request.method() != Method::HEAD => {
            Err(method_not_allowed(request.method()))
        }
        Target::Root => document(discovery::root()),
        Target::Groups => document(discovery::groups()),
        Target::Group => document(discovery::group()),
        Target::Resources(version) => document(discovery::resources(version)),
        Target::OpenApiV2 => document(openapi::v2()),
        Target::OpenApiV3 => document(openapi::v3()),
        Target::OpenApiV3Of(version) => document(openapi::v3_of(version)),
        Target::Version => document(health::version()),
        Target::Health => {
            let configuration = server.settings.borrow().kubevirt.metadata.resource_version.clone();
            Ok(health::health(&server.client, configuration).await)
        }
    }
}

/// The name under which answers are counted: never anything that a client makes up.
fn label(target: Target<'_>) -> &'static str {
    match target {
        Target::Admission(admission) => webhooks::label(admission),
        Target::Verb { verb, .. } => match verb {
            Verb::Start => "virtualmachines/start",
            Verb::Stop => "virtualmachines/stop",
            Verb::Restart => "virtualmachines/restart",
            Verb::Vnc => "virtualmachineinstances/vnc",
            Verb::VncScreenshot => "virtualmachineinstances/vnc/screenshot",
            Verb::Console => "virtualmachineinstances/console",
            Verb::Pause => "virtualmachineinstances/pause",
            Verb::Unpause => "virtualmachineinstances/unpause",
            Verb::Reset => "virtualmachineinstances/reset",
            Verb::SoftReboot => "virtualmachineinstances/softreboot",
            Verb::GuestOsInfo => "virtualmachineinstances/guestosinfo",
            Verb::UserList => "virtualmachineinstances/userlist",
            Verb::FilesystemList => "virtualmachineinstances/filesystemlist",
        },
        Target::UnknownVerb | Target::Unknown => "unknown",
        Target::Root | Target::Groups | Target::Group | Target::Resources(_) => "discovery",
        Target::OpenApiV2 | Target::OpenApiV3 | Target::OpenApiV3Of(_) => "openapi",
        Target::Version => "version",
        Target::Health => "healthz",
    }
}
