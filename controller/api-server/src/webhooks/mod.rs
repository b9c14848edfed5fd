//! Webhooks: the API server asks about objects that are written.
//!
//! Anybody who reaches the port can ask, for the API server proves nothing here. So answers have no effect, with one
//! exception: an eviction may mark a VMI for evacuation (see [`eviction`]).

mod eviction;
mod kinds;
mod others;
mod review;
mod underlay;

use axum::extract::Request;
use axum::http::{Method, StatusCode};

use crate::answer::{Answer, json, method_not_allowed};
use crate::body;
use crate::path::{Admission, EVICTION, UNDERLAY_NETWORKS};
use crate::server::Server;

/// Answers a review.
pub async fn serve(server: &Server, admission: Admission, request: Request) -> Answer {
    if request.method() != Method::POST {
        return Err(method_not_allowed(request.method()));
    }
    let review = review::read(&body::read(request).await?)?;
    let verdict = match admission {
        Admission::Kind(webhook) => kinds::decide(server, webhook, &review).await,
        Admission::Eviction => eviction::decide(server, &review).await,
        Admission::UnderlayNetworks => underlay::decide(server, &review).await,
    };
    Ok(json(StatusCode::OK, &review::answer(&review, verdict)))
}

/// The name under which a webhook's answers are counted.
pub fn label(admission: Admission) -> &'static str {
    match admission {
        Admission::Kind(webhook) => webhook.path(),
        Admission::Eviction => EVICTION,
        Admission::UnderlayNetworks => UNDERLAY_NETWORKS,
    }
}
