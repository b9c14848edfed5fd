//! Answers: JSON, empty ones, and metav1.Status for what is refused.

use axum::body::Body;
use axum::http::{Method, StatusCode, header};
use axum::response::Response;
use holdfast_api::error_status::ErrorStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Status, StatusDetails};
use serde::Serialize;

use crate::store::Kind;

/// An answer, or the status that refuses it.
pub type Answer = Result<Response, Box<Status>>;

fn build(code: StatusCode, content_type: &str, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    if let Ok(value) = content_type.parse() {
        response.headers_mut().insert(header::CONTENT_TYPE, value);
    }
    response
}

/// A JSON body.
pub fn json<T: Serialize>(code: StatusCode, body: &T) -> Response {
    match serde_json::to_vec(body) {
        Ok(body) => build(code, "application/json", body.into()),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// A text body.
pub fn text(code: StatusCode, body: &str) -> Response {
    build(code, "text/plain", Body::from(body.to_owned()))
}

/// No body.
pub fn empty(code: StatusCode) -> Response {
    build(code, "text/plain", Body::empty())
}

/// The answer to what is refused.
pub fn refuse(status: &Status) -> Response {
    let code = status.code.and_then(|code| u16::try_from(code).ok()).and_then(|code| StatusCode::from_u16(code).ok());
    json(code.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), status)
}

/// A refusal by the API's rules.
pub fn refused(error: &ErrorStatus) -> Box<Status> {
    Box::new(error.to_status())
}

/// Adds a warning that clients show (RFC 7234, section 5.5, as Kubernetes uses it).
pub fn warn(response: &mut Response, text: &str) {
    let plain: String = text.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect();
    let quoted = plain.replace('\\', "\\\\").replace('"', "\\\"");
    if let Ok(value) = format!("299 - \"{quoted}\"").parse() {
        response.headers_mut().append(header::WARNING, value);
    }
}

fn status(code: i32, reason: &str, message: String, details: Option<StatusDetails>) -> Box<Status> {
    Box::new(Status {
        code: Some(code),
        reason: Some(reason.to_owned()),
        message: Some(message),
        status: Some("Failure".to_owned()),
        details,
        ..Default::default()
    })
}

/// 404 for an object, in the API server's words.
pub fn not_found(plural: &str, group: &str, name: &str) -> Box<Status> {
    let resource = if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") };
    let details = StatusDetails {
        name: Some(name.to_owned()),
        group: Some(group.to_owned()).filter(|g| !g.is_empty()),
        kind: Some(plural.to_owned()),
        ..Default::default()
    };
    status(404, "NotFound", format!("{resource} \"{name}\" not found"), Some(details))
}

/// 404 for an object of a kind.
pub fn kind_not_found(kind: Kind, name: &str) -> Box<Status> {
    not_found(kind.plural(), kind.group(), name)
}

/// 404 for a path.
pub fn no_such_path(path: &str) -> Box<Status> {
    status(404, "NotFound", format!("the server could not find the requested resource `{path}`"), None)
}

/// 405.
pub fn method_not_allowed(method: &Method, path: &str) -> Box<Status> {
    let message = format!(
        "{method} of `{path}` is not served: objects are made and changed by the files of the manifests folder"
    );
    status(405, "MethodNotAllowed", message, None)
}

/// 403 for what the host does not let us do.
pub fn forbidden(message: String) -> Box<Status> {
    status(403, "Forbidden", message, None)
}

/// 500.
pub fn internal(message: &str) -> Box<Status> {
    refused(&ErrorStatus::internal(message))
}
