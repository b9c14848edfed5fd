//! The world of the tests: real TLS and HTTP, on loopback.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::{Extension, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use holdfast_kubernetes::config::Settings;
use holdfast_kubernetes::tls::{self, Peer, Pem};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Client, Config};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::front_proxy::FrontProxy;
use crate::handlers::Handlers;
use crate::metrics::Metrics;
use crate::server::{Server, router};

/// The name that the front proxy's certificate must have.
pub const FRONT_PROXY: &str = "front-proxy-client";

/// What the API server was asked: method, path with query, body.
pub type Asked = (Method, String, Value);

/// What the API server has, and what it was asked.
#[derive(Default)]
pub struct ApiServer {
    /// Objects and lists, by path.
    pub objects: Mutex<BTreeMap<String, Value>>,
    /// Requests, the oldest first.
    pub asked: Mutex<Vec<Asked>>,
    /// Whether users may do what they ask for.
    pub allows: Mutex<bool>,
}

/// Everything.
pub struct World {
    pub api_server: Arc<ApiServer>,
    /// What virt-handler was asked: method and path.
    pub handled: Arc<Mutex<Vec<String>>>,
    pub address: SocketAddr,
    ca: Authority,
    fronts: Authority,
    _folder: TempDir,
}

/// Somebody who signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: Vec<u8>,
}

/// A new authority.
pub fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem().into_bytes();
    Authority { issuer: Issuer::new(params, key), pem }
}

impl Authority {
    /// A certificate with its key, in PEM.
    pub fn certificate(&self, name: &str) -> (Vec<u8>, Vec<u8>) {
        let mut params = CertificateParams::new(vec![name.replace(':', "-")]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem().into_bytes(), key.serialize_pem().into_bytes())
    }
}

fn fixed(bytes: &[u8]) -> Pem {
    Pem::Watched(watch::channel(bytes.to_vec()).1)
}

impl World {
    /// Begins, with these objects.
    pub async fn new(objects: &[(&str, Value)]) -> Self {
        let (ca, fronts) = (authority(), authority());
        let folder = tempfile::tempdir().unwrap();
        let api_server = Arc::new(ApiServer::default());
        *api_server.allows.lock().unwrap() = true;
        let handled = Arc::new(Mutex::new(Vec::new()));
        let handler = virt_handler(&ca, handled.clone()).await;
        let node =
            json!({"items": [{"metadata": {"name": "h"}, "status": {"phase": "Running", "podIP": "127.0.0.1"}}]});
        for (path, object) in objects.iter().cloned().chain([("/api/v1/namespaces/kubevirt/pods", node)]) {
            api_server.objects.lock().unwrap().insert(path.to_owned(), object);
        }

        let (chain, key) = ca.certificate("kubevirt.io:system:client:virt-handler");
        for (name, bytes) in [("tls.crt", &chain), ("tls.key", &key), ("ca", &ca.pem)] {
            fs::write(folder.path().join(name), bytes).unwrap();
        }
        let handler_tls = tls::client(folder.path(), &folder.path().join("ca")).unwrap();
        let client = client(fake(api_server.clone()).await);
        let (metrics, registry) = Metrics::new();
        let handlers = Handlers::new(client.clone(), "kubevirt", handler.port(), handler_tls);
        let map: ConfigMap = serde_json::from_value(json!({"data": {
            "requestheader-client-ca-file": String::from_utf8(fronts.pem.clone()).unwrap(),
            "requestheader-allowed-names": json!([FRONT_PROXY]).to_string(),
            "requestheader-username-headers": "[\"X-Remote-User\"]",
            "requestheader-group-headers": "[\"X-Remote-Group\"]",
            "requestheader-extra-headers-prefix": "[\"X-Remote-Extra-\"]",
        }}))
        .unwrap();
        let front_proxy = watch::channel(Arc::new(FrontProxy::of(&map).unwrap())).1;
        let settings = watch::channel(Arc::new(Settings::default())).1;
        let namespace = "kubevirt".to_owned();
        let server = Server { client, namespace, settings, front_proxy, handlers, metrics };

        let (chain, key) = ca.certificate("virt-api");
        let config = tls::server_of(fixed(&chain), fixed(&key), Some(fixed(&fronts.pem))).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(tls::serve(listener, config, router(server, registry), std::future::pending()));
        Self { api_server, handled, address, ca, fronts, _folder: folder }
    }

