//! /healthz, /metrics, /debug/attachments.

use std::io;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;

use crate::agent::HttpAddress;
use crate::context::Context;
use crate::metrics::LeaseLabels;
use crate::registry::Registry;
use holdfast_ipam::leases::{self, LeaseError, LeaseKind};

/// What OpenMetrics text is called (OpenMetrics 1.0, "Text Format").
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone)]
struct Serving {
    context: Context,
    registry: Registry,
}

/// A bound address.
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Binds `address`.
pub(crate) async fn bind(address: &HttpAddress) -> io::Result<Listener> {
    match address {
        HttpAddress::Tcp(address) => Ok(Listener::Tcp(TcpListener::bind(address).await?)),
        HttpAddress::Unix(path) => crate::agent::bind_socket(path).map(Listener::Unix),
    }
}

/// Answers until `stop`.
pub(crate) async fn serve(context: Context, registry: Registry, listener: Listener, stop: CancellationToken) {
    let router = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/metrics", get(metrics))
        .route("/debug/attachments", get(attachments))
        .with_state(Serving { context, registry });
    let stopped = stop.cancelled_owned();
    let result = match listener {
        Listener::Tcp(listener) => axum::serve(listener, router).with_graceful_shutdown(stopped).await,
        Listener::Unix(listener) => axum::serve(listener, router).with_graceful_shutdown(stopped).await,
    };
    if let Err(error) = result {
        tracing::error!(%error, "HTTP has ended");
    }
}

async fn metrics(State(Serving { context, registry }): State<Serving>) -> Response {
    match metrics_text(&context, &registry).await {
        Ok(text) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error).into_response(),
    }
}

/// All metrics. Where the store of leases does not answer, it is the leases that are not counted anew.
pub(crate) async fn metrics_text(context: &Context, registry: &Registry) -> Result<String, String> {
    context.metrics.attachments.set(i64::try_from(registry.len()).unwrap_or(i64::MAX));
    if let Err(error) = count_leases(context).await {
        tracing::warn!(error = crate::chain(&error), "failed to count the leases");
    }
    context.metrics.text().map_err(|error| error.to_string())
}

async fn count_leases(context: &Context) -> Result<(), LeaseError> {
    for kind in [LeaseKind::Ip, LeaseKind::Mac] {
        let leases = context.leases.list(kind).await?;
        let quarantined = leases.iter().filter(|lease| leases::is_quarantined(lease)).count();
        for (state, count) in [("held", leases.len() - quarantined), ("quarantined", quarantined)] {
            let labels = LeaseLabels { kind: kind.plural(), state };
            context.metrics.leases.get_or_create(&labels).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
    Ok(())
}

/// Each attachment: what is written down, what would have to be done now, what the last comparison came to.
async fn attachments(State(Serving { context, registry }): State<Serving>) -> axum::Json<Value> {
    let mut all = Vec::new();
    for entry in registry.entries() {
        let plan = match context.wiring.plan(&context.desired(&entry.record)).await {
            Ok(plan) => json!(plan.ops.iter().map(ToString::to_string).collect::<Vec<_>>()),
            Err(error) => json!({"error": crate::chain(&error)}),
        };
        all.push(json!({"record": entry.record, "answered": entry.answered, "last": entry.last, "plan": plan}));
    }
    axum::Json(Value::Array(all))
}
