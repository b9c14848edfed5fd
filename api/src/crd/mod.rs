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
use serde_json::{Value, json};

use crate::kubevirt::{
    KubeVirt, MigrationPolicy, VirtualMachine, VirtualMachineClusterInstancetype, VirtualMachineClusterPreference,
    VirtualMachineInstance, VirtualMachineInstanceMigration, VirtualMachineInstancePreset,
    VirtualMachineInstanceReplicaSet, VirtualMachineInstancetype, VirtualMachinePool, VirtualMachinePreference,
};
use crate::lease::{IPLease, MACLease};
use crate::underlay::UnderlayNetwork;

/// All CRDs that Holdfast installs.
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![
        with_old(crd::<KubeVirt>(status::<KubeVirt>()), "v1alpha3"),
        with_old(crd::<VirtualMachine>(status::<VirtualMachine>()), "v1alpha3"),
        // Upstream's instances have no status subresource: their status is written with the rest.
        without_status_subresource(with_old(
            crd::<VirtualMachineInstance>(status::<VirtualMachineInstance>()),
            "v1alpha3",
        )),
        preset(),
        with_old(
            crd::<VirtualMachineInstanceReplicaSet>(nullable(status::<VirtualMachineInstanceReplicaSet>())),
            "v1alpha3",
        ),
        with_old(crd::<VirtualMachineInstanceMigration>(status::<VirtualMachineInstanceMigration>()), "v1alpha3"),
        pool(),
        crd::<VirtualMachineInstancetype>(None),
        crd::<VirtualMachineClusterInstancetype>(None),
        crd::<VirtualMachinePreference>(None),
        crd::<VirtualMachineClusterPreference>(None),
        crd::<MigrationPolicy>(nullable(status::<MigrationPolicy>())),
        crd::<UnderlayNetwork>(status::<UnderlayNetwork>()),
        crd::<IPLease>(status::<IPLease>()),
        crd::<MACLease>(status::<MACLease>()),
    ]
}

/// Presets have been deprecated for so long that both of their versions are, and the older one is what is stored.
fn preset() -> CustomResourceDefinition {
    let mut crd = with_old(crd::<VirtualMachineInstancePreset>(None), "v1alpha3");
    for version in &mut crd.spec.versions {
        version.deprecated = Some(true);
        version.storage = version.name == "v1alpha3";
        if let Some(schema) = version.schema.as_mut().and_then(|s| s.open_api_v3_schema.as_mut()) {
            schema.required = None;
        }
    }
    crd
}

/// Pools have an older version that is not deprecated.
fn pool() -> CustomResourceDefinition {
    let mut crd = with_old(crd::<VirtualMachinePool>(status::<VirtualMachinePool>()), "v1alpha1");
    for version in &mut crd.spec.versions {
        version.deprecated = None;
    }
    crd.spec.versions.reverse();
    crd
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
fn crd<K>(status: Option<Value>) -> CustomResourceDefinition
where
    K: CustomResourceExt + Resource<DynamicType = ()> + HasSpec,
    <K as HasSpec>::Spec: JsonSchema,
{
    let mut crd = K::crd();
    let description = crd.spec.versions.first().and_then(description).unwrap_or_default();
    let mut schema = json!({
        "description": description,
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": "Group and version of the kind."},
            "kind": {"type": "string", "description": "Kind of the object."},
            "metadata": {"type": "object"},
            "spec": structural::schema::<<K as HasSpec>::Spec>(),
        },
    });
    if let Some(status) = status {
        schema["properties"]["status"] = status;
    }
    let schema: JSONSchemaProps =
        serde_json::from_value(schema).expect("a structural schema has the fields of a CRD's schema");
    for version in &mut crd.spec.versions {
        version.schema = Some(CustomResourceValidation { open_api_v3_schema: Some(schema.clone()) });
    }
    crd
}

/// The schema of a type's status.
fn status<K>() -> Option<Value>
where
    K: HasStatus,
    <K as HasStatus>::Status: JsonSchema,
{
    Some(structural::schema::<<K as HasStatus>::Status>())
}

/// A status that may be null.
fn nullable(status: Option<Value>) -> Option<Value> {
    status.map(|mut status| {
        status["nullable"] = json!(true);
        status
    })
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
fn with_old(mut crd: CustomResourceDefinition, name: &str) -> CustomResourceDefinition {
    let old: Vec<_> = crd
        .spec
        .versions
        .iter()
        .cloned()
        .map(|mut version| {
            name.clone_into(&mut version.name);
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
