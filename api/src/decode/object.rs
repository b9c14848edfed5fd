//! The kinds that Holdfast reads.

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use crate::kubevirt::{VirtualMachine, VirtualMachineInstance};
use crate::nad::NetworkAttachmentDefinition;
use crate::underlay::UnderlayNetwork;

/// An object of one of the kinds in [`SUPPORTED`].
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// kubevirt.io/v1 VirtualMachine.
    VirtualMachine(Box<VirtualMachine>),
    /// kubevirt.io/v1 VirtualMachineInstance.
    VirtualMachineInstance(Box<VirtualMachineInstance>),
    /// k8s.cni.cncf.io/v1 NetworkAttachmentDefinition.
    NetworkAttachmentDefinition(Box<NetworkAttachmentDefinition>),
    /// holdfast.io/v1alpha1 UnderlayNetwork.
    UnderlayNetwork(Box<UnderlayNetwork>),
    /// v1 ConfigMap.
    ConfigMap(Box<ConfigMap>),
    /// v1 Secret.
    Secret(Box<Secret>),
}

/// apiVersion and kind of what [`super::decode_yaml`] and its siblings know.
pub const SUPPORTED: [(&str, &str); 8] = [
    ("kubevirt.io/v1", "VirtualMachine"),
    ("kubevirt.io/v1alpha3", "VirtualMachine"),
    ("kubevirt.io/v1", "VirtualMachineInstance"),
    ("kubevirt.io/v1alpha3", "VirtualMachineInstance"),
    ("k8s.cni.cncf.io/v1", "NetworkAttachmentDefinition"),
    ("holdfast.io/v1alpha1", "UnderlayNetwork"),
    ("v1", "ConfigMap"),
    ("v1", "Secret"),
];

/// The list of [`SUPPORTED`], to read.
pub(super) fn supported() -> String {
    let kinds = SUPPORTED.iter().map(|(version, kind)| format!("{kind} ({version})"));
    kinds.collect::<Vec<_>>().join(", ")
}

impl Object {
    /// Kind, such as `VirtualMachine`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::VirtualMachine(_) => "VirtualMachine",
            Self::VirtualMachineInstance(_) => "VirtualMachineInstance",
            Self::NetworkAttachmentDefinition(_) => "NetworkAttachmentDefinition",
            Self::UnderlayNetwork(_) => "UnderlayNetwork",
            Self::ConfigMap(_) => "ConfigMap",
            Self::Secret(_) => "Secret",
        }
    }

    /// The object's metadata.
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::VirtualMachine(object) => &object.metadata,
            Self::VirtualMachineInstance(object) => &object.metadata,
            Self::NetworkAttachmentDefinition(object) => &object.metadata,
            Self::UnderlayNetwork(object) => &object.metadata,
            Self::ConfigMap(object) => &object.metadata,
            Self::Secret(object) => &object.metadata,
        }
    }

    /// The object's metadata, to be changed.
    pub fn metadata_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Self::VirtualMachine(object) => &mut object.metadata,
            Self::VirtualMachineInstance(object) => &mut object.metadata,
            Self::NetworkAttachmentDefinition(object) => &mut object.metadata,
            Self::UnderlayNetwork(object) => &mut object.metadata,
            Self::ConfigMap(object) => &mut object.metadata,
            Self::Secret(object) => &mut object.metadata,
        }
    }

    /// Name; empty where the document gives none.
    pub fn name(&self) -> &str {
        self.metadata().name.as_deref().unwrap_or_default()
    }

    /// Namespace; `None` where the document gives none, and for kinds without one.
    pub fn namespace(&self) -> Option<&str> {
        self.metadata().namespace.as_deref()
    }

    /// Whether objects of this kind live in a namespace.
    pub fn is_namespaced(&self) -> bool {
        !matches!(self, Self::UnderlayNetwork(_))
    }
}

/// What a document says that it is, also where it could not be decoded: enough to tell its owner.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Identity {
    /// apiVersion, such as `kubevirt.io/v1`.
    pub api_version: String,
    /// Kind, such as `VirtualMachine`.
    pub kind: String,
    /// Namespace, where one is given.
    pub namespace: Option<String>,
    /// Name; empty where none is given.
    pub name: String,
}

impl Identity {
    /// The identity that a tree gives; what it lacks is empty.
    pub(super) fn of(tree: &Value) -> Self {
        let text = |value: &Value, field: &str| value.get(field)?.as_str().map(str::to_owned);
        let metadata = tree.get("metadata").unwrap_or(&Value::Null);
        Self {
            api_version: text(tree, "apiVersion").unwrap_or_default(),
            kind: text(tree, "kind").unwrap_or_default(),
            namespace: text(metadata, "namespace"),
            name: text(metadata, "name").unwrap_or_default(),
        }
    }
}
