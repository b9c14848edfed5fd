//! The API's answer to an object that cannot be decoded.

use super::schema::schema_error;
use super::{VM_MUTATOR, VMI_MUTATOR};
use crate::decode::{DecodeError, Problem, Wrong};
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
    fields_error(problems).denied_by(if kind == "VirtualMachine" { VM_MUTATOR } else { VMI_MUTATOR })
}

/// The refusal of fields that lack or have a wrong type.
pub(crate) fn fields_error(problems: &[Problem]) -> ErrorStatus {
    schema_error(problems.iter().map(ToString::to_string).collect())
}
