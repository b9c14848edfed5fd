//! console and vnc: a websocket between the client and virt-handler.
//!
//! virt-api agrees to nothing of its own: the handshake is virt-handler's, and after it bytes are carried as they
//! come, so that messages, pings and closes are between the two ends. There is no limit on silence; that an end is
//! gone is found out by the kernel's keep-alive.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use holdfast_api::kubevirt::VirtualMachineInstance;
use holdfast_api::status::phase;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy, split};
use tokio::time::timeout;

use super::Call;
use super::vmi::{instance, node, path, refused};
use crate::answer::{Answer, Refusal, internal};
use crate::handlers::Upgrade;
use crate::server::Server;
use crate::verbs::Verb;

/// What of the client's handshake virt-handler gets, and nothing else of its headers.
const ASKED: [HeaderName; 4] =
    [SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_EXTENSIONS];
/// What of virt-handler's the client gets.
const ANSWERED: [HeaderName; 3] = [SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_EXTENSIONS];
/// How long one direction goes on after the other's end.
const LINGER: Duration = Duration::from_secs(30);

/// Opens a stream.
pub async fn open(server: &Server, call: Call<'_>, mut request: Request) -> Answer {
    let vmi = instance(server, call).await?;
    possible(call, &vmi)?;
    websocket(request.headers())?;
    let asked = pick(request.headers(), &ASKED);
    let opened = server.handlers.upgrade(node(&vmi), &path(call), asked).await;
    let (headers, mut handler) = match opened.map_err(|error| internal(&holdfast_kubernetes::chain(&error)))? {
        Upgrade::Open(headers, handler) => (headers, handler),
        Upgrade::Refused(reply) => return Err(refused(call, &reply)),
    };
    let active = server.metrics.stream(call.verb, call.namespace, call.name);
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        // Counted for as long as it lasts.
        let _active = active;
        match upgrade.await {
            Ok(client) => relay(TokioIo::new(client), &mut handler).await,
            Err(error) => tracing::debug!(%error, "the client left during the handshake"),
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = pick(&headers, &ANSWERED);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
    Ok(response)
}

/// Sees to it that the VMI runs and has the device.
pub fn possible(call: Call<'_>, vmi: &VirtualMachineInstance) -> Result<(), Refusal> {
    let devices = &vmi.spec.domain.devices;
    let lacking = match call.verb {
        Verb::Vnc | Verb::VncScreenshot => (devices.autoattach_graphics_device, "No graphics devices are present."),
        _ => (devices.autoattach_serial_console, "No serial consoles are present."),
    };
    if lacking.0 == Some(false) {
        return Err(call.conflict(lacking.1));
    }
    if phase(vmi) != "Running" {
        return Err(call.conflict("VMI is not running"));
    }
    Ok(())
}

/// Sees to it that the client speaks websocket (RFC 6455, section 4.2.1). The form of the refusal is the one that
/// clients know.
fn websocket(headers: &HeaderMap) -> Result<(), Refusal> {
    let has = |name: HeaderName, token: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(token))
    };
    let wrong = if !has(CONNECTION, "upgrade") {
        "the client is not using the websocket protocol: 'upgrade' token not found in 'Connection' header"
    } else if !has(UPGRADE, "websocket") {
        "the client is not using the websocket protocol: 'websocket' token not found in 'Upgrade' header"
    } else if !has(SEC_WEBSOCKET_VERSION, "13") {
        "unsupported version: 13 not found in 'Sec-Websocket-Version' header"
    } else if !headers.contains_key(SEC_WEBSOCKET_KEY) {
        "not a websocket handshake: 'Sec-WebSocket-Key' header must be Base64 encoded value of 16-byte in length"
    } else {
        return Ok(());
    };
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": format!("websocket: {wrong}"), "reason": "BadRequest", "code": 400,
    });
    Err(Refusal::Text(StatusCode::BAD_REQUEST, format!("Bad Request\n{status:#}")))
}

fn pick(from: &HeaderMap, names: &[HeaderName]) -> HeaderMap {
    let mut picked = HeaderMap::new();
    for name in names {
        for value in from.get_all(name) {
            picked.append(name, value.clone());
        }
    }
    picked
}

/// Carries bytes both ways until both ends have ended, or one has and the other does not follow.
async fn relay(client: impl AsyncRead + AsyncWrite, handler: impl AsyncRead + AsyncWrite) {
    let (mut from_client, mut to_client) = split(client);
    let (mut from_handler, mut to_handler) = split(handler);
    let up = async {
        let _ = copy(&mut from_client, &mut to_handler).await;
        let _ = to_handler.shutdown().await;
    };
    let down = async {
        let _ = copy(&mut from_handler, &mut to_client).await;
        let _ = to_client.shutdown().await;
    };
    tokio::pin!(up, down);
    let _ = tokio::select! {
        () = &mut up => timeout(LINGER, down).await,
        () = &mut down => timeout(LINGER, up).await,
    };
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn headers(list: &[(&str, &str)]) -> HeaderMap {
        list.iter().map(|(n, v)| (n.parse::<HeaderName>().unwrap(), v.parse().unwrap())).collect()
    }

    #[test]
    fn who_does_not_speak_websocket_is_told_so() {
        let whole = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        assert_eq!(websocket(&headers(&whole)), Ok(()));
        for missing in 0..whole.len() {
            let some: Vec<_> = whole.iter().enumerate().filter(|(i, _)| *i != missing).map(|(_, h)| *h).collect();
            assert_eq!(websocket(&headers(&some)).unwrap_err().code(), StatusCode::BAD_REQUEST, "{some:?}");
        }
        let refusal = websocket(&HeaderMap::new()).unwrap_err();
        let (first, status) = refusal.message().split_once('\n').unwrap();
        assert_eq!(first, "Bad Request");
        let status: serde_json::Value = serde_json::from_str(status).unwrap();
        assert_eq!(
            status["message"],
            "websocket: the client is not using the websocket protocol: 'upgrade' token not found in 'Connection' header"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_is_handed_on_and_one_that_does_not_follow_is_left() {
        use tokio::io::{AsyncReadExt, duplex};
        let (mut client, left) = duplex(64);
        let (mut handler, right) = duplex(64);
        let relay = tokio::spawn(relay(left, right));
        client.write_all(&[0, 0xff, b'\r', b'\n']).await.unwrap();
        let mut bytes = [0; 4];
        handler.read_exact(&mut bytes).await.unwrap();
        assert_eq!(bytes, [0, 0xff, b'\r', b'\n']);
        client.shutdown().await.unwrap();
        assert_eq!(handler.read(&mut bytes).await.unwrap(), 0);
        // What is still on its way the other way arrives.
        handler.write_all(b"bye").await.unwrap();
        client.read_exact(&mut bytes[..3]).await.unwrap();
        assert_eq!(&bytes[..3], b"bye");
        // The handler never closes; time, which only passes while nothing else happens, ends it.
        relay.await.unwrap();
        assert_eq!(client.read(&mut bytes).await.unwrap(), 0);
    }
}
