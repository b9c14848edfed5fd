//! The walk over an object's fields, each looked up in a table.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use super::Honour;
use super::fields::{VM_FIELDS, VMI_FIELDS};
use crate::kubevirt::{VirtualMachineInstanceSpec, VirtualMachineSpec};

/// A field that this version does not honour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Where it is, for example `spec.template.spec.domain.devices.gpus`.
    pub path: String,
    /// The value that is not supported, where others are.
    pub value: Option<String>,
    /// What to use instead; may be empty.
    pub hint: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path)?;
        if let Some(value) = &self.value {
            write!(f, " '{value}'")?;
        }
        write!(f, " is not supported by this version of Holdfast")?;
        if !self.hint.is_empty() {
            write!(f, "; {}", self.hint)?;
        }
        Ok(())
    }
}

/// A field that is accepted without effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Where it is.
    pub path: String,
    /// Why it has no effect.
    pub reason: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} has no effect: {}", self.path, self.reason)
    }
}

/// What was found in a spec, in the order of its fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// Fields for which the object is refused.
    pub refused: Vec<Refusal>,
    /// Fields without effect.
    pub warnings: Vec<Warning>,
}

impl Findings {
    /// All refusals as one sentence, or `None` where there are none.
    pub fn refusal(&self) -> Option<String> {
        let all: Vec<String> = self.refused.iter().map(ToString::to_string).collect();
        (!all.is_empty()).then(|| all.join(", "))
    }
}

/// Looks at the spec of a VMI as its author wrote it, before defaulting. `at` is where the spec
/// is, `spec` or `spec.template.spec`.
pub fn check(spec: &VirtualMachineInstanceSpec, at: &str) -> Findings {
    let mut findings = Findings::default();
    walk(&value_of(spec), at, "", VMI_FIELDS, &mut findings);
    findings
}

/// Looks at the spec of a VM, the template in it included.
pub fn check_vm(spec: &VirtualMachineSpec) -> Findings {
    let mut findings = Findings::default();
    walk(&value_of(spec), "spec", "", VM_FIELDS, &mut findings);
    if let Some(template) = &spec.template.spec {
        let inner = check(template, "spec.template.spec");
        findings.refused.extend(inner.refused);
        findings.warnings.extend(inner.warnings);
    }
    findings
}

/// The fields of a spec. What cannot be written as JSON has no fields to look at: the types are
/// plain data with text keys, so that does not happen.
fn value_of(spec: &impl Serialize) -> Value {
    serde_json::to_value(spec).unwrap_or_default()
}

/// `path` is for people, with indices; `pattern` is the same without them, to be looked up.
fn walk(value: &Value, path: &str, pattern: &str, table: &[(&str, Honour)], findings: &mut Findings) {
    let entry = table.iter().find(|(field, _)| *field == pattern);
    match (entry.map(|(_, honour)| *honour), value) {
        (Some(Honour::Yes), _) => {}
        (Some(Honour::Only(allowed)), value) => {
            let text = value.as_str().unwrap_or_default();
            if !allowed.contains(&text) {
                findings.refused.push(Refusal {
                    path: path.to_owned(),
                    value: Some(text.to_owned()),
                    hint: format!("use one of {}", allowed.join(", ")),
                });
            }
        }
        // A switch that is off asks for nothing.
        (Some(Honour::No(_)), Value::Bool(false)) => {}
        (Some(Honour::No(hint)), _) => {
            findings.refused.push(Refusal { path: path.to_owned(), value: None, hint: hint.to_owned() })
        }
        (Some(Honour::Ignored(reason)), _) => {
            findings.warnings.push(Warning { path: path.to_owned(), reason: reason.to_owned() })
        }
        (None, Value::Object(fields)) => {
            for (key, value) in fields {
                let dot = if pattern.is_empty() { "" } else { "." };
                let pattern = format!("{pattern}{dot}{key}");
                walk(value, &format!("{path}.{key}"), &pattern, table, findings);
            }
        }
        (None, Value::Array(items)) => {
            for (index, item) in items.iter().enumerate() {
                walk(item, &format!("{path}[{index}]"), pattern, table, findings);
            }
        }
        // The tables name every field. One that they miss is refused, so that it is noticed.
        (None, _) => findings.refused.push(Refusal { path: path.to_owned(), value: None, hint: String::new() }),
    }
}
