//! Strategic merge patches: as JSON merge patches, but lists of things that have names are merged by these names.

use serde_json::{Map, Value};

/// Lists that are merged, and by which field. Lists that are not here are replaced.
const KEYS: &[(&str, &str)] = &[
    ("containers", "name"),
    ("initContainers", "name"),
    ("volumes", "name"),
    ("env", "name"),
    ("imagePullSecrets", "name"),
    ("webhooks", "name"),
    ("volumeMounts", "mountPath"),
    ("volumeDevices", "devicePath"),
    ("hostAliases", "ip"),
    ("topologySpreadConstraints", "topologyKey"),
];

/// Lists called `ports` are merged by one field in containers and by another one in services.
const PORTS: [&str; 2] = ["containerPort", "port"];

/// Changes `object` as `patch` says.
pub(super) fn merge(object: &mut Value, patch: Value) {
    let Value::Object(mut patch) = patch else {
        *object = patch;
        return;
    };
    if patch.remove("$patch").as_ref().and_then(Value::as_str) == Some("replace") {
        *object = Value::Object(patch);
        return;
    }
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let Some(fields) = object.as_object_mut() else { return };
    if let Some(Value::Array(kept)) = patch.remove("$retainKeys") {
        fields.retain(|name, _| kept.iter().any(|key| key == name));
    }
    for (name, value) in patch {
        if let Some(list) = name.strip_prefix("$deleteFromPrimitiveList/") {
            if let (Some(Value::Array(items)), Value::Array(gone)) = (fields.get_mut(list), &value) {
                items.retain(|item| !gone.contains(item));
            }
        } else if name.starts_with("$setElementOrder/") {
            // The order of lists that are merged by name says nothing in any kind that is installed here.
        } else if value.is_null() || is_deletion(&value) {
            fields.remove(&name);
        } else {
            let field = fields.entry(name.clone()).or_insert(Value::Null);
            match (field, value, key_of(&name)) {
                (Value::Array(items), Value::Array(changes), Some(keys)) => merge_list(items, changes, keys),
                (field, Value::Array(changes), Some(keys)) => {
                    let mut items = Vec::new();
                    merge_list(&mut items, changes, keys);
                    *field = Value::Array(items);
                }
                (field, value, _) => merge(field, value),
            }
        }
    }
}

fn is_deletion(value: &Value) -> bool {
    value.get("$patch").and_then(Value::as_str) == Some("delete")
}

fn key_of(list: &str) -> Option<&'static [&'static str]> {
    if list == "ports" {
        return Some(&PORTS);
    }
    KEYS.iter().find(|(name, _)| *name == list).map(|(_, key)| std::slice::from_ref(key))
}

fn merge_list(items: &mut Vec<Value>, changes: Vec<Value>, keys: &[&str]) {
    if changes.iter().any(|change| change.get("$patch").and_then(Value::as_str) == Some("replace")) {
        items.clear();
    }
    for change in changes {
        let Some(key) = keys.iter().find(|key| change.get(**key).is_some()) else {
            // A directive for the whole list, or a thing without a name, which the API server will refuse.
            if change.get("$patch").is_none() {
                items.push(change);
            }
            continue;
        };
        let at = items.iter().position(|item| item.get(*key) == change.get(*key));
        match at {
            Some(at) if is_deletion(&change) => drop(items.remove(at)),
            Some(at) => merge(&mut items[at], change),
            None if is_deletion(&change) => {}
            None => {
                let mut item = Value::Null;
                merge(&mut item, change);
                items.push(item);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn merged(mut object: Value, patch: Value) -> Value {
        merge(&mut object, patch);
        object
    }

    #[test]
    fn named_things_are_merged_and_others_added() {
        let object = json!({"containers": [{"name": "a", "image": "1", "args": ["x"]}]});
        let patch = json!({"containers": [{"name": "a", "image": "2", "args": ["y"]}, {"name": "b"}]});
        assert_eq!(
            merged(object, patch),
            json!({"containers": [{"name": "a", "image": "2", "args": ["y"]}, {"name": "b"}]})
        );
    }

    #[test]
    fn directives_delete_and_replace() {
        let object = json!({"env": [{"name": "A"}, {"name": "B"}], "x": {"y": 1}, "args": ["1", "2"]});
        let patch = json!({
            "env": [{"name": "A", "$patch": "delete"}], "x": {"$patch": "replace", "z": 2},
            "$deleteFromPrimitiveList/args": ["1"],
        });
        assert_eq!(merged(object, patch), json!({"env": [{"name": "B"}], "x": {"z": 2}, "args": ["2"]}));
        let replaced = merged(json!({"env": [{"name": "A"}]}), json!({"env": [{"name": "C"}, {"$patch": "replace"}]}));
        assert_eq!(replaced, json!({"env": [{"name": "C"}]}));
    }

    #[test]
    fn null_deletes_and_plain_lists_are_replaced() {
        let object = json!({"a": 1, "tolerations": [{"key": "x"}]});
        assert_eq!(merged(object, json!({"a": null, "tolerations": []})), json!({"tolerations": []}));
    }

    #[test]
    fn ports_have_another_key_in_services() {
        let service = merged(json!({"ports": [{"port": 443}]}), json!({"ports": [{"port": 443, "name": "x"}]}));
        assert_eq!(service, json!({"ports": [{"port": 443, "name": "x"}]}));
        let container = merged(json!({"ports": []}), json!({"ports": [{"containerPort": 1}]}));
        assert_eq!(container, json!({"ports": [{"containerPort": 1}]}));
    }

    #[test]
    fn only_some_keys_are_kept() {
        let strategy = json!({"strategy": {"type": "RollingUpdate", "rollingUpdate": {}}});
        let patch = json!({"strategy": {"$retainKeys": ["type"], "type": "Recreate"}});
        assert_eq!(merged(strategy, patch), json!({"strategy": {"type": "Recreate"}}));
    }
}
