//! Bodies of requests, within bounds.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::Request;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::time::timeout;

use crate::answer::{Refusal, internal, too_large, too_slow};

/// The largest body: twice the largest object that etcd takes, for a review has an object's old and new state.
const LIMIT: usize = 3 << 20;
const DEADLINE: Duration = Duration::from_secs(10);

/// Reads a whole body.
pub async fn read(request: Request) -> Result<Bytes, Refusal> {
    let body = Limited::new(request.into_body(), LIMIT).collect();
    match timeout(DEADLINE, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(LIMIT)),
        Ok(Err(error)) => Err(internal(&format!("failed to read the body: {error}"))),
        Err(_) => Err(too_slow()),
    }
}
