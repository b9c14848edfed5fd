#![allow(clippy::unwrap_used)]

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;

use axum::Router;
use axum::extract::{Extension, Request};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::*;

const NOW: std::time::Duration = std::time::Duration::ZERO;

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: Vec<u8>,
}

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem().into_bytes();
    Authority { issuer: Issuer::new(params, key), pem }
}

/// A certificate of `authority` and its key.
fn certificate(authority: &Authority, name: &str) -> (Vec<u8>, Vec<u8>) {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.distinguished_name.push(DnType::OrganizationName, "one");
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &authority.issuer).unwrap();
    (certificate.pem().into_bytes(), key.serialize_pem().into_bytes())
}

fn fixed(bytes: &[u8]) -> Pem {
    Pem::Watched(watch::channel(bytes.to_vec()).1)
}

fn trusting(ca: &Authority, identity: Option<&(Vec<u8>, Vec<u8>)>) -> ClientConfig {
    let none = (Vec::new(), Vec::new());
    let (chain, key) = identity.unwrap_or(&none);
    client::build(fixed(chain), fixed(key), fixed(&ca.pem), NOW).unwrap()
}

struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

async fn run(config: Arc<ServerConfig>) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let router = Router::new().route("/who", get(who)).route("/echo", get(echo));
    let task = tokio::spawn(serve(listener, config, router, async { drop(stopped.await) }));
    Running { address, stop, task }
}

async fn who(Extension(peer): Extension<Peer>) -> String {
    peer.subject.map_or("nobody".to_owned(), |subject| format!("{} {:?}", subject.common_name, subject.organisations))
}

async fn echo(request: Request) -> Response {
    let upgrade = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let (mut read, mut write) = tokio::io::split(TokioIo::new(upgrade.await.unwrap()));
        tokio::io::copy(&mut read, &mut write).await.unwrap();
        write.shutdown().await.unwrap();
    });
    (StatusCode::SWITCHING_PROTOCOLS, [(header::CONNECTION, "upgrade"), (header::UPGRADE, "echo")]).into_response()
}

