//! The events of a VMI that follow from a change of its report.

use holdfast_agent_api::launcher::{DomainState, FinalState};
use holdfast_api::kubevirt::VirtualMachineInstance;
use holdfast_api::status;

use crate::vmi::VmiReport;

/// Whether an event tells of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OccurrenceKind {
    /// As expected.
    Normal,
    /// Trouble.
    Warning,
}

/// What an Event object says, for whoever writes it (component `virt-handler`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occurrence {
    /// Its `type`.
    pub kind: OccurrenceKind,
    /// Its `reason`.
    pub reason: String,
    /// Its `message`.
    pub message: String,
}

/// Reason and message of the event for each command that was carried out, by the subresource's name.
pub const COMMAND_EVENTS: [(&str, &str, &str); 4] = [
    ("pause", "Paused", "VirtualMachineInstance paused"),
    ("unpause", "Unpaused", "VirtualMachineInstance unpaused"),
    ("softreboot", "SoftRebooted", "VirtualMachineInstance soft rebooted"),
    ("reset", "Reset", "VirtualMachineInstance reset"),
];

/// What happened from `before` to `after`. `vmi` has the status from before: what it tells already (of an earlier run
/// of the agent, too) is not told again.
pub fn events(vmi: &VirtualMachineInstance, before: &VmiReport, after: &VmiReport) -> Vec<Occurrence> {
    let mut found = Vec::new();
    let mut tell = |kind, reason: &str, message: &str| {
        found.push(Occurrence { kind, reason: reason.to_owned(), message: message.to_owned() });
    };
    let known = status::phase(vmi);
    if after.is_alive() && !matches!(known, "Running" | "Succeeded" | "Failed") && !before.is_alive() {
        tell(OccurrenceKind::Normal, "Created", "VirtualMachineInstance defined.");
        tell(OccurrenceKind::Normal, "Started", "VirtualMachineInstance started.");
    }
    if after.failure != before.failure
        && let Some(failure) = &after.failure
        && !is_told(vmi, &failure.reason, &failure.message)
    {
        tell(OccurrenceKind::Warning, "SyncFailed", &failure.message);
    }
    if after.repairs.0 > before.repairs.0 {
        let message =
            format!("The network of the VirtualMachineInstance had been changed; mended: {}", after.repairs.1);
        tell(OccurrenceKind::Warning, "NetworkRepaired", &message);
    }
    match (before.stopping, after.stopping) {
        (None, Some(0)) => tell(OccurrenceKind::Normal, "Deleted", "Signaled Deletion"),
        (None, Some(_)) => tell(OccurrenceKind::Normal, "ShuttingDown", "Signaled Graceful Shutdown"),
        _ => {}
    }
    if let (DomainState::Final(end), None) = (&after.domain.state, before.final_state())
        && !matches!(known, "Succeeded" | "Failed")
    {
        let (kind, message) = ending(end);
        tell(kind, "Stopped", &message);
    }
    found
}

fn ending(end: &FinalState) -> (OccurrenceKind, String) {
    if end.succeeded {
        (OccurrenceKind::Normal, "The VirtualMachineInstance was shut down.".to_owned())
    } else if matches!(end.reason.as_str(), "Crashed" | "Destroyed") {
        (OccurrenceKind::Warning, "The VirtualMachineInstance crashed.".to_owned())
    } else {
        // More than clients know, for more is known.
        (OccurrenceKind::Warning, format!("The VirtualMachineInstance failed: {}", end.message))
    }
}

/// Whether the VMI's condition says so already.
fn is_told(vmi: &VirtualMachineInstance, reason: &str, message: &str) -> bool {
    let conditions = vmi.status.iter().flat_map(|status| &status.conditions);
    conditions.into_iter().any(|condition| {
        condition.r#type == "Synchronized"
            && condition.reason.as_deref() == Some(reason)
            && condition.message.as_deref() == Some(message)
    })
}
