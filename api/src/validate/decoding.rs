//! The API's answer to an object that cannot be decoded.

use super::schema::schema_error;
use super::{VM_WEBHOOKS, VMI_WEBHOOKS};
use crate::decode::{DecodeError, Wrong};
use crate::error_status::ErrorStatus;

/// The refusal of a VM or VMI that could not be decoded, as the API server gives it: fields that
/// are unknown or given twice are a bad request; fields that lack or have a wrong type are invalid.
pub fn decoding_error(error: &DecodeError) -> ErrorStatus {
    let DecodeError::Fields { kind, problems, .. } = error else {
        return ErrorStatus::bad_request(&error.to_string());
    };
    if problems.iter().any(|problem| matches!(problem.wrong, Wrong::Unknown | Wrong::Duplicate)) {
        return ErrorStatus::bad_request(&error.to_string());
    }
    let webhooks = if kind == "VirtualMachine" { VM_WEBHOOKS } else { VMI_WEBHOOKS };
    schema_error(webhooks.mutator, problems.iter().map(ToString::to_string).collect())
}
