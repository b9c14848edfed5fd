//! Tree to type: unknown fields, missing ones, and values that do not fit.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::{DecodeError, Problem, Wrong};
use super::object::{Object, SUPPORTED};
use super::path::{FieldPath, Segment};

/// Decodes a tree as the kind that it says it is. `duplicates` are reported with what else is wrong.
pub(super) fn decode(value: Value, duplicates: Vec<FieldPath>) -> Result<Object, DecodeError> {
    let api_version = text(&value, "apiVersion")?.to_owned();
    let kind = text(&value, "kind")?.to_owned();
    if !SUPPORTED.contains(&(api_version.as_str(), kind.as_str())) {
        return Err(DecodeError::Unsupported { api_version, kind });
    }
    let result = match kind.as_str() {
        "VirtualMachine" => read(value, duplicates).map(Object::VirtualMachine),
        "VirtualMachineInstance" => read(value, duplicates).map(Object::VirtualMachineInstance),
        "NetworkAttachmentDefinition" => read(value, duplicates).map(Object::NetworkAttachmentDefinition),
        "UnderlayNetwork" => read(value, duplicates).map(Object::UnderlayNetwork),
        "ConfigMap" => read(value, duplicates).map(Object::ConfigMap),
        _ => read(value, duplicates).map(Object::Secret).map_err(without_values),
    };
    result.map_err(|problems| DecodeError::Fields {
        version: api_version.rsplit('/').next().unwrap_or_default().to_owned(),
        kind,
        problems,
    })
}

fn text<'a>(value: &'a Value, field: &'static str) -> Result<&'a str, DecodeError> {
    let found = value.get(field).unwrap_or(&Value::Null);
    found.as_str().ok_or(DecodeError::NotAnObject {
        field,
        found: match found {
            Value::Null => "not there",
            _ => type_of(found),
        },
    })
}

fn read<T: DeserializeOwned>(mut value: Value, duplicates: Vec<FieldPath>) -> Result<Box<T>, Vec<Problem>> {
    // The kind decided which type this is; the types have no fields for these two.
    if let Some(object) = value.as_object_mut() {
        object.remove("apiVersion");
        object.remove("kind");
    }
    loop {
        let mut unknown = Vec::new();
        let mut note = |path: serde_ignored::Path<'_>| unknown.push(FieldPath::of_ignored(&path));
        let ignored = serde_ignored::Deserializer::new(&value, &mut note);
        let result: Result<T, _> = serde_path_to_error::deserialize(ignored);
        let failure = match result {
            Ok(object) if unknown.is_empty() && duplicates.is_empty() => {
                return Ok(Box::new(object));
            }
            Ok(_) => None,
            Err(error) => {
                let path = FieldPath::of_error(error.path());
                if remove_null(&mut value, &path) {
                    continue;
                }
                Some(problem(path, &error.into_inner().to_string(), &value))
            }
        };
        let strict = |wrong: Wrong| move |path| Problem { path, wrong: wrong.clone(), location: None };
        return Err(unknown
            .into_iter()
            .map(strict(Wrong::Unknown))
            .chain(duplicates.into_iter().map(strict(Wrong::Duplicate)))
            .chain(failure)
            .collect());
    }
}

/// Objects that have no empty form: without one, the field is missing.
const NEVER_EMPTY: [&str; 2] = ["template", "virtiofs"];

/// Decodes a tree as KubeVirt's webhooks do: unknown fields are passed over, and required fields that are left out
/// are empty or 0.
pub(crate) fn decode_lenient<T: DeserializeOwned>(mut value: Value) -> Result<T, Vec<Problem>> {
    // Fields that were missing: null is put there, which the type then refuses by saying what it expects.
    let mut filled: Vec<FieldPath> = Vec::new();
    loop {
        let error = match serde_path_to_error::deserialize::<_, T>(&value) {
            Ok(object) => return Ok(object),
            Err(error) => error,
        };
        let path = FieldPath::of_error(error.path());
        let message = error.into_inner().to_string();
        let problem = problem(path.clone(), &message, &value);
        match &problem.wrong {
            Wrong::Missing if !filled.contains(&problem.path) => {
                place(&mut value, &problem.path, Value::Null);
                filled.push(problem.path);
            }
            Wrong::Type { expected, found: "null" } if filled.contains(&path) => {
                let Some(empty) = empty(expected, &path) else {
                    return Err(vec![Problem { path, wrong: Wrong::Missing, location: None }]);
                };
                place(&mut value, &path, empty);
            }
            _ if remove_null(&mut value, &path) => {}
            _ => return Err(vec![problem]),
        }
    }
}

