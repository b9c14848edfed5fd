//! Who may do what.

use axum::http::Method;
use serde_json::{Value, json};

use super::world::{FRONT_PROXY, World, authority, subresource, vm};

#[tokio::test]
async fn headers_without_the_front_proxys_certificate_get_nothing() {
    let (path, object) = vm("w1", "Halted");
    let world = World::new(&[(&path, object)]).await;
    let start = subresource("virtualmachines", "w1", "start");
    let put = async |identity| world.ask_with(identity, Method::PUT, &start, b"{}").await;

    let (code, _, body) = put(None).await.unwrap();
    assert_eq!(code, 401, "{body}");
    let status: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(status["reason"], "Unauthorized");
    // A certificate of the right authority, but with another name.
    assert_eq!(put(world.front_proxy("somebody")).await.unwrap().0, 401);
    // The right name, by another authority.
    assert_eq!(put(Some(authority().certificate(FRONT_PROXY))).await, None);
    assert_eq!(world.asked(), [], "nobody was asked for anything");
    assert_eq!(world.reviews(), [] as [Value; 0]);

    assert_eq!(put(world.front_proxy(FRONT_PROXY)).await.unwrap().0, 202);
}

#[tokio::test]
async fn a_user_needs_the_right_to_the_subresource() {
    let (path, object) = vm("w1", "Halted");
    let world = World::new(&[(&path, object)]).await;
    *world.api_server.allows.lock().unwrap() = false;
    let (code, body) = world.ask(Method::PUT, &subresource("virtualmachines", "w1", "start"), b"{}").await;
    assert_eq!(code, 403);
    let status: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        status["message"],
        "virtualmachines.subresources.kubevirt.io \"w1\" is forbidden: User \"jane\" cannot update resource \
         \"virtualmachines/start\" in API group \"subresources.kubevirt.io\" in the namespace \"default\""
    );
    assert_eq!(world.asked(), [], "no object was even looked at");
    assert_eq!(
        world.reviews(),
        [json!({
            "user": "jane", "groups": ["developers"], "extra": {"team": ["blue"]},
            "resourceAttributes": {"group": "subresources.kubevirt.io", "version": "v1", "verb": "update",
                "resource": "virtualmachines", "subresource": "start", "namespace": "default", "name": "w1"},
        })]
    );
    // A right that is given counts at once, and one that is taken away does not.
    for (allowed, code) in [(true, 409), (false, 403)] {
        *world.api_server.allows.lock().unwrap() = allowed;
        let path = subresource("virtualmachines", "w1", "stop");
        assert_eq!(world.ask(Method::PUT, &path, b"").await.0, code);
    }
    let console = subresource("virtualmachineinstances", "w1", "console");
    world.ask(Method::GET, &console, b"").await;
    assert_eq!(world.reviews()[3]["resourceAttributes"]["verb"], "get");
}

#[tokio::test]
async fn what_is_no_secret_needs_nobody() {
    let version = (
        "/version",
        json!({"major": "1", "minor": "36", "gitVersion": "v1.36.3", "gitCommit": "",
        "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": "gc", "platform": "linux/amd64"}),
    );
    let world = World::new(&[version]).await;
    let group = "/apis/subresources.kubevirt.io";
    for path in ["/", "/apis", group, "/openapi/v2", "/openapi/v3", "/healthz", "/readyz", "/metrics"] {
        assert_eq!(world.ask_with(None, Method::GET, path, b"").await.unwrap().0, 200, "{path}");
    }
    for path in ["/v1", "/v1alpha3", "/v1/version", "/v1/healthz"] {
        let path = format!("{group}{path}");
        assert_eq!(world.ask_with(None, Method::GET, &path, b"").await.unwrap().0, 200, "{path}");
    }
    let (_, _, health) = world.ask_with(None, Method::GET, &format!("{group}/v1/healthz"), b"").await.unwrap();
    let health: Value = serde_json::from_str(&health).unwrap();
    assert_eq!(health["apiserver"]["connectivity"], "ok");
    assert_eq!(health["apiserver"]["version"]["gitVersion"], "v1.36.3");
    let (code, _, body) = world.ask_with(None, Method::GET, &format!("{group}/v1/nope"), b"").await.unwrap();
    assert_eq!((code, body.as_str()), (401, "unknown api endpoint: /apis/subresources.kubevirt.io/v1/nope"));
    let later = subresource("virtualmachines", "w1", "migrate");
    assert_eq!(world.ask(Method::PUT, &later, b"{}").await.0, 404);
    assert_eq!(world.ask(Method::GET, &subresource("virtualmachines", "w1", "start"), b"").await.0, 405);
}
