#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::body::{Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use holdfast_ipam::leases::{Place, allocate, bind, release, sweep, unbind};
use holdfast_ipam::network::NetConf;
use serde_json::{Value, json};

use super::*;

/// What an API server does with leases: names taken once, resourceVersions compared, preconditions kept.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<(u64, BTreeMap<String, Value>)>>);

impl Server {
    fn client(&self) -> Client {
        Client::new(Router::new().fallback(answer).with_state(self.clone()), "default")
    }

    fn names(&self) -> Vec<String> {
        self.0.lock().unwrap().1.keys().cloned().collect()
    }
}

fn refuse(code: u16, reason: &str) -> Response {
    let status = json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": reason});
    (StatusCode::from_u16(code).unwrap(), Json(status)).into_response()
}

async fn answer(State(server): State<Server>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().trim_start_matches("/apis/holdfast.io/v1alpha1/").to_owned();
    let (kind, name) = path.split_once('/').unwrap_or((&path, ""));
    let body: Bytes = to_bytes(body, usize::MAX).await.unwrap();
    let body: Value = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
    let mut guard = server.0.lock().unwrap();
    let (clock, objects) = &mut *guard;
    *clock += 1;
    let key = format!("{kind}/{}", name.trim_end_matches("/status"));
    match parts.method.as_str() {
        "GET" if name.is_empty() => {
            let query = parts.uri.query().unwrap_or_default().replace("%3D", "=").replace("%2F", "/");
            let label = query.split('&').find_map(|pair| pair.strip_prefix("labelSelector="));
            let wanted = label.map(|selector| selector.split_once('=').unwrap().1.to_owned());
            let of_kind = objects.iter().filter(|(key, _)| key.starts_with(&format!("{kind}/")));
            let items: Vec<&Value> = of_kind
                .map(|(_, object)| object)
                .filter(|o| wanted.as_ref().is_none_or(|w| o["metadata"]["labels"][CLAIM_LABEL] == **w))
                .collect();
            Json(json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items})).into_response()
        }
        "GET" => match objects.get(&key) {
            Some(object) => Json(object.clone()).into_response(),
            None => refuse(404, "NotFound"),
        },
        "POST" => {
            let mut object = body;
            let key = format!("{kind}/{}", object["metadata"]["name"].as_str().unwrap());
            if objects.contains_key(&key) {
                return refuse(409, "AlreadyExists");
            }
            object["metadata"]["uid"] = json!(format!("uid-{clock}"));
            object["metadata"]["resourceVersion"] = json!(clock.to_string());
            objects.insert(key, object.clone());
            Json(object).into_response()
        }
        "PUT" => match objects.get_mut(&key) {
            Some(object) if object["metadata"]["resourceVersion"] == body["metadata"]["resourceVersion"] => {
                object["status"] = body["status"].clone();
                object["metadata"]["resourceVersion"] = json!(clock.to_string());
                Json(object.clone()).into_response()
            }
            Some(_) => refuse(409, "Conflict"),
            None => refuse(404, "NotFound"),
        },
        "DELETE" => {
            let Some(object) = objects.get(&key) else { return refuse(404, "NotFound") };
            let kept = ["uid", "resourceVersion"]
                .iter()
                .all(|field| object["metadata"][field] == body["preconditions"][field]);
            if !kept {
                return refuse(409, "Conflict");
            }
            objects.remove(&key);
            Json(json!({"kind": "Status", "status": "Success", "metadata": {}})).into_response()
        }
        other => refuse(405, other),
    }
}

fn claim(uid: &str) -> Claim {
    let text = |text: &str| text.to_owned();
    Claim {
        uid: text(uid),
        kind: text("VirtualMachine"),
        namespace: text("lab"),
        name: text(uid),
        network: text("lan"),
    }
}

fn network() -> holdfast_ipam::network::Addressing {
    let config = json!({"cniVersion": "1.1.0", "name": "lab", "segment": "lab", "type": "holdfast", "backend": "ovs", "bridge": "b", "subnets": [
        {"cidr": "192.0.2.0/24", "ranges": [{"start": "192.0.2.10", "end": "192.0.2.11"}]}]});
    NetConf::parse(&config).unwrap().addressing(None).unwrap()
}

#[tokio::test]
async fn leases_live_from_allocation_to_sweep() {
    let server = Server::default();
    let store = KubeStore::new(server.client());
    let network = network();
    let ask = async |uid: &str| {
        let request =
            holdfast_ipam::leases::Request { network: &network, claim: &claim(uid), mac: None, ips: &[], labels: &[] };
        allocate(&store, &request).await
    };
    let first = ask("a").await.unwrap();
    assert_eq!(ask("a").await.unwrap(), first, "who asks again gets what it has");
    let second = ask("b").await.unwrap();
    assert_ne!(first.addresses, second.addresses);
    let error = ask("c").await.unwrap_err();
    assert_eq!(server.names().len(), 4, "what a failed call created is gone: {error}");

    let place = Place { node: "n1".into(), pod: "p".into(), container_id: "c1".into() };
    bind(&store, "lab", &claim("a"), &place).await.unwrap();
    let held = store.held(LeaseKind::Ip, "lab", &claim("a")).await.unwrap();
    assert_eq!(held[0].status().unwrap().node.as_deref(), Some("n1"));
    unbind(&store, "lab", &claim("a"), "c1").await.unwrap();
    release(&store, "lab", &claim("a")).await.unwrap();
    assert_eq!(sweep(&store, Duration::from_secs(60)).await.unwrap(), 0);
    assert_eq!(sweep(&store, Duration::ZERO).await.unwrap(), 2);
    assert_eq!(server.names().len(), 2);
}

#[tokio::test]
async fn a_name_is_taken_once() {
    let store = KubeStore::new(Server::default().client());
    let lease = |uid: &str| {
        let spec = holdfast_api::lease::IPLeaseSpec {
            segment: "lab".into(),
            address: "192.0.2.1".parse().unwrap(),
            claim: claim(uid),
        };
        Lease::Ip(IPLease::new("lab.c0000201", spec))
    };
    store.create(lease("a")).await.unwrap();
    match store.create(lease("b")).await.unwrap_err() {
        LeaseError::Exists(present) => assert_eq!(present.claim().uid, "a"),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn who_read_an_older_lease_changes_nothing() {
    let store = KubeStore::new(Server::default().client());
    let spec = holdfast_api::lease::MACLeaseSpec {
        segment: "lab".into(),
        address: "02:00:00:00:00:01".into(),
        claim: claim("a"),
    };
    let old = store.create(Lease::Mac(MACLease::new("lab.020000000001", spec))).await.unwrap();
    store.update_status(old.clone()).await.unwrap();
    assert!(matches!(store.update_status(old.clone()).await, Err(LeaseError::Changed { .. })));
    assert!(matches!(store.delete(old.clone()).await, Err(LeaseError::Changed { .. })));
    let present = store.get(LeaseKind::Mac, old.name()).await.unwrap().unwrap();
    store.delete(present).await.unwrap();
    store.delete(old).await.unwrap();
}

#[test]
fn claims_are_labels() {
    assert_eq!(claim_label("ce40263d-d6e7-4132-bfed-b4b86f082bba"), "ce40263d-d6e7-4132-bfed-b4b86f082bba");
    assert_eq!(claim_label(&"a".repeat(64)).len(), 63);
    assert_eq!(claim_label("_a/b-"), "ab");
}
