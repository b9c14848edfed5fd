//! Migrations and migration policies.

use serde_json::{Value, json};

use super::read::{set, typed};
use super::{Allowed, Others, Review};
use crate::error_status::ErrorStatus;
use crate::kubevirt::{MigrationPolicySpec, VirtualMachineInstanceMigration};
use crate::quantity;
use crate::status;
use crate::validate::Causes;

/// Names the VMI of a migration, so that its migrations can be listed.
const VMI_LABEL: &str = "kubevirt.io/vmi-name";
/// The finalizer with which a migration stays until it has been cleaned up.
const FINALIZER: &str = "kubevirt.io/migrationJobFinalize";

/// A new migration gets its label and its finalizer.
pub(super) fn mutate(review: &Review) -> Result<Allowed, ErrorStatus> {
    let migration: VirtualMachineInstanceMigration = typed(review.object)?;
    let mut object = review.object.clone();
    let mut finalizers = migration.metadata.finalizers.unwrap_or_default();
    if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
        finalizers.push(FINALIZER.to_owned());
    }
    let mut labels = migration.metadata.labels.unwrap_or_default();
    labels.insert(VMI_LABEL.to_owned(), migration.spec.vmi_name.unwrap_or_default());
    set(&mut object["metadata"], "finalizers", json!(finalizers));
    set(&mut object["metadata"], "labels", json!(labels));
    Ok(Allowed::changed(review, object))
}

/// Whether there is something that can be moved.
pub(super) fn validate_create(review: &Review, others: &dyn Others) -> Result<Allowed, ErrorStatus> {
    let migration: VirtualMachineInstanceMigration = typed(review.object)?;
    let Some(name) = migration.spec.vmi_name.filter(|name| !name.is_empty()) else {
        let mut causes = Causes::default();
        causes.required("spec.vmiName", "vmiName is missing");
        return Err(causes.into_error());
    };
    let refuse = |why: String| Err(ErrorStatus::unreadable(why));
    let namespace = review.namespace;
    let Some(vmi) = others.instance(namespace, &name) else {
        return refuse(format!("the VMI \"{namespace}/{name}\" does not exist"));
    };
    let found = vmi.status.unwrap_or_default();
    if matches!(found.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return refuse("Cannot migrate VMI in finalized state.".to_owned());
    }
    if let Some(condition) = status::find(&found.conditions, "LiveMigratable")
        && condition.status == "False"
        && migration.spec.receive.is_none()
    {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let (reason, message) = (text(&condition.reason), text(&condition.message));
        return refuse(format!("Cannot migrate VMI, Reason: {reason}, Message: {message}"));
    }
    let under_way = |migration: &&VirtualMachineInstanceMigration| {
        !is_final(migration.status.as_ref().and_then(|s| s.phase.as_deref()))
    };
    let migrations = others.migrations(namespace, &name);
    if let Some(other) = migrations.iter().find(under_way) {
        let uid = other.metadata.uid.as_deref().unwrap_or_default();
        return refuse(format!(
            "in-flight migration detected. Active migration job ({uid}) is currently already in progress for VMI {name}."
        ));
    }
    Ok(Allowed::default())
}

/// What moves, and where to, does not change; nor does the label while it moves.
pub(super) fn validate_update(review: &Review) -> Result<Allowed, ErrorStatus> {
    let mut causes = Causes::default();
    if review.object["spec"] != review.old["spec"] {
        causes.not_supported_anywhere("update of Migration object's spec is restricted");
    }
    let label = |object: &Value| object["metadata"]["labels"][VMI_LABEL].clone();
    let (old, new) = (label(review.old), label(review.object));
    if old != new && !is_final(review.object["status"]["phase"].as_str()) {
        let change = if new.is_null() { "removed from" } else { "modified on" };
        causes.not_supported_anywhere(format!("selector label can't be {change} an in-flight migration"));
    }
    causes.into_result()?;
    Ok(Allowed::default())
}

/// The rules for a migration policy.
pub(super) fn validate_policy(review: &Review) -> Result<Allowed, ErrorStatus> {
    let spec: MigrationPolicySpec = typed(&review.object["spec"])?;
    let mut causes = Causes::default();
    if spec.completion_timeout_per_gi_b.is_some_and(|seconds| seconds < 0) {
        causes.invalid("spec.completionTimeoutPerGiB", "must not be negative");
    }
    if spec.bandwidth_per_migration.as_ref().is_some_and(|limit| quantity::parse(limit).is_ok_and(|l| l.is_negative()))
    {
        causes.invalid("spec.bandwidthPerMigration", "must not be negative");
    }
    causes.into_result()?;
    Ok(Allowed::default())
}

fn is_final(phase: Option<&str>) -> bool {
    matches!(phase, Some("Succeeded" | "Failed"))
}
