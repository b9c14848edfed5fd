//! Strict decoding of YAML and JSON into typed objects.
//!
//! Nothing in a document is dropped in silence: a field that the type does not have and a key that
//! is given twice are errors, all of them reported at once, in the words of the Kubernetes API
//! server, each with its path and, for YAML, its line and column. Decoding goes in two steps: text
//! to a tree, which finds doubled keys, and tree to type, which finds unknown fields and wrong
//! values. Null means "not given", as it does in Kubernetes.

mod document;
mod error;
mod locate;
mod object;
mod path;
mod tree;
mod typed;

pub use document::{Document, decode_documents};
pub use error::{DecodeError, Location, Problem, Wrong};
pub use locate::locate;
pub use object::{Identity, Object, SUPPORTED};
pub use path::{FieldPath, Segment};
pub(crate) use typed::decode_lenient;

use serde_json::Value;

/// Decodes the one object of a YAML text.
///
/// Text of more than one document is an error, see [`decode_documents`].
pub fn decode_yaml(text: &str) -> Result<Object, DecodeError> {
    let (value, duplicates) = tree::from_yaml(text)?;
    typed::decode(value, duplicates).map_err(|error| error.located_in(text))
}

/// Decodes the one object of a JSON text.
pub fn decode_json(text: &str) -> Result<Object, DecodeError> {
    let (value, duplicates) = tree::from_json(text)?;
    typed::decode(value, duplicates).map_err(|error| error.located_in(text))
}

/// Decodes an object that is already a tree, such as the result of a patch.
pub fn decode_value(value: Value) -> Result<Object, DecodeError> {
    typed::decode(value, Vec::new())
}