    /// A connection to virt-api, with a certificate or without; none where the handshake fails.
    pub async fn connect(&self, identity: Option<(Vec<u8>, Vec<u8>)>) -> Option<TlsStream<TcpStream>> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca"), &self.ca.pem).unwrap();
        if let Some((chain, key)) = identity {
            fs::write(folder.path().join("tls.crt"), chain).unwrap();
            fs::write(folder.path().join("tls.key"), key).unwrap();
        }
        let config = tls::client(folder.path(), &folder.path().join("ca")).unwrap();
        let stream = TcpStream::connect(self.address).await.unwrap();
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("virt-api").unwrap(), stream).await.ok()
    }

    /// The front proxy's certificate, or one of its authority's with another name.
    pub fn front_proxy(&self, name: &str) -> Option<(Vec<u8>, Vec<u8>)> {
        Some(self.fronts.certificate(name))
    }

    /// Asks as a front proxy with this certificate, for `jane`; none where the connection comes to nothing.
    pub async fn ask_with(
        &self,
        identity: Option<(Vec<u8>, Vec<u8>)>,
        method: Method,
        path: &str,
        body: &[u8],
    ) -> Option<(u16, HeaderMap, String)> {
        let tls = self.connect(identity).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(tls)).await.ok()?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "virt-api")
            .header("x-remote-user", "jane")
            .header("x-remote-group", "developers")
            .header("x-remote-extra-team", "blue")
            .body(Full::new(Bytes::copy_from_slice(body)))
            .unwrap();
        let answer = sender.send_request(request).await.ok()?;
        let (code, headers) = (answer.status().as_u16(), answer.headers().clone());
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        Some((code, headers, String::from_utf8(body.to_vec()).unwrap()))
    }

    /// Asks as the front proxy does, for `jane`.
    pub async fn ask(&self, method: Method, path: &str, body: &[u8]) -> (u16, String) {
        let (code, _, body) = self.ask_with(self.front_proxy(FRONT_PROXY), method, path, body).await.unwrap();
        (code, body)
    }

    /// Asks a webhook, as the API server does.
    pub async fn review(&self, path: &str, request: Value) -> Value {
        let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request});
        let (code, _, body) = self.ask_with(None, Method::POST, path, review.to_string().as_bytes()).await.unwrap();
        assert_eq!(code, 200, "{body}");
        serde_json::from_str::<Value>(&body).unwrap()["response"].clone()
    }

    /// What the API server was asked so far, reviews of access apart.
    pub fn asked(&self) -> Vec<Asked> {
        let asked = self.api_server.asked.lock().unwrap();
        asked.iter().filter(|(_, path, _)| !path.contains("subjectaccessreviews")).cloned().collect()
    }

    /// The reviews of access.
    pub fn reviews(&self) -> Vec<Value> {
        let asked = self.api_server.asked.lock().unwrap();
        let reviews = asked.iter().filter(|(_, path, _)| path.contains("subjectaccessreviews"));
        reviews.map(|(_, _, body)| body["spec"].clone()).collect()
    }
}

fn client(address: SocketAddr) -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::try_from(Config::new(format!("http://{address}").parse().unwrap())).unwrap()
}

/// Serves an API server.
async fn fake(state: Arc<ApiServer>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback(answer).with_state(state);
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

async fn answer(State(state): State<Arc<ApiServer>>, request: Request) -> Response {
    let method = request.method().clone();
    let path = request.uri().path().trim_end_matches("/status").to_owned();
    let asked = request.uri().path_and_query().unwrap().to_string();
    let merge = request.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/merge-patch+json");
    let bytes = request.into_body().collect().await.unwrap().to_bytes();
    let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    state.asked.lock().unwrap().push((method.clone(), asked.clone(), body.clone()));
    if asked.contains("subjectaccessreviews") {
        let mut review = body;
        review["status"] = json!({"allowed": *state.allows.lock().unwrap()});
        return (StatusCode::CREATED, Json(review)).into_response();
    }
    let mut objects = state.objects.lock().unwrap();
    let Some(object) = objects.get_mut(&path) else {
        return status(404, "NotFound", "not found");
    };
    if method == Method::PATCH {
        let mut changed = object.clone();
        if merge {
            json_patch::merge(&mut changed, &body);
        } else if !apply(&mut changed, &body) {
            return status(422, "Invalid", "the server rejected our request due to an error in our request");
        }
        if !asked.contains("dryRun=All") {
            *object = changed.clone();
        }
        return Json(changed).into_response();
    }
    Json(object.clone()).into_response()
}

/// Applies a JSON patch as the API server does: what is not there equals null.
fn apply(object: &mut Value, patch: &Value) -> bool {
    let operations = patch.as_array().unwrap().iter().filter(|operation| {
        let path = operation["path"].as_str().unwrap();
        let absent = operation["op"] == "test" && operation["value"].is_null();
        !(absent && object.pointer(path).is_none_or(Value::is_null))
    });
    let operations: Vec<_> = operations.cloned().collect();
    json_patch::patch(object, &serde_json::from_value::<json_patch::Patch>(operations.into()).unwrap()).is_ok()
}

fn status(code: u16, reason: &str, message: &str) -> Response {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "code": code, "reason": reason, "message": message});
    (StatusCode::from_u16(code).unwrap(), Json(status)).into_response()
}

