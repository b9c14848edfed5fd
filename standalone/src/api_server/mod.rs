//! The API of this host on RUN/api.sock: paths, codes, bodies and messages as a cluster's API server has them.
//!
//! The folder of manifests is where objects are made and changed; here they are read, deleted (document and all),
//! and commanded by subresources. The socket belongs to root: whoever may open it may do everything.

mod answer;
mod console;
mod leases;
mod objects;
mod path;
mod subresources;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use tokio::net::UnixListener;
use tokio::sync::watch;

use crate::host::{Host, stopped};
use answer::{Answer, json, refuse, text};
use console::Consoles;
use path::{Target, parse};

/// The socket cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("failed to listen on `{0}`")]
pub struct ListenError(PathBuf, #[source] io::Error);

/// What the handlers share.
#[derive(Clone)]
struct Api {
    host: Arc<Host>,
    consoles: Consoles,
}

/// Makes the socket. What an earlier holdfastd left there is replaced: the lock on the state folder says that it is
/// not running.
pub fn listen(path: &Path) -> Result<UnixListener, ListenError> {
    let failed = |error| ListenError(path.to_owned(), error);
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

/// Answers until `stop` says true. Consoles that are open then are closed.
pub async fn serve(listener: UnixListener, host: Arc<Host>, mut stop: watch::Receiver<bool>) {
    let api = Api { host, consoles: Consoles::default() };
    let router = Router::new().fallback(handle).with_state(api);
    tokio::select! {
        () = stopped(&mut stop) => {}
        result = axum::serve(listener, router) => {
            if let Err(error) = result {
                tracing::error!(%error, "the API came to an end");
            }
        }
    }
}

async fn handle(State(api): State<Api>, request: Request) -> Response {
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    match answer(&api, request).await {
        Ok(response) => response,
        Err(status) => {
            tracing::debug!(%method, path, code = status.code, "refused: {}", status.message.as_deref().unwrap_or(""));
            refuse(&status)
        }
    }
}

async fn answer(api: &Api, request: Request) -> Answer {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let path = request.uri().path().to_owned();
    let target = parse(&path).ok_or_else(|| answer::no_such_path(&path))?;
    match (request.method(), target) {
        (&Method::GET, Target::Health) => Ok(text(StatusCode::OK, "ok")),
        (&Method::GET, Target::Version) => Ok(json(StatusCode::OK, &version())),
        (&Method::GET, Target::Objects { kind, namespace }) => objects::list(&api.host, kind, namespace).await,
        (&Method::GET, Target::Object { key }) => objects::get(&api.host, &key).await,
        (&Method::DELETE, Target::Object { key }) => objects::delete(&api.host, &key),
        (&Method::GET, Target::Leases { kind, name }) => leases::get(&api.host, kind, name).await,
        (&Method::GET, Target::Events { namespace }) => Ok(objects::events(&api.host, namespace, &query)),
        (&Method::PUT, Target::Vm { namespace, name, verb }) => {
            subresources::vm(&api.host, namespace, name, verb, request).await
        }
        (&Method::GET, Target::Vmi { namespace, name, verb: "console" }) => {
            console::open(&api.host, &api.consoles, namespace, name, request).await
        }
        (&Method::PUT, Target::Vmi { namespace, name, verb }) => {
            subresources::vmi(&api.host, namespace, name, verb, request).await
        }
        (method, _) => Err(answer::method_not_allowed(method, &path)),
    }
}

/// What `virtctl version` shows.
fn version() -> serde_json::Value {
    serde_json::json!({
        "gitVersion": concat!("v", env!("CARGO_PKG_VERSION")),
        "platform": format!("linux/{}", crate::images::architecture()),
    })
}
