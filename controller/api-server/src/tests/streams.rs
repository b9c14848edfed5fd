//! Streams through virt-api, by real websockets over real TLS.

use axum::http::{HeaderValue, Method};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::world::{FRONT_PROXY, World, subresource, vmi};

async fn open(world: &World, name: &str, verb: &str) -> Result<WebSocketStream<TlsStream<TcpStream>>, Error> {
    let tls = world.connect(world.front_proxy(FRONT_PROXY)).await.unwrap();
    let url = format!("wss://virt-api{}", subresource("virtualmachineinstances", name, verb));
    let mut request = url.into_client_request().unwrap();
    request.headers_mut().insert("x-remote-user", HeaderValue::from_static("jane"));
    request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("plain.kubevirt.io"));
    let (socket, answer) = client_async(request, tls).await?;
    assert_eq!(answer.headers()["sec-websocket-protocol"], "plain.kubevirt.io");
    Ok(socket)
}

async fn metrics(world: &World) -> String {
    world.ask_with(None, Method::GET, "/metrics", b"").await.unwrap().2
}

#[tokio::test]
async fn bytes_pass_unchanged_both_ways_until_the_end() {
    let (path, running) = vmi("w1", "Running", json!([]));
    let world = World::new(&[(&path, running)]).await;
    for verb in ["console", "vnc"] {
        let mut socket = open(&world, "w1", verb).await.unwrap();
        let active = format!("kubevirt_{verb}_active_connections{{namespace=\"default\",vmi=\"w1\"}} 1");
        assert!(metrics(&world).await.contains(&active));
        for length in [0_usize, 1, 256, 100_000] {
            let bytes: Vec<u8> = (0..=255).cycle().take(length).collect();
            socket.send(Message::binary(bytes.clone())).await.unwrap();
            assert_eq!(socket.next().await.unwrap().unwrap(), Message::binary(bytes));
        }
        // Pings and closes are between the two ends.
        socket.send(Message::Ping(b"are you there".as_slice().into())).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::Pong(b"are you there".as_slice().into()));
        socket.close(None).await.unwrap();
        assert!(socket.next().await.unwrap().unwrap().is_close());
        assert!(socket.next().await.is_none());
        let at = format!("GET /v1/namespaces/default/virtualmachineinstances/w1/{verb}");
        assert_eq!(world.handled.lock().unwrap().pop(), Some(at));
    }
    // The count falls when the relay is through, which is a moment after the client's end.
    while metrics(&world).await.contains("_active_connections{") {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn refusals_come_before_the_websocket() {
    let (path, running) = vmi("w1", "Running", json!([]));
    let (early_path, early) = vmi("w2", "Scheduled", json!([]));
    let (gone_path, gone) = vmi("gone", "Running", json!([]));
    let (mute_path, mut mute) = vmi("w3", "Running", json!([]));
    mute["spec"]["domain"]["devices"] = json!({"autoattachSerialConsole": false, "autoattachGraphicsDevice": false});
    let world = World::new(&[(&path, running), (&early_path, early), (&gone_path, gone), (&mute_path, mute)]).await;

    let (code, body) = world.ask(Method::GET, &subresource("virtualmachineinstances", "w1", "console"), b"").await;
    assert_eq!(code, 400);
    assert!(body.starts_with("Bad Request\n{"), "{body}");
    for (name, verb, code, why) in [
        ("nope", "console", 404, "virtualmachineinstance.kubevirt.io \"nope\" not found"),
        ("w2", "vnc", 409, "VMI is not running"),
        ("w3", "console", 409, "No serial consoles are present."),
        ("w3", "vnc", 409, "No graphics devices are present."),
        ("gone", "console", 409, "VMI is not running"),
    ] {
        let Err(Error::Http(answer)) = open(&world, name, verb).await else { panic!("{name}/{verb} is refused") };
        assert_eq!(answer.status(), code, "{name}/{verb}");
        if let Some(body) = answer.body().as_ref().filter(|body| !body.is_empty()) {
            let status: Value = serde_json::from_slice(body).unwrap();
            assert!(status["message"].as_str().unwrap().ends_with(why), "{status}");
        }
    }
}
