//! Conditions and phases, set the way Kubernetes means them.
//!
//! A condition's `lastTransitionTime` changes only when its `status` does; order is kept and a new
//! condition comes last. Writing what is there already changes nothing, so a caller may compare
//! before and after to decide whether to write at all. A time that nobody keeps is null or not there,
//! as whoever wrote it last had it: the API server takes nulls out of lists in merge patches. Times are
//! passed in.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use crate::kubevirt::{
    VirtualMachineCondition, VirtualMachineInstance, VirtualMachineInstanceCondition,
    VirtualMachineInstancePhaseTransitionTimestamp, VirtualMachineInstanceStatus,
};

/// Reads and writes the fields that each kind of condition has.
pub trait Condition: Clone + PartialEq {
    /// A condition with these fields and null times.
    fn new(kind: &str, status: &str, reason: &str, message: &str) -> Self;
    /// Its `type`.
    fn kind(&self) -> &str;
    /// Its `status`: `True`, `False` or `Unknown`.
    fn status(&self) -> &str;
    /// Its `lastTransitionTime`.
    fn transition(&mut self) -> &mut Option<Value>;
    /// Its `lastProbeTime`.
    fn probe(&mut self) -> &mut Option<Value>;
}

macro_rules! condition {
    ($name:ident) => {
        impl Condition for $name {
            fn new(kind: &str, status: &str, reason: &str, message: &str) -> Self {
                let filled = |text: &str| (!text.is_empty()).then(|| text.to_owned());
                Self {
                    r#type: kind.to_owned(),
                    status: status.to_owned(),
                    reason: filled(reason),
                    message: filled(message),
                    last_probe_time: Some(Value::Null),
                    last_transition_time: Some(Value::Null),
                }
            }
            fn kind(&self) -> &str {
                &self.r#type
            }
            fn status(&self) -> &str {
                &self.status
            }
            fn transition(&mut self) -> &mut Option<Value> {
                &mut self.last_transition_time
            }
            fn probe(&mut self) -> &mut Option<Value> {
                &mut self.last_probe_time
            }
        }
    };
}
condition!(VirtualMachineCondition);
condition!(VirtualMachineInstanceCondition);

/// The condition of a type.
pub fn find<'a, C: Condition>(conditions: &'a [C], kind: &str) -> Option<&'a C> {
    conditions.iter().find(|condition| condition.kind() == kind)
}

/// Whether the condition of a type is there and `True`.
pub fn is_true<C: Condition>(conditions: &[C], kind: &str) -> bool {
    find(conditions, kind).is_some_and(|condition| condition.status() == "True")
}

/// Sets the condition of `wanted`'s type. Its time is `now` where the status changed, the old one
/// where it did not. Returns whether anything changed.
pub fn set<C: Condition>(conditions: &mut Vec<C>, mut wanted: C, now: Timestamp) -> bool {
    match conditions.iter_mut().find(|condition| condition.kind() == wanted.kind()) {
        None => {
            *wanted.transition() = Some(time_value(now));
            conditions.push(wanted);
            true
        }
        Some(existing) => {
            *wanted.transition() = if existing.status() == wanted.status() {
                existing.transition().clone()
            } else {
                Some(time_value(now))
            };
            if matches!(wanted.probe(), None | Some(Value::Null)) {
                *wanted.probe() = existing.probe().clone();
            }
            let changed = *existing != wanted;
            *existing = wanted;
            changed
        }
    }
}

/// Puts a condition in place of that of the same type with its own time kept, or at the end: for
/// a condition that is mirrored from another object.
pub fn mirror<C: Condition>(conditions: &mut Vec<C>, wanted: C) {
    match conditions.iter_mut().find(|condition| condition.kind() == wanted.kind()) {
        Some(existing) => *existing = wanted,
        None => conditions.push(wanted),
    }
}

/// Removes the condition of a type. Returns whether it was there.
pub fn remove<C: Condition>(conditions: &mut Vec<C>, kind: &str) -> bool {
    let before = conditions.len();
    conditions.retain(|condition| condition.kind() != kind);
    conditions.len() != before
}

