//! VMIs: what they get when they are made, and who may change what afterwards.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::read::{set, typed, with_fields};
use super::{Allowed, Operation, Others, Review, presets};
use crate::config::ClusterConfig;
use crate::defaults::{Identities, default_vmi};
use crate::error_status::ErrorStatus;
use crate::kubevirt::VirtualMachineInstance;
use crate::validate::{Causes, RESERVED_LABELS, check_values, vmi_rules};

/// A new VMI gets its defaults; the status of one that is there is ours to write, and what others write is undone.
pub(super) fn mutate(
    review: &Review,
    others: &dyn Others,
    config: &ClusterConfig,
    identities: Identities,
    now: Timestamp,
) -> Result<Allowed, ErrorStatus> {
    match review.operation {
        Operation::Create => {}
        Operation::Update if !review.is_ours() => {
            let status = review.old["status"].clone();
            return Ok(Allowed::changed(review, with_fields(review, &[("status", status)])));
        }
        _ => return Ok(Allowed::default()),
    }
    let mut object = review.object.clone();
    presets::apply(&mut object, &others.presets(review.namespace))?;
    let mut vmi: VirtualMachineInstance = typed(&object)?;
    check_values(&vmi.spec, "spec")?;
    default_vmi(&mut vmi, config, identities, now);
    for (field, value) in
        [("annotations", json!(vmi.metadata.annotations)), ("finalizers", json!(vmi.metadata.finalizers))]
    {
        set(&mut object["metadata"], field, value);
    }
    set(&mut object, "spec", json!(vmi.spec));
    set(&mut object, "status", json!(vmi.status));
    Ok(Allowed::changed(review, object))
}

/// The rules for a new VMI. Labels that are ours are ours to set.
pub(super) fn validate_create(review: &Review, config: &ClusterConfig) -> Result<Allowed, ErrorStatus> {
    let mut vmi: VirtualMachineInstance = typed(review.object)?;
    if review.is_ours() {
        vmi.metadata.labels = None;
    }
    vmi_rules(&vmi, config).into_result()?;
    Ok(Allowed::default())
}

/// A VMI's spec does not change, and labels that are ours are not for others to set, change or take away.
pub(super) fn validate_update(review: &Review) -> Result<Allowed, ErrorStatus> {
    if review.is_ours() {
        return Ok(Allowed::default());
    }
    let refuse = |message: &str| {
        let mut causes = Causes::default();
        causes.not_supported_anywhere(message);
        causes.into_result()
    };
    if review.object["spec"] != review.old["spec"] {
        refuse("update of VMI object is restricted")?;
    }
    let label = |object: &Value, name: &str| object["metadata"]["labels"][format!("kubevirt.io/{name}")].clone();
    if RESERVED_LABELS.iter().any(|name| label(review.object, name) != label(review.old, name)) {
        refuse("modification of the following reserved kubevirt.io/ labels on a VMI object is prohibited")?;
    }
    Ok(Allowed::default())
}
