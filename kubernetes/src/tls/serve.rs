//! HTTP/1.1 over TLS, with upgrades of connections.

use std::future::Future;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use nix::sys::socket::{setsockopt, sockopt};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::peer::Peer;

/// Connections at a time, those that were upgraded apart. What is beyond waits in the kernel's queue.
const CONNECTIONS: usize = 1024;
const HANDSHAKE: Duration = Duration::from_secs(10);
/// For the whole head of a request, and so for a connection that idles. The API server closes connections that idle
/// for 90 s: it shall be the one to do so, for a request that crosses our close on its way would fail.
const HEAD: Duration = Duration::from_secs(120);
/// The largest head: `X-Remote-Group` and `X-Remote-Extra-` of a user with many groups.
const MAX_HEAD: usize = 64 << 10;
/// How long requests that have begun may go on after the end was asked for.
const GRACE: Duration = Duration::from_secs(10);
/// After a failed accept: there are no file descriptors, most likely, and some will be closed.
const PAUSE: Duration = Duration::from_millis(200);

/// Answers until `shutdown`; then takes no connection more, and lets requests that have begun end. Each request has
/// a [`Peer`] as an extension. Connections that were upgraded belong to who upgraded them.
pub async fn serve(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    router: Router,
    shutdown: impl Future<Output = ()>,
) {
    let acceptor = TlsAcceptor::from(config);
    let service = TowerToHyperService::new(router);
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let connections = TaskTracker::new();
    let stop = CancellationToken::new();
    let accept = async {
        loop {
            let Ok(slot) = slots.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, acceptor.clone(), service.clone(), stop.clone(), slot));
                }
                Err(error) => {
                    tracing::warn!(%error, "failed to accept a connection");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        () = accept => {}
        () = shutdown => {}
    }
    drop(listener);
    stop.cancel();
    connections.close();
    if timeout(GRACE, connections.wait()).await.is_err() {
        tracing::warn!(connections = connections.len(), "requests are cut off: they did not end in time");
    }
}

async fn connection(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    service: TowerToHyperService<Router>,
    stop: CancellationToken,
    _slot: OwnedSemaphorePermit,
) {
    let from = stream.peer_addr().ok();
    if let Err(error) = keep_alive(&stream) {
        tracing::debug!(%error, ?from, "no keep-alive");
    }
    let tls = match timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) => return tracing::debug!(%error, ?from, "TLS handshake failed"),
        Err(_) => return tracing::debug!(?from, "TLS handshake took too long"),
    };
    let peer = Peer::of(tls.get_ref().1.peer_certificates());
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        service.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(tls), service)
        .with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = crate::chain(&error), ?from, "a connection ended");
    }
}

/// Lets the kernel find out within a minute or so that the other end is gone, however silent the connection is.
///
/// # Errors
/// Where the kernel does not.
pub fn keep_alive(stream: &impl AsFd) -> io::Result<()> {
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &30)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &10)?;
    setsockopt(stream, sockopt::TcpKeepCount, &3)?;
    Ok(setsockopt(stream, sockopt::TcpNoDelay, &true)?)
}
