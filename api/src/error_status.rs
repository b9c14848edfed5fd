//! A refusal as the API answers it: `metav1.Status` with code, reason, message and causes.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ListMeta, Status, StatusCause, StatusDetails};
use thiserror::Error;

/// The API group of VMs and VMIs, as errors name it.
const GROUP: &str = "kubevirt.io";

/// Why a request was refused. Displayed as its message.
#[derive(Debug, Clone, PartialEq, Error)]
#[error("{message}")]
pub struct ErrorStatus {
    /// The HTTP status code.
    pub code: i32,
    /// The word for programs; webhooks that fail to read an object give none.
    pub reason: Option<String>,
    /// The sentence for people.
    pub message: String,
    /// Group, kind and name of the object, or the causes.
    pub details: Option<Box<StatusDetails>>,
}

impl ErrorStatus {
    /// 404: there is no such object.
    pub fn not_found(kind: &str, name: &str) -> Self {
        let message = format!("{kind}.{GROUP} \"{name}\" not found");
        Self::of_object(404, "NotFound", kind, name, message)
    }

    /// 409: the object's state does not allow it.
    pub fn conflict(kind: &str, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {kind}.{GROUP} \"{name}\": {why}");
        Self::of_object(409, "Conflict", kind, name, message)
    }

    /// 403: it is never allowed for this object.
    pub fn forbidden(kind: &str, name: &str, why: &str) -> Self {
        let message = format!("{kind}.{GROUP} \"{name}\" is forbidden: {why}");
        Self::of_object(403, "Forbidden", kind, name, message)
    }

    /// 400: the request itself is wrong.
    pub fn bad_request(why: &str) -> Self {
        Self { code: 400, reason: Some("BadRequest".to_owned()), message: why.to_owned(), details: None }
    }

    /// 500.
    pub fn internal(why: &str) -> Self {
        Self {
            code: 500,
            reason: Some("InternalError".to_owned()),
            message: format!("Internal error occurred: {why}"),
            details: Some(Box::new(StatusDetails {
                causes: Some(vec![StatusCause { message: Some(why.to_owned()), ..StatusCause::default() }]),
                ..StatusDetails::default()
            })),
        }
    }

    /// 422 for what is wrong with fields, each cause with its own sentence.
    pub fn invalid(causes: Vec<StatusCause>) -> Self {
        let messages: Vec<&str> = causes.iter().filter_map(|cause| cause.message.as_deref()).collect();
        Self {
            code: 422,
            reason: Some("Invalid".to_owned()),
            message: messages.join(", "),
            details: Some(Box::new(StatusDetails { causes: Some(causes), ..StatusDetails::default() })),
        }
    }

    /// 400 without a reason: how a webhook says that it cannot do its work.
    pub fn unreadable(why: impl Into<String>) -> Self {
        Self { code: 400, reason: None, message: why.into(), details: None }
    }

    /// The refusal as a client sees it when a webhook of this name gave it.
    #[must_use]
    pub fn denied_by(mut self, webhook: &str) -> Self {
        self.message = format!("admission webhook \"{webhook}\" denied the request: {}", self.message);
        self
    }

    fn of_object(code: i32, reason: &str, kind: &str, name: &str, message: String) -> Self {
        Self {
            code,
            reason: Some(reason.to_owned()),
            message,
            details: Some(Box::new(StatusDetails {
                group: Some(GROUP.to_owned()),
                kind: Some(kind.to_owned()),
                name: Some(name.to_owned()),
                ..StatusDetails::default()
            })),
        }
    }

    /// The causes, where there are any.
    pub fn causes(&self) -> &[StatusCause] {
        self.details.as_ref().and_then(|details| details.causes.as_deref()).unwrap_or_default()
    }

    /// The body of the answer.
    pub fn to_status(&self) -> Status {
        Status {
            code: Some(self.code),
            details: self.details.as_deref().cloned(),
            message: Some(self.message.clone()),
            metadata: ListMeta::default(),
            reason: self.reason.clone(),
            status: Some("Failure".to_owned()),
        }
    }
}
