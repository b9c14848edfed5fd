//! Reading an object that the API server has not held against its schema yet.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::Review;
use crate::decode::decode_lenient;
use crate::error_status::ErrorStatus;
use crate::validate::fields_error;

/// An object as its type.
///
/// # Errors
/// A refusal of what is of a wrong type, with its path.
pub(super) fn typed<T: DeserializeOwned>(object: &Value) -> Result<T, ErrorStatus> {
    decode_lenient(object.clone()).map_err(|problems| fields_error(&problems))
}

/// The object that came, with some of its fields replaced by those of its typed form. Fields that the types do not
/// have, such as metadata that only the API server knows, stay.
pub(super) fn with_fields(review: &Review, fields: &[(&str, Value)]) -> Value {
    let mut object = review.object.clone();
    for (name, value) in fields {
        set(&mut object, name, value.clone());
    }
    object
}

/// Sets a field of an object; null takes it away.
pub(super) fn set(object: &mut Value, name: &str, value: Value) {
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let Value::Object(fields) = object else { return };
    match value {
        Value::Null => fields.remove(name),
        value => fields.insert(name.to_owned(), value),
    };
}
