//! What a VM's events tell of a VMI that failed. Its own events are about an object that is gone soon.

use holdfast_api::kubevirt::{VirtualMachine, VirtualMachineInstance};
use holdfast_api::status::{find, phase};

/// Reason of the event.
pub(super) const REASON: &str = "VirtualMachineInstanceFailed";
/// What a VM's status says once the end of its VMI has been seen.
const SEEN: [&str; 2] = ["Stopped", "CrashLoopBackOff"];

/// The words for a VMI that failed by itself, until the VM's status shows that or the VMI is being deleted: so it is
/// told once.
pub(super) fn untold_failure(vm: &VirtualMachine, vmi: &VirtualMachineInstance) -> Option<String> {
    let going = vm.metadata.deletion_timestamp.is_some() || vmi.metadata.deletion_timestamp.is_some();
    let printed = vm.status.as_ref().and_then(|status| status.printable_status.as_deref());
    if going || phase(vmi) != "Failed" || printed.is_some_and(|printed| SEEN.contains(&printed)) {
        return None;
    }
    let status = vmi.status.as_ref()?;
    let refused = find(&status.conditions, "Synchronized").filter(|condition| condition.status == "False");
    let causes = [&status.reason, &refused.and_then(|condition| condition.message.clone())];
    let causes = causes.into_iter().flatten().filter(|cause| !cause.is_empty()).cloned();
    let name = vmi.metadata.name.clone().unwrap_or_default();
    let words: Vec<String> = [format!("Virtual machine instance {name} failed")].into_iter().chain(causes).collect();
    Some(words.join(": "))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    fn told(printed: &str, vmi: Value) -> Option<String> {
        let vm = json!({"metadata": {"name": "a"}, "status": {"printableStatus": printed},
            "spec": {"template": {"spec": {"domain": {"devices": {}}}}}});
        let mut whole = json!({"metadata": {"name": "a"}, "spec": {"domain": {"devices": {}}}});
        whole["status"] = vmi;
        untold_failure(&serde_json::from_value(vm).unwrap(), &serde_json::from_value(whole).unwrap())
    }

    #[test]
    fn a_failure_is_told_until_the_status_shows_it() {
        let crashed = json!({"phase": "Failed", "reason": "Crashed"});
        assert_eq!(told("Running", crashed.clone()).unwrap(), "Virtual machine instance a failed: Crashed");
        for printed in ["Stopped", "CrashLoopBackOff"] {
            assert_eq!(told(printed, crashed.clone()), None, "{printed}");
        }
        assert_eq!(told("Running", json!({"phase": "Succeeded"})), None);
        assert_eq!(told("Running", json!({"phase": "Running"})), None);
        let refused = json!({"phase": "Failed", "conditions": [
            {"type": "Synchronized", "status": "False", "reason": "VolumePreparationFailed", "message": "no disk"}]});
        assert_eq!(told("Starting", refused).unwrap(), "Virtual machine instance a failed: no disk");
    }
}
