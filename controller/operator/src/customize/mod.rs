//! `spec.customizeComponents`: patches of what is installed, and flags of the components.

mod strategic;

use std::collections::BTreeMap;

use holdfast_api::kubevirt::{CustomizeComponentsPatch, KubeVirtSpec};
use serde_json::Value;

/// Why a patch cannot be applied.
#[derive(Debug, thiserror::Error)]
pub enum CustomizeError {
    /// The patch is neither JSON nor YAML.
    #[error("failed to read the patch of {kind} `{name}`")]
    Read {
        /// Its resourceType.
        kind: String,
        /// Its resourceName.
        name: String,
        /// What is wrong.
        source: serde_norway::Error,
    },
    /// It is no JSON patch.
    #[error("failed to read the JSON patch of {kind} `{name}`")]
    Operations {
        /// Its resourceType.
        kind: String,
        /// Its resourceName.
        name: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// It does not fit the object.
    #[error("failed to patch {kind} `{name}`")]
    Apply {
        /// Its resourceType.
        kind: String,
        /// The object.
        name: String,
        /// What does not fit.
        source: json_patch::PatchError,
    },
    /// Its type is unknown.
    #[error("failed to patch {kind} `{name}`: `{unknown}` is none of json, merge and strategic")]
    Type {
        /// Its resourceType.
        kind: String,
        /// Its resourceName.
        name: String,
        /// Its type.
        unknown: String,
    },
}

/// An object with the patches that are for it, in their order.
///
/// # Errors
/// Where one of them cannot be applied.
pub fn apply(spec: &KubeVirtSpec, mut object: Value) -> Result<Value, CustomizeError> {
    let Some(custom) = &spec.customize_components else { return Ok(object) };
    for patch in &custom.patches {
        let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let is_meant = object["kind"] == patch.resource_type.as_str()
            && (patch.resource_name == "*" || patch.resource_name == name);
        if is_meant {
            change(&mut object, patch, &name)?;
        }
    }
    Ok(object)
}

/// Whether a patch can be read at all.
///
/// # Errors
/// Where it cannot.
pub fn check(patch: &CustomizeComponentsPatch) -> Result<(), CustomizeError> {
    let content = read(patch)?;
    match patch.r#type.as_str() {
        "json" => operations(patch, content).map(drop),
        "merge" | "strategic" => Ok(()),
        _ => Err(unknown(patch)),
    }
}

fn change(object: &mut Value, patch: &CustomizeComponentsPatch, name: &str) -> Result<(), CustomizeError> {
    let content = read(patch)?;
    match patch.r#type.as_str() {
        "json" => json_patch::patch(object, &operations(patch, content)?).map_err(|source| CustomizeError::Apply {
            kind: patch.resource_type.clone(),
            name: name.to_owned(),
            source,
        })?,
        "merge" => json_patch::merge(object, &content),
        "strategic" => strategic::merge(object, content),
        _ => return Err(unknown(patch)),
    }
    Ok(())
}

fn read(patch: &CustomizeComponentsPatch) -> Result<Value, CustomizeError> {
    serde_norway::from_str(&patch.patch).map_err(|source| CustomizeError::Read {
        kind: patch.resource_type.clone(),
        name: patch.resource_name.clone(),
        source,
    })
}

fn operations(patch: &CustomizeComponentsPatch, content: Value) -> Result<json_patch::Patch, CustomizeError> {
    serde_json::from_value(content).map_err(|source| CustomizeError::Operations {
        kind: patch.resource_type.clone(),
        name: patch.resource_name.clone(),
        source,
    })
}

fn unknown(patch: &CustomizeComponentsPatch) -> CustomizeError {
    CustomizeError::Type {
        kind: patch.resource_type.clone(),
        name: patch.resource_name.clone(),
        unknown: patch.r#type.clone(),
    }
}

/// Puts flags into the arguments of a component: the value of one that is there is replaced.
pub fn set_flags(arguments: &mut Vec<String>, flags: &BTreeMap<String, String>) {
    for (name, value) in flags {
        let flag = if name.chars().count() == 1 { format!("-{name}") } else { format!("--{name}") };
        let known = arguments.iter().position(|argument| *argument == flag);
        match (known, value.is_empty()) {
            (Some(at), false) if at + 1 < arguments.len() => arguments[at + 1].clone_from(value),
            (Some(_), _) => {}
            (None, true) => arguments.push(flag),
            (None, false) => arguments.extend([flag, value.clone()]),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patched(r#type: &str, patch: &str, name: &str) -> Result<Value, CustomizeError> {
        let spec = json!({"customizeComponents": {"patches": [
            {"resourceType": "Deployment", "resourceName": name, "type": r#type, "patch": patch},
        ]}});
        let object = json!({"kind": "Deployment", "metadata": {"name": "virt-api"}, "spec": {"replicas": 2,
            "template": {"spec": {"containers": [{"name": "virt-api", "image": "a", "args": ["-v", "2"]}]}}}});
        apply(&serde_json::from_value(spec).unwrap(), object)
    }

    #[test]
    fn each_type_of_patch_is_applied() {
        let json = r#"[{"op": "replace", "path": "/spec/replicas", "value": 3}]"#;
        assert_eq!(patched("json", json, "virt-api").unwrap()["spec"]["replicas"], 3);
        let merge = patched("merge", r#"{"spec": {"template": {"spec": {"containers": []}}}}"#, "*").unwrap();
        assert_eq!(merge["spec"]["template"]["spec"]["containers"], json!([]));
        let image = "spec: {template: {spec: {containers: [{name: virt-api, image: b}]}}}";
        let strategic = patched("strategic", image, "virt-api").unwrap();
        let container = &strategic["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(*container, json!({"name": "virt-api", "image": "b", "args": ["-v", "2"]}));
    }

    #[test]
    fn other_objects_are_left_alone() {
        let json = r#"[{"op": "replace", "path": "/spec/replicas", "value": 3}]"#;
        assert_eq!(patched("json", json, "virt-controller").unwrap()["spec"]["replicas"], 2);
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let missing = r#"[{"op": "remove", "path": "/spec/nothing"}]"#;
        assert_eq!(patched("json", missing, "*").unwrap_err().to_string(), "failed to patch Deployment `virt-api`");
        assert!(patched("json", "{}", "*").is_err());
        assert!(patched("merge", "{", "*").is_err());
        assert!(
            patched("magic", "{}", "*")
                .unwrap_err()
                .to_string()
                .ends_with("`magic` is none of json, merge and strategic")
        );
    }

    #[test]
    fn flags_replace_those_of_their_name() {
        let mut arguments = ["--port", "8443", "-v", "2"].map(str::to_owned).to_vec();
        let flags = [("v", "5"), ("json", ""), ("port", "1"), ("more", "x")];
        set_flags(&mut arguments, &flags.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        assert_eq!(arguments, ["--port", "1", "-v", "5", "--json", "--more", "x"]);
    }
}
