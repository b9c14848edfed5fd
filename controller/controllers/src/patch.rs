//! The difference of two values as a JSON merge patch (RFC 7386), so that what we do not know of an object stays.

use serde::Serialize;
use serde_json::{Map, Value, json};

/// What makes `after` of `before`; none where they are the same. Lists are replaced whole.
pub fn difference(before: &Value, after: &Value) -> Option<Value> {
    let (Value::Object(before), Value::Object(after)) = (before, after) else {
        return (before != after).then(|| after.clone());
    };
    let mut patch = Map::new();
    for (key, value) in after {
        let change = match before.get(key) {
            Some(old) => difference(old, value),
            None => Some(value.clone()),
        };
        if let Some(change) = change {
            patch.insert(key.clone(), change);
        }
    }
    for key in before.keys().filter(|key| !after.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// The difference of two objects, good only for the resourceVersion that `before` has.
pub fn guarded<K: Serialize>(before: &K, after: &K) -> serde_json::Result<Option<Value>> {
    let before = serde_json::to_value(before)?;
    let version = before["metadata"]["resourceVersion"].clone();
    Ok(difference(&before, &serde_json::to_value(after)?).map(|mut change| {
        change["metadata"]["resourceVersion"] = version;
        change
    }))
}

/// A change of the finalizers alone, good only for that resourceVersion.
pub fn finalizers(version: Option<&str>, finalizers: &[String]) -> Value {
    json!({"metadata": {"resourceVersion": version, "finalizers": finalizers}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_has_what_differs() {
        let before = json!({"a": 1, "gone": 2, "deep": {"x": 1, "y": [1, 2]}, "same": {"z": null}});
        let after = json!({"a": 1, "deep": {"x": 2, "y": [2]}, "same": {"z": null}, "new": {"n": 1}});
        let expected = json!({"gone": null, "deep": {"x": 2, "y": [2]}, "new": {"n": 1}});
        assert_eq!(difference(&before, &after), Some(expected));
        assert_eq!(difference(&before, &before), None);
    }

    #[test]
    fn a_patch_of_an_object_names_the_version_it_is_for() {
        let object = |label: &str| json!({"metadata": {"resourceVersion": "7", "labels": {"a": label}}});
        let expected = json!({"metadata": {"resourceVersion": "7", "labels": {"a": "2"}}});
        assert_eq!(guarded(&object("1"), &object("2")).unwrap(), Some(expected));
        assert_eq!(guarded(&object("1"), &object("1")).unwrap(), None);
    }
}
