//! Replica sets and pools: the rules for what they make, and that they find it again.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::read::typed;
use super::{Allowed, Operation, Review};
use crate::config::ClusterConfig;
use crate::error_status::ErrorStatus;
use crate::kubevirt::{VirtualMachineInstanceReplicaSet, VirtualMachinePool};
use crate::selector::{Selector, SelectorError};
use crate::validate::{Age, Causes, template_rules, vm_rules};

/// The rules for a replica set.
pub(super) fn validate_replica_set(review: &Review, config: &ClusterConfig) -> Result<Allowed, ErrorStatus> {
    if review.keeps("spec") {
        return Ok(Allowed::default());
    }
    let set: VirtualMachineInstanceReplicaSet = typed(review.object)?;
    let mut causes = Causes::default();
    if set.spec.template.spec.is_none() {
        causes.required("spec.template", "missing virtual machine template.");
    }
    template_rules(&set.spec.template, "spec.template", config, age(review), &mut causes);
    let labels = set.spec.template.metadata.and_then(|metadata| metadata.labels).unwrap_or_default();
    selects(&set.spec.selector, &labels, &mut causes);
    causes.into_result()?;
    Ok(Allowed::default())
}

/// The rules for a pool. It does not change whom it selects.
pub(super) fn validate_pool(review: &Review, config: &ClusterConfig) -> Result<Allowed, ErrorStatus> {
    if review.keeps("spec") {
        return Ok(Allowed::default());
    }
    let pool: VirtualMachinePool = typed(review.object)?;
    let template = &pool.spec.virtual_machine_template;
    let mut causes = match &template.spec {
        Some(spec) => vm_rules(spec, "spec.virtualMachineTemplate.spec", config, age(review)),
        None => {
            let mut causes = Causes::default();
            causes.required("spec.virtualMachineTemplate", "missing virtual machine template.");
            causes
        }
    };
    let labels = template.metadata.as_ref().and_then(|metadata| metadata.labels.clone()).unwrap_or_default();
    selects(&pool.spec.selector, &labels, &mut causes);
    if review.operation == Operation::Update && review.object["spec"]["selector"] != review.old["spec"]["selector"] {
        causes.invalid("spec.selector", "selector is immutable after creation.");
    }
    causes.into_result()?;
    Ok(Allowed::default())
}

fn age(review: &Review) -> Age {
    if review.operation == Operation::Create { Age::New } else { Age::Old }
}

/// What is made must be found again.
fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>, causes: &mut Causes) {
    match Selector::of(selector).map(|selector| selector.matches(labels)) {
        Ok(true) => {}
        Ok(false) => causes.invalid("spec.selector", "selector does not match labels."),
        Err(error @ SelectorError { .. }) => causes.invalid("spec.selector", error.to_string()),
    }
}