/// What a required field of a type is where it is left out.
fn empty(expected: &str, path: &FieldPath) -> Option<Value> {
    let never = |name: &String| NEVER_EMPTY.contains(&name.as_str());
    match expected {
        "string" => Some(Value::String(String::new())),
        "integer" | "number" => Some(Value::from(0)),
        "boolean" => Some(Value::Bool(false)),
        "object" if !matches!(path.0.last(), Some(Segment::Field(name)) if never(name)) => {
            Some(Value::Object(serde_json::Map::new()))
        }
        _ => None,
    }
}

/// Puts a value into the object that a path leads to.
fn place(tree: &mut Value, path: &FieldPath, value: Value) {
    let Some((Segment::Field(name), parents)) = path.0.split_last() else { return };
    let parent = parents.iter().try_fold(tree, |tree, segment| match segment {
        Segment::Field(name) => tree.get_mut(name),
        Segment::Index(index) => tree.get_mut(index),
    });
    if let Some(object) = parent.and_then(Value::as_object_mut) {
        object.insert(name.clone(), value);
    }
}

/// Takes a field that is null out of its object, for types that have no null. True if it did.
fn remove_null(value: &mut Value, path: &FieldPath) -> bool {
    let Some((Segment::Field(name), parents)) = path.0.split_last() else {
        return false;
    };
    let parent = parents.iter().try_fold(value, |value, segment| match segment {
        Segment::Field(name) => value.get_mut(name),
        Segment::Index(index) => value.get_mut(index),
    });
    match parent.and_then(Value::as_object_mut) {
        Some(object) if object.get(name).is_some_and(Value::is_null) => object.remove(name).is_some(),
        _ => false,
    }
}

/// Tells what serde says in the words of the API server.
fn problem(path: FieldPath, message: &str, tree: &Value) -> Problem {
    let missing = message.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`'));
    if let Some(name) = missing {
        return Problem { path: path.field(name), wrong: Wrong::Missing, location: None };
    }
    let expected = message
        .starts_with("invalid type: ")
        .then(|| message.rsplit_once(", expected "))
        .flatten()
        .and_then(|(_, expected)| schema_type(expected));
    let wrong = match (expected, path.find(tree)) {
        (Some(expected), Some(found)) => Wrong::Type { expected, found: type_of(found) },
        _ => Wrong::Value(message.to_owned()),
    };
    Problem { path, wrong, location: None }
}

/// JSON schema's name for what a serde visitor expects.
fn schema_type(expected: &str) -> Option<&'static str> {
    Some(match expected {
        "a boolean" => "boolean",
        "a string" | "a base64-encoded string" | "Quantity" | "IP address" => "string",
        "i8" | "i16" | "i32" | "i64" | "u8" | "u16" | "u32" | "u64" => "integer",
        "f32" | "f64" => "number",
        "a sequence" => "array",
        "a map" => "object",
        _ if expected.starts_with("struct ") => "object",
        // The visitors of k8s-openapi give nothing but the name of the type.
        _ if expected.starts_with(|c: char| c.is_ascii_uppercase()) => "object",
        _ => return None,
    })
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Takes the texts out of problems that may quote a secret.
fn without_values(mut problems: Vec<Problem>) -> Vec<Problem> {
    for problem in &mut problems {
        if let Wrong::Value(message) = &mut problem.wrong {
            *message = "the value is not valid here (it is secret, so not shown); `data` holds base64, `stringData` plain text".to_owned();
        }
    }
    problems
}