/// What GET /who says; none where the connection comes to nothing.
async fn ask(address: SocketAddr, config: ClientConfig) -> Option<String> {
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("server").unwrap();
    let tls = TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.ok()?;
    let connection = tokio::spawn(connection);
    let request = Request::get("/who").header(header::HOST, "server").body(Empty::<Bytes>::new()).unwrap();
    let answer = sender.send_request(request).await.ok()?;
    let body = answer.into_body().collect().await.ok()?.to_bytes();
    drop(sender);
    let _ = connection.await;
    Some(String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn a_client_is_who_its_verified_certificate_says() {
    let (ca, fronts, other) = (authority("ca"), authority("fronts"), authority("fronts"));
    let (chain, key) = certificate(&ca, "server");
    let config = server_of(fixed(&chain), fixed(&key), Some(fixed(&fronts.pem))).unwrap();
    let server = run(config).await;

    let front = certificate(&fronts, "front");
    let known = ask(server.address, trusting(&ca, Some(&front))).await;
    assert_eq!(known.as_deref(), Some("front [\"one\"]"));
    assert_eq!(ask(server.address, trusting(&ca, None)).await.as_deref(), Some("nobody"));
    // The same name from an authority of the same name, but another key.
    let forged = certificate(&other, "front");
    assert_eq!(ask(server.address, trusting(&ca, Some(&forged))).await, None);
    // And the client has its own opinion of the server.
    assert_eq!(ask(server.address, trusting(&other, None)).await, None);
}

#[tokio::test]
async fn a_server_without_authorities_asks_for_no_certificate() {
    let ca = authority("ca");
    let (chain, key) = certificate(&ca, "server");
    let server = run(server_of(fixed(&chain), fixed(&key), None).unwrap()).await;
    let front = certificate(&ca, "front");
    assert_eq!(ask(server.address, trusting(&ca, Some(&front))).await.as_deref(), Some("nobody"));
}

#[tokio::test]
async fn authorities_of_clients_are_followed() {
    let (ca, old, new) = (authority("ca"), authority("old"), authority("new"));
    let (chain, key) = certificate(&ca, "server");
    let (follow, followed) = watch::channel(Vec::new());
    let config = build_server(&chain, &key, Some(Pem::Watched(followed)));
    let server = run(config).await;
    let (by_old, by_new) = (certificate(&old, "front"), certificate(&new, "front"));

    // Nobody is known yet: who presents nothing is served, who presents something is not.
    assert_eq!(ask(server.address, trusting(&ca, None)).await.as_deref(), Some("nobody"));
    assert_eq!(ask(server.address, trusting(&ca, Some(&by_old))).await, None);
    follow.send_replace(old.pem.clone());
    assert!(ask(server.address, trusting(&ca, Some(&by_old))).await.is_some());
    follow.send_replace([old.pem.clone(), new.pem.clone()].concat());
    assert!(ask(server.address, trusting(&ca, Some(&by_old))).await.is_some());
    assert!(ask(server.address, trusting(&ca, Some(&by_new))).await.is_some());
    follow.send_replace(new.pem.clone());
    assert_eq!(ask(server.address, trusting(&ca, Some(&by_old))).await, None);
}

fn build_server(chain: &[u8], key: &[u8], clients: Option<Pem>) -> Arc<ServerConfig> {
    server::build(fixed(chain), fixed(key), clients, NOW).unwrap()
}

/// Writes a Secret as the kubelet does: a folder for each state, and a link that is exchanged.
fn mount(folder: &Path, state: &str, (chain, key): &(Vec<u8>, Vec<u8>)) {
    let data = folder.join(state);
    fs::create_dir(&data).unwrap();
    fs::write(data.join(CERTIFICATE), chain).unwrap();
    fs::write(data.join(KEY), key).unwrap();
    symlink(state, folder.join("..data_tmp")).unwrap();
    fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    for name in [CERTIFICATE, KEY] {
        let _ = symlink(Path::new("..data").join(name), folder.join(name));
    }
}

#[tokio::test]
async fn files_of_a_secret_are_followed() {
    let folder = tempfile::tempdir().unwrap();
    let (chain, key) = identity(folder.path());
    let server = run(server::build(chain, key, None, NOW).unwrap()).await;
    let (old, new) = (authority("old"), authority("new"));

    assert_eq!(ask(server.address, trusting(&old, None)).await, None, "there is no certificate yet");
    let first = certificate(&old, "server");
    mount(folder.path(), "..1", &first);
    assert!(ask(server.address, trusting(&old, None)).await.is_some());
    // Of a change that is seen by half nothing is taken.
    let second = certificate(&new, "server");
    mount(folder.path(), "..2", &(second.0.clone(), first.1));
    assert!(ask(server.address, trusting(&old, None)).await.is_some());
    mount(folder.path(), "..3", &second);
    assert_eq!(ask(server.address, trusting(&old, None)).await, None);
    assert!(ask(server.address, trusting(&new, None)).await.is_some());
    // What is gone, or is rubbish, leaves what was.
    fs::remove_file(folder.path().join("..data")).unwrap();
    assert!(ask(server.address, trusting(&new, None)).await.is_some());
    mount(folder.path(), "..4", &(b"rubbish".to_vec(), b"rubbish".to_vec()));
    assert!(ask(server.address, trusting(&new, None)).await.is_some());
}

#[tokio::test]
async fn a_client_follows_its_own_certificate_and_authorities() {
    let (ca, fronts) = (authority("ca"), authority("fronts"));
    let (chain, key) = certificate(&ca, "server");
    let server = run(build_server(&chain, &key, Some(fixed(&fronts.pem)))).await;
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("ca-bundle");
    let (chain, key) = identity(folder.path());
    let config = client::build(chain, key, Pem::File(bundle.clone()), NOW).unwrap();

    assert_eq!(ask(server.address, config.clone()).await, None, "it trusts nobody yet");
    fs::write(&bundle, &ca.pem).unwrap();
    mount(folder.path(), "..1", &certificate(&fronts, "first"));
    assert_eq!(ask(server.address, config.clone()).await.as_deref(), Some("first [\"one\"]"));
    mount(folder.path(), "..2", &certificate(&fronts, "second"));
    assert_eq!(ask(server.address, config).await.as_deref(), Some("second [\"one\"]"));
}

#[tokio::test]
async fn an_upgraded_connection_carries_every_byte_both_ways() {
    let ca = authority("ca");
    let (chain, key) = certificate(&ca, "server");
    let server = run(build_server(&chain, &key, None)).await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    let name = ServerName::try_from("server").unwrap();
    let mut tls = TlsConnector::from(Arc::new(trusting(&ca, None))).connect(name, stream).await.unwrap();
    // The first bytes of the stream come with the head.
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let mut sent = b"GET /echo HTTP/1.1\r\nHost: server\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n".to_vec();
    sent.extend(&bytes);
    let (mut read, mut write) = tokio::io::split(&mut tls);
    let send = async {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let mut received = Vec::new();
    let (_, end) = tokio::join!(send, read.read_to_end(&mut received));
    end.unwrap();
    let body = received.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    assert!(received.starts_with(b"HTTP/1.1 101 "));
    assert!(received[body..] == bytes);
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_is_left() {
    let ca = authority("ca");
    let (chain, key) = certificate(&ca, "server");
    let server = run(build_server(&chain, &key, None)).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0, "no handshake");

    let stream = TcpStream::connect(server.address).await.unwrap();
    let name = ServerName::try_from("server").unwrap();
    let mut tls = TlsConnector::from(Arc::new(trusting(&ca, None))).connect(name, stream).await.unwrap();
    tls.write_all(b"GET /who HTTP/1.1\r\nHost: ser").await.unwrap();
    let mut answer = Vec::new();
    let _ = tls.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "no whole head");
}

#[tokio::test]
async fn the_end_comes_when_it_is_asked_for() {
    let ca = authority("ca");
    let (chain, key) = certificate(&ca, "server");
    let server = run(build_server(&chain, &key, None)).await;
    // A connection that idles does not hold it up.
    let stream = TcpStream::connect(server.address).await.unwrap();
    let name = ServerName::try_from("server").unwrap();
    let mut tls = TlsConnector::from(Arc::new(trusting(&ca, None))).connect(name, stream).await.unwrap();
    tls.write_all(b"GET /who HTTP/1.1\r\nHost: server\r\n\r\n").await.unwrap();
    let mut some = [0; 12];
    tls.read_exact(&mut some).await.unwrap();
    assert_eq!(&some, b"HTTP/1.1 200");
    server.stop.send(()).unwrap();
    server.task.await.unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}
