//! How a decision becomes a JSON patch.
//!
//! **Invariant:** each patch tests the value that the decision was made from, so that two requests at a time are
//! carried out as if one had come after the other.

use holdfast_api::kubevirt::{VirtualMachine, VirtualMachineInstance};
use holdfast_api::run_strategy::Change;
use serde_json::{Value, json};

/// A JSON patch of a VM.
#[derive(Debug, PartialEq)]
pub enum VmPatch {
    /// Of the object.
    Spec(Value),
    /// Of its status.
    Status(Value),
}

/// The patch that changes a VM; none where nothing changes.
pub fn of_vm(vm: &VirtualMachine, change: &Change) -> Option<VmPatch> {
    match change {
        Change::None => None,
        Change::Strategy(_) => {
            let mut changed = vm.clone();
            change.apply(&mut changed);
            let (path, old, new) = match vm.spec.running {
                Some(_) => ("/spec/running", json!(vm.spec.running), json!(changed.spec.running)),
                None => ("/spec/runStrategy", json!(vm.spec.run_strategy), json!(changed.spec.run_strategy)),
            };
            Some(VmPatch::Spec(json!([
                {"op": "test", "path": path, "value": old},
                {"op": "replace", "path": path, "value": new},
            ])))
        }
        Change::Requests(requests) => {
            let Some(status) = &vm.status else {
                return Some(VmPatch::Status(json!([
                    {"op": "test", "path": "/status", "value": null},
                    {"op": "add", "path": "/status", "value": {"stateChangeRequests": requests}},
                ])));
            };
            let path = "/status/stateChangeRequests";
            // For the API server, what is not there equals null.
            let old = match status.state_change_requests.as_slice() {
                [] => Value::Null,
                old => json!(old),
            };
            Some(VmPatch::Status(json!([
                {"op": "test", "path": path, "value": old},
                {"op": "add", "path": path, "value": requests},
            ])))
        }
    }
}

/// The patch that gives a VMI another grace period.
pub fn of_grace_period(vmi: &VirtualMachineInstance, seconds: i64) -> Value {
    let path = "/spec/terminationGracePeriodSeconds";
    json!([
        {"op": "test", "path": path, "value": vmi.spec.termination_grace_period_seconds},
        {"op": "add", "path": path, "value": seconds},
    ])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use holdfast_api::run_strategy;

    use super::*;

    fn vm(spec: Value, status: Value) -> VirtualMachine {
        let mut vm = json!({"metadata": {"name": "w1"}, "spec": spec, "status": status});
        vm["spec"]["template"] = json!({"spec": {"domain": {"devices": {}}}});
        serde_json::from_value(vm).unwrap()
    }

    fn vmi(grace: Option<i64>) -> VirtualMachineInstance {
        serde_json::from_value(json!({
            "metadata": {"name": "w1", "uid": "u"},
            "spec": {"domain": {"devices": {}}, "terminationGracePeriodSeconds": grace},
            "status": {"phase": "Running"},
        }))
        .unwrap()
    }

    #[test]
    fn a_strategy_is_exchanged_where_it_stands() {
        let halted = vm(json!({"runStrategy": "Halted"}), json!({}));
        let change = run_strategy::start(&halted, None, false).unwrap().change;
        assert_eq!(
            of_vm(&halted, &change),
            Some(VmPatch::Spec(json!([
                {"op": "test", "path": "/spec/runStrategy", "value": "Halted"},
                {"op": "replace", "path": "/spec/runStrategy", "value": "Always"},
            ])))
        );
        let older = vm(json!({"running": true}), json!({}));
        let change = run_strategy::stop(&older, Some(&vmi(None)), None).unwrap().change;
        assert_eq!(
            of_vm(&older, &change),
            Some(VmPatch::Spec(json!([
                {"op": "test", "path": "/spec/running", "value": true},
                {"op": "replace", "path": "/spec/running", "value": false},
            ])))
        );
    }

    #[test]
    fn requests_go_to_the_status() {
        let requests = json!([{"action": "Stop", "uid": "u"}, {"action": "Start"}]);
        let patch = |vm: &VirtualMachine| {
            let change = run_strategy::restart(vm, Some(&vmi(None)), None).unwrap().change;
            of_vm(vm, &change).unwrap()
        };
        assert_eq!(
            patch(&vm(json!({"runStrategy": "Always"}), json!({"created": true}))),
            VmPatch::Status(json!([
                {"op": "test", "path": "/status/stateChangeRequests", "value": null},
                {"op": "add", "path": "/status/stateChangeRequests", "value": requests},
            ]))
        );
        assert_eq!(
            patch(&vm(json!({"runStrategy": "Always"}), Value::Null)),
            VmPatch::Status(json!([
                {"op": "test", "path": "/status", "value": null},
                {"op": "add", "path": "/status", "value": {"stateChangeRequests": requests}},
            ]))
        );
        // A stop replaces what waits.
        let waiting = vm(json!({"runStrategy": "Manual"}), json!({"stateChangeRequests": [{"action": "Start"}]}));
        let change = run_strategy::stop(&waiting, Some(&vmi(None)), None).unwrap().change;
        let Some(VmPatch::Status(patch)) = of_vm(&waiting, &change) else { panic!("of the status") };
        assert_eq!(patch[0]["value"], json!([{"action": "Start"}]));
    }

    #[test]
    fn a_grace_period_is_set_where_it_was_as_seen() {
        assert_eq!(
            of_grace_period(&vmi(Some(30)), 0),
            json!([
                {"op": "test", "path": "/spec/terminationGracePeriodSeconds", "value": 30},
                {"op": "add", "path": "/spec/terminationGracePeriodSeconds", "value": 0},
            ])
        );
        assert_eq!(of_grace_period(&vmi(None), 1)[0]["value"], Value::Null);
    }
}
