//! Reading an UnderlayNetwork that may not be one, with what is wrong told as [`super::problems`] tells it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause;
use serde_json::Value;

use super::UnderlayNetwork;
use crate::decode::{Problem, Wrong, decode_lenient};

/// An object as an UnderlayNetwork.
///
/// # Errors
/// The fields that lack or hold what they cannot.
pub fn read(object: &Value) -> Result<UnderlayNetwork, Vec<StatusCause>> {
    decode_lenient(object.clone()).map_err(|problems| problems.iter().map(|problem| cause(problem, object)).collect())
}

fn cause(problem: &Problem, object: &Value) -> StatusCause {
    let (message, reason) = match &problem.wrong {
        Wrong::Missing => ("is required".to_owned(), "FieldValueRequired"),
        Wrong::Type { expected, found } => {
            (format!("is of type {found}, and must be {expected}"), "FieldValueTypeInvalid")
        }
        Wrong::Value(why) => match problem.path.find(object).and_then(Value::as_str) {
            Some(value) if !why.contains(value) => (format!("`{value}`: {why}"), "FieldValueInvalid"),
            _ => (why.clone(), "FieldValueInvalid"),
        },
        Wrong::Unknown | Wrong::Duplicate => (problem.to_string(), "FieldValueInvalid"),
    };
    let field = Some(problem.path.to_string());
    StatusCause { field, message: Some(message), reason: Some(reason.to_owned()) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_cannot_be_read_is_told_by_field() {
        for (spec, field, message) in [
            (json!({"backend": "ovs", "subnets": [{"cidr": "10.1.0.0/33"}]}), "spec.subnets[0].cidr", "10.1.0.0/33"),
            (
                json!({"backend": "ovs", "subnets": [{"cidr": "10.1.0.0/24", "gateway": "ten"}]}),
                "spec.subnets[0].gateway",
                "`ten`: ",
            ),
            (json!({"backend": "ovs", "mtu": "big"}), "spec.mtu", "is of type string, and must be integer"),
            (json!({"bridge": "b"}), "spec.backend", "is required"),
        ] {
            let object = json!({"apiVersion": "holdfast.io/v1alpha1", "kind": "UnderlayNetwork",
                "metadata": {"name": "lan"}, "spec": spec});
            let causes = read(&object).unwrap_err();
            assert_eq!(causes[0].field.as_deref(), Some(field));
            assert!(causes[0].message.as_ref().unwrap().contains(message), "{causes:?}");
        }
    }
}
