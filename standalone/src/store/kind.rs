//! The kinds that the store keeps, and the key of an object.

use std::fmt;

use holdfast_api::kubevirt::{VirtualMachine, VirtualMachineInstance};
use holdfast_api::nad::NetworkAttachmentDefinition;
use holdfast_api::underlay::UnderlayNetwork;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// kubevirt.io/v1
    VirtualMachine,
    /// kubevirt.io/v1
    VirtualMachineInstance,
    /// k8s.cni.cncf.io/v1
    NetworkAttachmentDefinition,
    /// holdfast.io/v1alpha1, cluster-scoped
    UnderlayNetwork,
    /// v1
    ConfigMap,
    /// v1
    Secret,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::VirtualMachine,
        Self::VirtualMachineInstance,
        Self::NetworkAttachmentDefinition,
        Self::UnderlayNetwork,
        Self::ConfigMap,
        Self::Secret,
    ];

    /// `kind` of its objects.
    pub const fn name(self) -> &'static str {
        match self {
            Self::VirtualMachine => "VirtualMachine",
            Self::VirtualMachineInstance => "VirtualMachineInstance",
            Self::NetworkAttachmentDefinition => "NetworkAttachmentDefinition",
            Self::UnderlayNetwork => "UnderlayNetwork",
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
        }
    }

    /// Its name in URLs.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::VirtualMachine => "virtualmachines",
            Self::VirtualMachineInstance => "virtualmachineinstances",
            Self::NetworkAttachmentDefinition => "network-attachment-definitions",
            Self::UnderlayNetwork => "underlaynetworks",
            Self::ConfigMap => "configmaps",
            Self::Secret => "secrets",
        }
    }

    /// Its API group; empty for the core group.
    pub const fn group(self) -> &'static str {
        match self {
            Self::VirtualMachine | Self::VirtualMachineInstance => "kubevirt.io",
            Self::NetworkAttachmentDefinition => "k8s.cni.cncf.io",
            Self::UnderlayNetwork => "holdfast.io",
            Self::ConfigMap | Self::Secret => "",
        }
    }

    /// The version of its group that is served.
    pub const fn version(self) -> &'static str {
        match self {
            Self::UnderlayNetwork => "v1alpha1",
            _ => "v1",
        }
    }

    /// `apiVersion` of its objects.
    pub fn api_version(self) -> String {
        match self.group() {
            "" => self.version().to_owned(),
            group => format!("{group}/{}", self.version()),
        }
    }

    /// Whether its objects live in namespaces.
    pub const fn namespaced(self) -> bool {
        !matches!(self, Self::UnderlayNetwork)
    }

    /// Whether its status is a subresource, so that writing it leaves `generation` alone.
    pub const fn has_status_subresource(self) -> bool {
        !matches!(self, Self::VirtualMachineInstance)
    }

    /// The kind with this `kind` and any `apiVersion` of its group.
    pub fn of(api_version: &str, kind: &str) -> Option<Self> {
        let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
        Self::ALL.into_iter().find(|k| k.name() == kind && k.group() == group)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What names an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; empty for a cluster-scoped kind.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Key {
    /// The key of an object; the namespace of a cluster-scoped kind is dropped.
    pub fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        let namespace = if kind.namespaced() { namespace.to_owned() } else { String::new() };
        Self { kind, namespace, name: name.to_owned() }
    }

    /// The object of another kind with the same namespace and name.
    pub fn with_kind(&self, kind: Kind) -> Self {
        Self::new(kind, &self.namespace, &self.name)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "" => write!(f, "{} {}", self.kind, self.name),
            namespace => write!(f, "{} {namespace}/{}", self.kind, self.name),
        }
    }
}

/// A type whose values the store keeps.
pub trait Stored: Serialize + DeserializeOwned + Clone {
    /// Its kind.
    const KIND: Kind;
}

macro_rules! stored {
    ($($name:ident),*) => { $(impl Stored for $name { const KIND: Kind = Kind::$name; })* };
}
stored!(VirtualMachine, VirtualMachineInstance, NetworkAttachmentDefinition, UnderlayNetwork, ConfigMap, Secret);
