//! The CustomResourceDefinitions, made from the types.
//!
//! Names, columns and categories stand at the types; here are the versions, the subresources and
//! the form that an API server takes. NetworkAttachmentDefinition has none: its CRD is Multus's.

mod structural;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionVersion, CustomResourceValidation, JSONSchemaProps,
};
use kube::core::object::{HasSpec, HasStatus};
use kube::core::{CustomResourceExt, Resource};
use schemars::JsonSchema;
use serde_json::json;

use crate::kubevirt::{KubeVirt, VirtualMachine, VirtualMachineInstance};
use crate::lease::{IPLease, MACLease};
use crate::underlay::UnderlayNetwork;

/// All CRDs that Holdfast installs.
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![
        with_v1alpha3(crd::<KubeVirt>()),
        with_v1alpha3(crd::<VirtualMachine>()),
        // Upstream's instances have no status subresource: their status is written with the rest.
        with_v1alpha3(without_status_subresource(crd::<VirtualMachineInstance>())),
        crd::<UnderlayNetwork>(),
        crd::<IPLease>(),
        crd::<MACLease>(),
    ]
}

/// A CRD as a YAML document.
///
/// # Panics
/// Where the CRD holds what YAML cannot; no CRD does.
pub fn crd_yaml(crd: &CustomResourceDefinition) -> String {
    let yaml = serde_norway::to_string(crd).expect("a CRD is maps with string keys, lists and scalars");
    format!("# Generated from the types by `cargo xtask crds`. Do not edit.\n{yaml}")
}

/// The CRD of a type, with one version. A schema of ours that is not structural is a bug, which the
/// tests of this crate would meet first.
fn crd<K>() -> CustomResourceDefinition
where
    K: CustomResourceExt + Resource<DynamicType = ()> + HasSpec + HasStatus,
    <K as HasSpec>::Spec: JsonSchema,
    <K as HasStatus>::Status: JsonSchema,
{
    let mut crd = K::crd();
    let description = crd.spec.versions.first().and_then(description).unwrap_or_default();
    let schema = json!({
        "description": description,
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": "Group and version of the kind."},
            "kind": {"type": "string", "description": "Kind of the object."},
            "metadata": {"type": "object"},
            "spec": structural::schema::<<K as HasSpec>::Spec>(),
            "status": structural::schema::<<K as HasStatus>::Status>(),
        },
    });
    let schema: JSONSchemaProps =
        serde_json::from_value(schema).expect("a structural schema has the fields of a CRD's schema");
    for version in &mut crd.spec.versions {
        version.schema = Some(CustomResourceValidation { open_api_v3_schema: Some(schema.clone()) });
    }
    crd
}

fn description(version: &CustomResourceDefinitionVersion) -> Option<String> {
    version.schema.as_ref()?.open_api_v3_schema.as_ref()?.description.clone()
}

fn without_status_subresource(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        version.subresources = None;
    }
    crd
}

/// Adds the version that old clients ask for: the same, and said to be old. It has no descriptions,
/// which would double the size of the object.
fn with_v1alpha3(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let old: Vec<_> = crd
        .spec
        .versions
        .iter()
        .cloned()
        .map(|mut version| {
            version.name = "v1alpha3".to_owned();
            version.storage = false;
            version.deprecated = Some(true);
            if let Some(schema) = version.schema.as_mut().and_then(|s| s.open_api_v3_schema.as_mut()) {
                structural::drop_descriptions(schema);
            }
            version
        })
        .collect();
    crd.spec.versions.extend(old);
    crd
}
