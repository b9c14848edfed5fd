//! The HTTP of probes and metrics.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

/// What OpenMetrics text is called (OpenMetrics 1.0, "Text Format").
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// /healthz, /readyz and /metrics of a process that is ready as soon as it answers.
pub fn router(registry: Registry) -> Router {
    router_when(registry, watch::channel(true).1)
}

/// As [`router`], for a process that is ready while `ready` says so.
pub fn router_when(registry: Registry, ready: watch::Receiver<bool>) -> Router {
    let readyz = async move |State(ready): State<watch::Receiver<bool>>| {
        if *ready.borrow() { (StatusCode::OK, "ok") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready") }
    };
    Router::new()
        .route("/healthz", get(async || "ok"))
        .route("/readyz", get(readyz).with_state(ready))
        .route("/metrics", get(metrics).with_state(Arc::new(registry)))
}

async fn metrics(State(registry): State<Arc<Registry>>) -> Response {
    let mut text = String::new();
    match encode(&mut text, &registry) {
        Ok(()) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use axum::body::Body;
    use axum::extract::Request;
    use http_body_util::BodyExt;
    use hyper::service::Service;
    use hyper_util::service::TowerToHyperService;
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    async fn ask(router: &Router, path: &str) -> (u16, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let answer = TowerToHyperService::new(router.clone()).call(request).await.unwrap();
        let code = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (code, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn readiness_follows_and_metrics_are_text() {
        let mut registry = Registry::with_prefix("holdfast");
        let counter: Counter = Counter::default();
        registry.register("things", "Things", counter.clone());
        counter.inc();
        let (tell, ready) = watch::channel(false);
        let router = router_when(registry, ready);
        assert_eq!(ask(&router, "/healthz").await, (200, "ok".to_owned()));
        assert_eq!(ask(&router, "/readyz").await.0, 503);
        tell.send_replace(true);
        assert_eq!(ask(&router, "/readyz").await.0, 200);
        let (code, text) = ask(&router, "/metrics").await;
        assert_eq!(code, 200);
        assert!(text.contains("holdfast_things_total 1"), "{text}");
    }
}
