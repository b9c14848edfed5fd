//! What is to be installed: from the KubeVirt object, and the image that the operator itself runs.

use holdfast_api::config::ClusterConfig;
use holdfast_api::kubevirt::{KubeVirt, KubeVirtSpec};
use kube::ResourceExt;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Why nothing can be installed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TargetError {
    /// The operator's image does not say which images go with it.
    #[error(
        "failed to find registry and tag in the operator's image `{0}`; give imageRegistry and imageTag in the \
         KubeVirt object"
    )]
    Image(String),
}

/// What is to be installed.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Namespace of the installation.
    pub namespace: String,
    /// Registry and path of the images.
    pub registry: String,
    /// What stands before each image's name.
    prefix: String,
    /// Tag of the images.
    pub version: String,
    /// Image of the operator.
    pub operator_image: String,
    /// How many nodes the cluster has.
    pub nodes: u64,
    /// What the user wants.
    pub spec: KubeVirtSpec,
    /// That, as the components read it.
    pub config: ClusterConfig,
}

impl Target {
    /// Of a KubeVirt object, for an operator of `operator_image`.
    ///
    /// # Errors
    /// Where neither tells the images.
    pub fn of(kubevirt: &KubeVirt, operator_image: &str, nodes: u64) -> Result<Self, TargetError> {
        let spec = kubevirt.spec.clone();
        let given = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
        let own = Image::parse(operator_image);
        let unknown = || TargetError::Image(operator_image.to_owned());
        Ok(Self {
            namespace: kubevirt.namespace().unwrap_or_default(),
            registry: given(&spec.image_registry).or(own.registry).ok_or_else(unknown)?,
            prefix: own.prefix,
            version: given(&spec.image_tag).or(own.tag).ok_or_else(unknown)?,
            operator_image: operator_image.to_owned(),
            nodes,
            config: ClusterConfig::of(&spec),
            spec,
        })
    }

    /// The image `name` of this version.
    pub fn image(&self, name: &str) -> String {
        format!("{}/{}{name}:{}", self.registry, self.prefix, self.version)
    }

    /// Replicas of a component that serves the cluster.
    pub fn replicas(&self) -> u64 {
        self.given_replicas().unwrap_or(if self.nodes <= 1 { 1 } else { 2 })
    }

    /// Replicas of virt-api, of which a large cluster has more.
    pub fn api_replicas(&self) -> u64 {
        self.given_replicas().unwrap_or(self.replicas().max(self.nodes / 10))
    }

    fn given_replicas(&self) -> Option<u64> {
        let given = self.spec.infra.as_ref()?.replicas?;
        u64::try_from(given).ok()
    }

    /// All that the installation is made from, for the status. `spec.configuration` is not in it: components read
    /// that themselves, and a change of it installs nothing.
    pub fn deployment_config(&self) -> Value {
        let mut spec = serde_json::to_value(&self.spec).unwrap_or_default();
        if let Some(spec) = spec.as_object_mut() {
            spec.remove("configuration");
        }
        json!({
            "id": self.id(),
            "namespace": self.namespace,
            "registry": self.registry,
            "kubeVirtVersion": self.version,
            "virtOperatorImage": self.operator_image,
            "additionalProperties": spec,
        })
    }

    /// A short name of that.
    pub fn id(&self) -> String {
        let mut spec = self.spec.clone();
        spec.configuration = None;
        let parts = json!([self.namespace, self.registry, self.version, self.operator_image, spec]);
        hex::encode(&Sha256::digest(parts.to_string().as_bytes())[..20])
    }
}

/// The parts of an image's name.
struct Image {
    registry: Option<String>,
    prefix: String,
    tag: Option<String>,
}

impl Image {
    fn parse(image: &str) -> Self {
        let (registry, name) = match image.rsplit_once('/') {
            Some((registry, name)) => (Some(registry.to_owned()), name),
            None => (None, image),
        };
        // A digest names one image, and says nothing of the others.
        let (name, tag) = match name.split_once(['@', ':']) {
            Some((name, tag)) => (name, (!name.is_empty() && !image.contains('@')).then(|| tag.to_owned())),
            None => (name, None),
        };
        Self { registry, prefix: name.strip_suffix("virt-operator").unwrap_or_default().to_owned(), tag }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use super::*;

    /// The target of a KubeVirt object with this spec, in a cluster of two nodes.
    pub(crate) fn target(spec: Value) -> Target {
        Target::of(&kubevirt(spec), "localhost/holdfast/virt-operator:v1", 2).unwrap()
    }

    fn kubevirt(spec: Value) -> KubeVirt {
        serde_json::from_value(json!({
            "apiVersion": "kubevirt.io/v1", "kind": "KubeVirt",
            "metadata": {"name": "kubevirt", "namespace": "kubevirt"}, "spec": spec,
        }))
        .unwrap()
    }

    #[test]
    fn images_go_with_the_operators_own() {
        assert_eq!(target(json!({})).image("virt-handler"), "localhost/holdfast/virt-handler:v1");
        let target = Target::of(&kubevirt(json!({})), "registry:5000/my-virt-operator:2.0", 2).unwrap();
        assert_eq!(target.image("virt-launcher"), "registry:5000/my-virt-launcher:2.0");
    }

    #[test]
    fn the_object_names_other_images() {
        let spec = json!({"imageRegistry": "quay.io/x", "imageTag": "v9"});
        assert_eq!(target(spec.clone()).image("virt-handler"), "quay.io/x/virt-handler:v9");
        let digest = "quay.io/y/virt-operator@sha256:0000";
        assert_eq!(Target::of(&kubevirt(spec), digest, 2).unwrap().image("virt-handler"), "quay.io/x/virt-handler:v9");
        assert_eq!(Target::of(&kubevirt(json!({})), digest, 2), Err(TargetError::Image(digest.to_owned())));
    }

    #[test]
    fn replicas_grow_with_the_cluster_unless_they_are_given() {
        let of = |spec: Value, nodes| {
            let target = Target::of(&kubevirt(spec), "localhost/virt-operator:1", nodes).unwrap();
            (target.replicas(), target.api_replicas())
        };
        assert_eq!(of(json!({}), 1), (1, 1));
        assert_eq!(of(json!({}), 2), (2, 2));
        assert_eq!(of(json!({}), 45), (2, 4));
        assert_eq!(of(json!({"infra": {"replicas": 1}}), 45), (1, 1));
    }

    #[test]
    fn a_change_of_the_configuration_installs_nothing() {
        let emulated = json!({"configuration": {"developerConfiguration": {"useEmulation": true}}});
        assert_eq!(target(json!({})).id(), target(emulated).id());
        assert_ne!(target(json!({})).id(), target(json!({"imageTag": "v2"})).id());
    }
}
