//! Objects as they are to be, and how they are named.

use std::fmt;

use kube::api::{ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Annotation with the hash of what was applied. What bears it is ours, and what does not is never deleted.
pub const APPLIED: &str = "holdfast.io/applied";

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    /// Group and version, such as `apps/v1`.
    pub api_version: String,
    /// Such as `Deployment`.
    pub kind: String,
    /// None for an object of the whole cluster.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

impl Id {
    /// The resource of its kind.
    pub fn resource(&self) -> ApiResource {
        resource(&self.api_version, &self.kind)
    }

    /// Where it is read and written.
    pub fn api(&self, client: &Client) -> Api<DynamicObject> {
        match &self.namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &self.resource()),
            None => Api::all_with(client.clone(), &self.resource()),
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} `{namespace}/{}`", self.kind, self.name),
            None => write!(f, "{} `{}`", self.kind, self.name),
        }
    }
}

/// The resource of a kind.
pub fn resource(api_version: &str, kind: &str) -> ApiResource {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

/// An object as it is to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// Which one.
    pub id: Id,
    /// What is in it.
    pub content: Content,
    /// The hash of that.
    pub hash: String,
}

/// What is in an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// All of it.
    Object(Value),
    /// A CustomResourceDefinition, as the YAML that is generated from the types: hundreds of kilobytes, which are
    /// never parsed here. `metadata` in it has a name alone.
    Definition {
        /// The YAML.
        text: &'static str,
        /// Its labels, as a JSON object.
        labels: Value,
    },
}

impl Desired {
    /// Of a whole object, which has apiVersion, kind and name.
    pub fn object(value: Value) -> Self {
        let text = |path: &str| value.pointer(path).and_then(Value::as_str).map(str::to_owned);
        let id = Id {
            api_version: text("/apiVersion").unwrap_or_default(),
            kind: text("/kind").unwrap_or_default(),
            namespace: text("/metadata/namespace"),
            name: text("/metadata/name").unwrap_or_default(),
        };
        let hash = hash(value.to_string().as_bytes());
        Self { id, content: Content::Object(value), hash }
    }

    /// Of a CustomResourceDefinition.
    pub fn definition(name: &str, text: &'static str, labels: Value) -> Self {
        let id = Id {
            api_version: "apiextensions.k8s.io/v1".to_owned(),
            kind: "CustomResourceDefinition".to_owned(),
            namespace: None,
            name: name.to_owned(),
        };
        let hash = hash(format!("{labels}{text}").as_bytes());
        Self { id, content: Content::Definition { text, labels }, hash }
    }

    /// What is sent to the API server: YAML, of which JSON is a part. With the annotation that marks it as ours.
    pub fn body(&self) -> String {
        match &self.content {
            Content::Object(value) => {
                let mut value = value.clone();
                value["metadata"]["annotations"][APPLIED] = json!(self.hash);
                value.to_string()
            }
            Content::Definition { text, labels } => {
                let metadata =
                    format!("metadata:\n  labels: {labels}\n  annotations: {{{APPLIED}: \"{}\"}}\n", self.hash);
                text.replacen("metadata:\n", &metadata, 1)
            }
        }
    }
}

fn hash(bytes: &[u8]) -> String {
    hex::encode(&Sha256::digest(bytes)[..16])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_plural_of_each_kind_is_right() {
        for (api_version, kind, plural) in [
            ("v1", "ServiceAccount", "serviceaccounts"),
            ("apps/v1", "DaemonSet", "daemonsets"),
            ("apiregistration.k8s.io/v1", "APIService", "apiservices"),
            ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy", "validatingadmissionpolicies"),
            ("kubevirt.io/v1", "VirtualMachineInstanceReplicaSet", "virtualmachineinstancereplicasets"),
        ] {
            assert_eq!(resource(api_version, kind).plural, plural);
        }
    }

    #[test]
    fn a_definition_is_marked_without_being_parsed() {
        let text = "kind: CustomResourceDefinition\nmetadata:\n  name: a.b\nspec:\n  metadata: {}\n";
        let desired = Desired::definition("a.b", text, json!({"kubevirt.io": ""}));
        let body: Value = serde_norway::from_str(&desired.body()).unwrap();
        assert_eq!(body["metadata"]["name"], "a.b");
        assert_eq!(body["metadata"]["labels"], json!({"kubevirt.io": ""}));
        assert_eq!(body["metadata"]["annotations"][APPLIED], desired.hash);
        assert_eq!(body["spec"], json!({"metadata": {}}));
    }

    #[test]
    fn another_content_has_another_hash() {
        let one = Desired::object(json!({"kind": "A", "metadata": {"name": "a"}, "spec": 1}));
        let other = Desired::object(json!({"kind": "A", "metadata": {"name": "a"}, "spec": 2}));
        assert_eq!(one.id, other.id);
        assert_ne!(one.hash, other.hash);
    }
}
