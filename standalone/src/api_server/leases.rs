//! Reading leases.

use axum::http::StatusCode;
use holdfast_ipam::leases::{Lease, LeaseKind};
use serde_json::Value;

use super::answer::{Answer, internal, json, not_found};
use super::objects::list_of;
use crate::host::{Host, chain};

/// All leases of a kind, or one.
pub async fn get(host: &Host, kind: LeaseKind, name: Option<&str>) -> Answer {
    let failed = |error: &dyn std::error::Error| internal(&chain(error));
    match name {
        Some(name) => {
            let lease = host.leases.get(kind, name).await.map_err(|error| failed(&error))?;
            let lease = lease.ok_or_else(|| not_found(kind.plural(), "holdfast.io", name))?;
            Ok(json(StatusCode::OK, &value_of(&lease)))
        }
        None => {
            let leases = host.leases.list(kind).await.map_err(|error| failed(&error))?;
            let items = leases.iter().map(value_of).collect();
            let revision = host.store.revision().to_string();
            Ok(json(StatusCode::OK, &list_of("holdfast.io/v1alpha1", &kind.to_string(), &revision, items)))
        }
    }
}

fn value_of(lease: &Lease) -> Value {
    let value = match lease {
        Lease::Ip(lease) => serde_json::to_value(lease),
        Lease::Mac(lease) => serde_json::to_value(lease),
    };
    value.unwrap_or(Value::Null)
}
