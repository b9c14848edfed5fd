//! Presets: fields that new VMIs with certain labels get.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::read::{set, typed};
use super::{Allowed, Review};
use crate::error_status::ErrorStatus;
use crate::kubevirt::VirtualMachineInstancePreset;
use crate::selector::Selector;

/// A VMI with this annotation set to `true` gets nothing from presets.
const EXCLUDE: &str = "virtualmachineinstancepresets.admission.kubevirt.io/exclude";
/// What the annotation of each preset that was applied begins with.
const APPLIED: &str = "virtualmachinepreset.kubevirt.io/";

/// A preset is accepted if it can be read, and whoever makes one is told of the better way.
pub(super) fn validate(review: &Review) -> Result<Allowed, ErrorStatus> {
    let preset: VirtualMachineInstancePreset = typed(review.object)?;
    Selector::of(&preset.spec.selector).map_err(|error| ErrorStatus::unreadable(error.to_string()))?;
    let warning = "VirtualMachineInstancePreset is deprecated, please use instance types and preferences instead.";
    Ok(Allowed { object: None, warnings: vec![warning.to_owned()] })
}

/// Applies the presets that select a new VMI, in the order of their names. A preset that says something else than
/// the VMI is passed over, and presets that contradict each other are refused.
pub(super) fn apply(vmi: &mut Value, presets: &[VirtualMachineInstancePreset]) -> Result<(), ErrorStatus> {
    let metadata = &vmi["metadata"];
    if presets.is_empty() || metadata["annotations"][EXCLUDE] == "true" {
        return Ok(());
    }
    let labels: BTreeMap<String, String> = serde_json::from_value(metadata["labels"].clone()).unwrap_or_default();
    let selects = |preset: &&VirtualMachineInstancePreset| {
        Selector::of(&preset.spec.selector).is_ok_and(|selector| selector.matches(&labels))
    };
    let mut selected: Vec<_> = presets.iter().filter(selects).collect();
    selected.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    let mut together = json!({});
    for preset in &selected {
        if let Err(field) = merge(&mut together, &domain(preset), "spec.domain") {
            let names: Vec<_> = selected.iter().filter_map(|preset| preset.metadata.name.as_deref()).collect();
            let names = names.join(", ");
            return Err(ErrorStatus::unreadable(format!("presets {names} say different things about {field}")));
        }
    }
    for preset in selected {
        let mut merged = vmi["spec"]["domain"].clone();
        if merge(&mut merged, &domain(preset), "spec.domain").is_ok() {
            set(&mut vmi["spec"], "domain", merged);
            let name = preset.metadata.name.as_deref().unwrap_or_default();
            set(&mut vmi["metadata"]["annotations"], &format!("{APPLIED}{name}"), json!("kubevirt.io/v1"));
        }
    }
    Ok(())
}

fn domain(preset: &VirtualMachineInstancePreset) -> Value {
    preset.spec.domain.as_ref().map_or_else(|| json!({}), |domain| json!(domain))
}

/// Adds what `from` says to `into`; the field that both say something different about is returned.
fn merge(into: &mut Value, from: &Value, at: &str) -> Result<(), String> {
    match (into, from) {
        (into @ Value::Null, from) => {
            *into = from.clone();
            Ok(())
        }
        (Value::Object(into), Value::Object(from)) => from.iter().try_for_each(|(name, value)| {
            merge(into.entry(name.clone()).or_insert(Value::Null), value, &format!("{at}.{name}"))
        }),
        (into, from) if into == from => Ok(()),
        _ => Err(at.to_owned()),
    }
}
