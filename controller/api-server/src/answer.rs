//! Answers, and the forms in which something is refused.

use axum::body::Body;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use holdfast_api::error_status::ErrorStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ListMeta, Status, StatusDetails};
use serde::Serialize;

/// An answer, or why there is none.
pub type Answer = Result<Response, Refusal>;

/// Why something is refused.
#[derive(Debug, Clone, PartialEq)]
pub enum Refusal {
    /// With a Status, as Kubernetes does.
    Status(Box<Status>),
    /// With a text alone, where clients know it so.
    Text(StatusCode, String),
}

impl From<ErrorStatus> for Refusal {
    fn from(error: ErrorStatus) -> Self {
        Self::Status(Box::new(error.to_status()))
    }
}

impl Refusal {
    /// Its code.
    pub fn code(&self) -> StatusCode {
        match self {
            Self::Status(status) => status
                .code
                .and_then(|code| u16::try_from(code).ok())
                .and_then(|code| StatusCode::from_u16(code).ok())
                .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            Self::Text(code, _) => *code,
        }
    }

    /// Its message.
    pub fn message(&self) -> &str {
        match self {
            Self::Status(status) => status.message.as_deref().unwrap_or_default(),
            Self::Text(_, message) => message,
        }
    }

    /// The same as a text alone, with a code of its own.
    pub fn into_text(self, code: StatusCode) -> Self {
        Self::Text(code, self.message().to_owned())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let code = self.code();
        match self {
            Self::Status(status) => json(code, &status),
            Self::Text(_, message) => (code, message).into_response(),
        }
    }
}

/// An answer in JSON.
pub fn json(code: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => raw_json(code, body.into()),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// An answer that is JSON already.
pub fn raw_json(code: StatusCode, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An answer without a body.
pub fn empty(code: StatusCode) -> Response {
    code.into_response()
}

/// 500, with what went wrong.
pub fn internal(why: &str) -> Refusal {
    ErrorStatus::internal(why).into()
}

/// 401: we do not know who asks.
pub fn unauthorized() -> Refusal {
    status(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized".to_owned(), None)
}

/// 403, for a user on a resource of the group.
pub fn forbidden(message: String, details: StatusDetails) -> Refusal {
    status(StatusCode::FORBIDDEN, "Forbidden", message, Some(details))
}

/// 404 for a path.
pub fn no_such_path() -> Refusal {
    let message = "the server could not find the requested resource".to_owned();
    status(StatusCode::NOT_FOUND, "NotFound", message, Some(StatusDetails::default()))
}

/// 405.
pub fn method_not_allowed(method: &Method) -> Refusal {
    let message = format!("{method} is not supported here");
    status(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message, None)
}

/// 413.
pub fn too_large(limit: usize) -> Refusal {
    let message = format!("Request entity too large: limit is {limit}");
    status(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message, None)
}

/// 408.
pub fn too_slow() -> Refusal {
    let message = "the body of the request did not come in time".to_owned();
    status(StatusCode::REQUEST_TIMEOUT, "Timeout", message, None)
}

/// 503.
pub fn overloaded() -> Refusal {
    let message = "too many requests at a time".to_owned();
    status(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message, None)
}

fn status(code: StatusCode, reason: &str, message: String, details: Option<StatusDetails>) -> Refusal {
    Refusal::Status(Box::new(Status {
        code: Some(code.as_u16().into()),
        details,
        message: Some(message),
        metadata: ListMeta::default(),
        reason: Some(reason.to_owned()),
        status: Some("Failure".to_owned()),
    }))
}
