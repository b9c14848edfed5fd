//! Streams: a websocket's binary frames to and from the serial port or the screen of a VM.
//!
//! A serial port has one reader, and a screen one viewer: whoever connects last has it, and who had it before is
//! disconnected, as with KubeVirt. Sockets are opened beneath the launcher's own folder, which it can write to.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::Path as FilePath;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use futures::{SinkExt, StreamExt};
use holdfast_agent::beneath;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Message};

use super::verbs::absent;
use super::{Serving, refuse};

/// The websocket's protocol.
const PROTOCOL: &str = "plain.kubevirt.io";
/// Bytes that are read at once.
const CHUNK: usize = 10240;
/// The longest message that is taken.
const LONGEST: usize = 1 << 20;

/// Who has which stream: what is dropped here disconnects it.
#[derive(Clone, Default)]
pub struct Consoles(Arc<Mutex<BTreeMap<String, oneshot::Sender<()>>>>);

impl Consoles {
    fn take(&self, stream: String) -> oneshot::Receiver<()> {
        let (hold, dropped) = oneshot::channel();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Of those that have ended nobody listens.
        all.retain(|_, hold| !hold.is_closed());
        all.insert(stream, hold);
        dropped
    }
}

/// The serial console.
pub async fn console(
    State(serving): State<Serving>,
    Extension(consoles): Extension<Consoles>,
    Path((namespace, name)): Path<(String, String)>,
    request: Request,
) -> Response {
    open(&serving, &consoles, (&namespace, &name), "virt-serial0", request).await
}

/// The screen.
pub async fn vnc(
    State(serving): State<Serving>,
    Extension(consoles): Extension<Consoles>,
    Path((namespace, name)): Path<(String, String)>,
    request: Request,
) -> Response {
    open(&serving, &consoles, (&namespace, &name), "virt-vnc", request).await
}

async fn open(
    serving: &Serving,
    consoles: &Consoles,
    (namespace, name): (&str, &str),
    socket: &str,
    mut request: Request,
) -> Response {
    let Some(entry) = serving.running.get(namespace, name) else { return absent(name) };
    let Some(accept) = accept_key(request.headers()) else {
        return refuse(StatusCode::BAD_REQUEST, format!("this is a websocket of protocol {PROTOCOL}"));
    };
    // Before the socket is asked for: QEMU's serial port takes nobody while somebody is there.
    let dropped = consoles.take(format!("{}/{socket}", entry.uid));
    let vm = match beneath::connect(&entry.private, &FilePath::new(&entry.uid).join(socket)).await {
        Ok(vm) => vm,
        // The domain has just ended, or has not begun, or has no such device.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            return refuse(StatusCode::CONFLICT, "VMI is not running");
        }
        Err(error) => return refuse(StatusCode::INTERNAL_SERVER_ERROR, format!("failed to open `{socket}`: {error}")),
    };
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let config = WebSocketConfig::default().max_message_size(Some(LONGEST)).max_frame_size(Some(LONGEST));
        let client = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
        carry(client, vm, dropped).await;
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
    response
}

/// What accepts a websocket (RFC 6455, section 4.2); none where the request opens none of our protocol.
fn accept_key(headers: &HeaderMap) -> Option<HeaderValue> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or_default();
    let names = |list: &str, wanted: &str| list.split(',').any(|item| item.trim().eq_ignore_ascii_case(wanted));
    let is_ours = names(text(header::CONNECTION), "upgrade")
        && names(text(header::UPGRADE), "websocket")
        && names(text(header::SEC_WEBSOCKET_PROTOCOL), PROTOCOL)
        && text(header::SEC_WEBSOCKET_VERSION) == "13";
    let key = headers.get(header::SEC_WEBSOCKET_KEY).filter(|_| is_ours)?;
    HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok()
}

/// Carries bytes both ways until either side ends, or the stream is somebody else's.
async fn carry<S>(client: WebSocketStream<S>, vm: UnixStream, dropped: oneshot::Receiver<()>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut to_client, mut from_client) = client.split();
    let (mut from_vm, mut to_vm) = vm.into_split();
    let inwards = async {
        while let Some(Ok(message)) = from_client.next().await {
            match message {
                Message::Binary(bytes) => to_vm.write_all(&bytes).await?,
                Message::Text(text) => to_vm.write_all(text.as_bytes()).await?,
                Message::Close(_) => break,
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
        io::Result::Ok(())
    };
    let outwards = async {
        let mut chunk = vec![0; CHUNK];
        loop {
            let length = from_vm.read(&mut chunk).await?;
            let sent = chunk.get(..length).filter(|bytes| !bytes.is_empty());
            let Some(bytes) = sent else { return io::Result::Ok(()) };
            if to_client.send(Message::Binary(Bytes::copy_from_slice(bytes))).await.is_err() {
                return Ok(());
            }
        }
    };
    // However it ends, both sides are closed.
    tokio::select! {
        _ = inwards => {}
        _ = outwards => {}
        _ = dropped => {}
    }
    let _ = to_client.close().await;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_websocket_of_the_protocol_is_accepted() {
        let mut headers = HeaderMap::new();
        let mut set = |name, value: &str| _ = headers.insert(name, HeaderValue::from_str(value).unwrap());
        set(header::CONNECTION, "keep-alive, Upgrade");
        set(header::UPGRADE, "websocket");
        set(header::SEC_WEBSOCKET_VERSION, "13");
        set(header::SEC_WEBSOCKET_PROTOCOL, "plain.kubevirt.io");
        // The example of RFC 6455, section 1.3.
        set(header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept_key(&headers).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        headers.remove(header::SEC_WEBSOCKET_PROTOCOL);
        assert!(accept_key(&headers).is_none());
    }

    #[tokio::test]
    async fn bytes_go_both_ways_unchanged_until_somebody_else_comes() {
        let (near, far) = tokio::io::duplex(1 << 16);
        let (vm, mut guest) = UnixStream::pair().unwrap();
        let consoles = Consoles::default();
        let dropped = consoles.take("u/virt-serial0".to_owned());
        let server = WebSocketStream::from_raw_socket(near, Role::Server, None).await;
        let carrying = tokio::spawn(carry(server, vm, dropped));
        let mut client = WebSocketStream::from_raw_socket(far, Role::Client, None).await;
        let all: Vec<u8> = (0..=255).collect();
        client.send(Message::Binary(all.clone().into())).await.unwrap();
        let mut seen = vec![0; 256];
        guest.read_exact(&mut seen).await.unwrap();
        assert_eq!(seen, all);
        guest.write_all(&all).await.unwrap();
        assert_eq!(client.next().await.unwrap().unwrap().into_data(), all);

        let _newest = consoles.take("u/virt-serial0".to_owned());
        carrying.await.unwrap();
        assert_eq!(guest.read(&mut seen).await.unwrap(), 0);
        assert!(matches!(client.next().await, Some(Ok(Message::Close(_))) | None));
    }
}
