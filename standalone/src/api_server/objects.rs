//! Reading and deleting objects, and reading events.

use axum::http::StatusCode;
use axum::response::Response;
use holdfast_api::underlay::UnderlayNetwork;
use holdfast_ipam::leases::{Lease, LeaseKind, usage};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use serde_json::{Value, json as value};

use super::answer::{Answer, forbidden, internal, json, kind_not_found, warn};
use crate::host::{Host, chain};
use crate::manifests::{MANIFEST_ANNOTATION, remove_document};
use crate::store::{Key, Kind};

/// A list of objects. What is wrong with files of the manifests folder comes as warnings with it.
pub async fn list(host: &Host, kind: Kind, namespace: Option<&str>) -> Answer {
    let mut items = Vec::new();
    for object in host.store.list(kind, namespace) {
        items.push(shown(host, kind, &object).await?);
    }
    let revision = host.store.revision().to_string();
    Ok(with_warnings(host, &list_of(&kind.api_version(), kind.name(), &revision, items)))
}

/// A list as the API server makes one.
pub fn list_of(api_version: &str, kind: &str, revision: &str, items: Vec<Value>) -> Value {
    value!({
        "apiVersion": api_version,
        "kind": format!("{kind}List"),
        "metadata": { "resourceVersion": revision },
        "items": items,
    })
}

fn with_warnings(host: &Host, body: &Value) -> Response {
    let mut response = json(StatusCode::OK, body);
    host.file_errors.lines().iter().for_each(|line| warn(&mut response, line));
    response
}

/// One object.
pub async fn get(host: &Host, key: &Key) -> Answer {
    let object = host.store.get(key).ok_or_else(|| kind_not_found(key.kind, &key.name))?;
    Ok(json(StatusCode::OK, &shown(host, key.kind, &object).await?))
}

/// An object as it is shown: that of a network with the use of its addresses, which is counted when asked for.
async fn shown(host: &Host, kind: Kind, object: &Value) -> Result<Value, Box<Status>> {
    let mut object = object.clone();
    if kind == Kind::UnderlayNetwork
        && let Ok(mut network) = serde_json::from_value::<UnderlayNetwork>(object.clone())
    {
        let leases = host.leases.list(LeaseKind::Ip).await.map_err(|error| internal(&chain(&error)))?;
        let held = leases.iter().filter_map(|lease| match lease {
            Lease::Ip(lease) => Some((lease.spec.segment.as_str(), lease.spec.address)),
            Lease::Mac(_) => None,
        });
        let networks = host.store.keys(kind);
        let networks: Vec<UnderlayNetwork> = networks.iter().filter_map(|key| host.store.read("", &key.name)).collect();
        let used = usage(&network, &networks.iter().collect::<Vec<_>>(), held);
        network.status.get_or_insert_default().addresses = Some(used);
        object = serde_json::to_value(network).map_err(|error| internal(&error.to_string()))?;
    }
    Ok(object)
}

/// Deletes an object, and its document before, for otherwise it would come again.
pub fn delete(host: &Host, key: &Key) -> Answer {
    let object = host.store.get(key).ok_or_else(|| kind_not_found(key.kind, &key.name))?;
    if let Some(file) = object["metadata"]["annotations"][MANIFEST_ANNOTATION].as_str() {
        let removed = tokio::task::block_in_place(|| remove_document(&host.manifests, file, key));
        removed.map_err(|error| forbidden(chain(&error)))?;
    }
    let deleted = tokio::task::block_in_place(|| host.store.delete(key));
    deleted.map_err(|error| internal(&chain(&error)))?;
    let details = value!({
        "name": key.name,
        "group": key.kind.group(),
        "kind": key.kind.plural(),
        "uid": object["metadata"]["uid"],
    });
    let status = value!({
        "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Success", "details": details,
    });
    Ok(json(StatusCode::OK, &status))
}

/// Events, those that fit `fieldSelector` of the query.
pub fn events(host: &Host, namespace: Option<&str>, query: &str) -> Response {
    let selector = query.split('&').find_map(|pair| pair.strip_prefix("fieldSelector=")).unwrap_or_default();
    let selector = selector.replace("%2C", ",").replace("%3D", "=").replace("%2c", ",").replace("%3d", "=");
    let wanted: Vec<(&str, &str)> = selector.split(',').filter_map(|term| term.split_once('=')).collect();
    let items: Vec<Value> = host
        .events
        .list(namespace)
        .iter()
        .filter_map(|event| serde_json::to_value(event).ok())
        .filter(|event| {
            wanted.iter().all(|(field, text)| {
                let pointer = format!("/{}", field.replace('.', "/"));
                event.pointer(&pointer).and_then(Value::as_str) == Some(text.trim_start_matches('='))
            })
        })
        .collect();
    json(StatusCode::OK, &list_of("v1", "Event", &host.store.revision().to_string(), items))
}