/// A virt-handler: does nothing, says so, and echoes streams.
async fn virt_handler(ca: &Authority, handled: Arc<Mutex<Vec<String>>>) -> SocketAddr {
    let (chain, key) = ca.certificate("virt-handler");
    let config = tls::server_of(fixed(&chain), fixed(&key), Some(fixed(&ca.pem))).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback(handle).with_state(handled);
    tokio::spawn(tls::serve(listener, config, router, std::future::pending()));
    address
}

async fn handle(
    State(handled): State<Arc<Mutex<Vec<String>>>>,
    Extension(peer): Extension<Peer>,
    mut request: Request,
) -> Response {
    if peer.common_name() != Some("kubevirt.io:system:client:virt-handler") {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let path = request.uri().path().to_owned();
    handled.lock().unwrap().push(format!("{} {path}", request.method()));
    if request.headers().keys().any(|name| name.as_str().starts_with("x-remote")) {
        return (StatusCode::BAD_REQUEST, "users are none of my business").into_response();
    }
    if path.contains("/gone/") {
        return (StatusCode::CONFLICT, "VMI is not running\n").into_response();
    }
    if path.contains("/broken/") {
        return (StatusCode::BAD_REQUEST, "no such thing").into_response();
    }
    if path.ends_with("/guestosinfo") {
        return Json(json!({"hostname": "guest"})).into_response();
    }
    let Some(key) = request.headers().get(header::SEC_WEBSOCKET_KEY).cloned() else {
        return StatusCode::OK.into_response();
    };
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let stream = TokioIo::new(upgrade.await.unwrap());
        let socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
        let (sink, source) = futures::StreamExt::split(socket);
        let data = futures::TryStreamExt::try_filter(source, |message| std::future::ready(message.is_binary()));
        let _ = futures::StreamExt::forward(data, sink).await;
    });
    let headers = [
        (header::CONNECTION, "Upgrade".to_owned()),
        (header::UPGRADE, "websocket".to_owned()),
        (header::SEC_WEBSOCKET_ACCEPT, derive_accept_key(key.as_bytes())),
        (header::SEC_WEBSOCKET_PROTOCOL, "plain.kubevirt.io".to_owned()),
    ];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

const KUBEVIRT: &str = "/apis/kubevirt.io/v1/namespaces/default";

/// A VM, at its path.
pub fn vm(name: &str, strategy: &str) -> (String, Value) {
    let object = json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine",
        "metadata": {"name": name, "namespace": "default", "uid": "v"},
        "spec": {"runStrategy": strategy, "template": {"spec": {"domain": {"devices": {}}}}},
    });
    (format!("{KUBEVIRT}/virtualmachines/{name}"), object)
}

/// A VMI, at its path.
pub fn vmi(name: &str, phase: &str, conditions: Value) -> (String, Value) {
    let object = json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
        "metadata": {"name": name, "namespace": "default", "uid": "i", "resourceVersion": "7"},
        "spec": {"domain": {"devices": {}}, "terminationGracePeriodSeconds": 30},
        "status": {"phase": phase, "nodeName": "one", "conditions": conditions},
    });
    (format!("{KUBEVIRT}/virtualmachineinstances/{name}"), object)
}

/// The path of a subresource of `default/w1`.
pub fn subresource(plural: &str, name: &str, verb: &str) -> String {
    format!("/apis/subresources.kubevirt.io/v1/namespaces/default/{plural}/{name}/{verb}")
}
