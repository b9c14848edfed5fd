//! Rules on names, labels and annotations.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, StatusCause, StatusDetails};

use super::{Causes, Context, Rule};
use crate::error_status::ErrorStatus;

pub(super) const RULES: &[Rule] = &[reserved_labels, gated_annotations];

/// The labels of a VMI that only the control plane sets, without their prefix.
pub(crate) const RESERVED_LABELS: [&str; 6] =
    ["created-by", "migrationJobUID", "nodeName", "migrationTargetNodeName", "schedulable", "install-strategy"];

fn reserved_labels(context: &Context, causes: &mut Causes) {
    let Some(labels) = &context.metadata.labels else { return };
    let reserved =
        |label: &String| label.strip_prefix("kubevirt.io/").is_some_and(|name| RESERVED_LABELS.contains(&name));
    if labels.keys().any(reserved) {
        let message = "creation of the following reserved kubevirt.io/ labels on a VMI object is prohibited";
        causes.not_supported("metadata.labels", message);
    }
}

fn gated_annotations(context: &Context, causes: &mut Causes) {
    let Some(annotations) = &context.metadata.annotations else { return };
    for (key, gate, word) in [
        ("hooks.kubevirt.io/hookSidecars", "Sidecar", "sidecar"),
        ("kubevirt.io/ignitiondata", "ExperimentalIgnitionSupport", "ExperimentalIgnitionSupport"),
    ] {
        if annotations.contains_key(key) && !context.config.has(gate) {
            let field = "metadata.annotations";
            let message = format!("{word} feature gate is not enabled in kubevirt-config, invalid entry {field}.{key}");
            causes.invalid(field, message);
        }
    }
}

/// Refuses an object without a name, in the words of the API server: it is none of the webhooks'.
pub(super) fn check_name(kind: &str, metadata: &ObjectMeta) -> Result<(), ErrorStatus> {
    let filled = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
    if filled(&metadata.name) || filled(&metadata.generate_name) {
        return Ok(());
    }
    let causes = [
        ("metadata.name", "Required value: name or generateName is required", "FieldValueRequired"),
        (
            "<nil>",
            "Invalid value: null: some validation rules were not checked because the object was invalid; correct \
             the existing errors to complete validation",
            "FieldValueInvalid",
        ),
    ];
    let all: Vec<String> = causes.iter().map(|(field, message, _)| format!("{field}: {message}")).collect();
    let causes = causes.map(|(field, message, reason)| StatusCause {
        field: Some(field.to_owned()),
        message: Some(message.to_owned()),
        reason: Some(reason.to_owned()),
    });
    Err(ErrorStatus {
        code: 422,
        reason: Some("Invalid".to_owned()),
        message: format!("{kind}.kubevirt.io \"\" is invalid: [{}]", all.join(", ")),
        details: Some(Box::new(StatusDetails {
            group: Some("kubevirt.io".to_owned()),
            kind: Some(kind.to_owned()),
            causes: Some(causes.to_vec()),
            ..StatusDetails::default()
        })),
    })
}
