//! Reading objects as they come, by JSON pointers.

use jiff::Timestamp;
use serde_json::Value;

use crate::age::age;

/// The text at a pointer; empty where there is none.
pub fn text(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// The items of the list at a pointer.
pub fn items<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

/// The texts of the list at a pointer, in one line.
pub fn list(value: &Value, pointer: &str) -> String {
    items(value, pointer).filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
}

/// The map at a pointer, one `key<sign>value` each line; `<none>` where there is none.
pub fn map(value: &Value, pointer: &str, sign: &str) -> String {
    let map = value.pointer(pointer).and_then(Value::as_object).filter(|map| !map.is_empty());
    let lines = map.map(|map| {
        let line = |(key, value): (&String, &Value)| {
            format!("{key}{sign}{}", value.as_str().unwrap_or_default().replace('\n', " "))
        };
        map.iter().map(line).collect::<Vec<_>>().join("\n")
    });
    lines.unwrap_or_else(|| "<none>".to_owned())
}

/// How long ago the time at a pointer was; empty where there is none.
pub fn since(value: &Value, pointer: &str, now: Timestamp) -> String {
    match text(value, pointer).as_str() {
        "" => String::new(),
        time => age(time, now),
    }
}