/// A time as conditions hold it: RFC 3339, whole seconds.
pub fn time_value(now: Timestamp) -> Value {
    Value::String(whole_seconds(now).0.to_string())
}

/// A time as Kubernetes writes it: without what is below the second.
pub fn whole_seconds(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

/// Moves a VMI to a phase and notes when, once for each phase that it was in. Returns whether the
/// phase changed.
pub fn set_phase(status: &mut VirtualMachineInstanceStatus, phase: &str, now: Timestamp) -> bool {
    if status.phase.as_deref() == Some(phase) {
        return false;
    }
    status.phase = Some(phase.to_owned());
    let stamps = &mut status.phase_transition_timestamps;
    if !stamps.iter().any(|s| s.phase.as_deref() == Some(phase)) {
        stamps.push(VirtualMachineInstancePhaseTransitionTimestamp {
            phase: Some(phase.to_owned()),
            phase_transition_timestamp: Some(whole_seconds(now)),
        });
    }
    true
}

/// The VMI's phase, empty where it has none yet.
pub fn phase(vmi: &VirtualMachineInstance) -> &str {
    vmi.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// Whether the VMI has ended, well or not.
pub fn is_final(vmi: &VirtualMachineInstance) -> bool {
    matches!(phase(vmi), "Succeeded" | "Failed")
}

/// Whether the VMI was ever in phase `Running`.
pub fn has_run(vmi: &VirtualMachineInstance) -> bool {
    phase(vmi) == "Running"
        || vmi.status.as_ref().is_some_and(|status| {
            status.phase_transition_timestamps.iter().any(|stamp| stamp.phase.as_deref() == Some("Running"))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::new(second, 500_000_000).unwrap()
    }

    fn ready(status: &str, reason: &str) -> VirtualMachineCondition {
        VirtualMachineCondition::new("Ready", status, reason, "")
    }

    #[test]
    fn a_transition_is_a_change_of_status() {
        let mut conditions = Vec::new();
        assert!(set(&mut conditions, ready("False", "A"), at(10)));
        assert!(!set(&mut conditions, ready("False", "A"), at(20)));
        assert!(set(&mut conditions, ready("False", "B"), at(30)));
        assert_eq!(conditions[0].last_transition_time, Some(time_value(at(10))));
        assert_eq!(time_value(at(10)), "1970-01-01T00:00:10Z");
        assert!(set(&mut conditions, ready("True", ""), at(40)));
        assert_eq!(conditions[0].last_transition_time, Some(time_value(at(40))));
        assert!(is_true(&conditions, "Ready"));
        assert!(remove(&mut conditions, "Ready"));
        assert!(!remove(&mut conditions, "Ready"));
    }

    #[test]
    fn a_null_that_was_not_kept_is_no_change() {
        let mut kept = ready("True", "A");
        kept.last_probe_time = None;
        let mut conditions = vec![kept];
        assert!(!set(&mut conditions, ready("True", "A"), at(10)));
        assert!(set(&mut conditions, ready("True", "B"), at(20)));
    }

    #[test]
    fn unset_times_are_written_as_null() {
        let json = serde_json::to_value(ready("True", "")).unwrap();
        let expected = serde_json::json!({"lastProbeTime": null, "lastTransitionTime": null,
            "status": "True", "type": "Ready"});
        assert_eq!(json, expected);
        let read: VirtualMachineInstanceCondition = serde_json::from_value(json).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), expected);
    }

    #[test]
    fn phases_are_stamped_once() {
        let mut status = VirtualMachineInstanceStatus::default();
        assert!(set_phase(&mut status, "Pending", at(1)));
        assert!(!set_phase(&mut status, "Pending", at(2)));
        assert!(set_phase(&mut status, "Running", at(3)));
        let stamps = serde_json::to_value(&status.phase_transition_timestamps).unwrap();
        let expected = serde_json::json!([
            {"phase": "Pending", "phaseTransitionTimestamp": "1970-01-01T00:00:01Z"},
            {"phase": "Running", "phaseTransitionTimestamp": "1970-01-01T00:00:03Z"}]);
        assert_eq!(stamps, expected);
    }
}
