//! The conditions of a VMI that the node decides on.

use holdfast_agent_api::launcher::{DomainState, PauseReason};
use holdfast_api::kubevirt::{VirtualMachineInstance, VirtualMachineInstanceCondition, VirtualMachineInstanceStatus};
use holdfast_api::status::{self, Condition as _};
use k8s_openapi::jiff::Timestamp;

use crate::vmi::VmiReport;

type Condition = VirtualMachineInstanceCondition;

/// What the VMI cannot do, and why, until there is live migration.
const NOT_MIGRATABLE: (&str, &str) = ("NotMigratable", "live migration is not available");

/// Sets what `report` says and removes what no longer holds.
pub fn set(
    status: &mut VirtualMachineInstanceStatus,
    vmi: &VirtualMachineInstance,
    report: &VmiReport,
    now: Timestamp,
) {
    let conditions = &mut status.conditions;
    let mut put = |kind: &str, wanted: Option<Condition>| {
        match wanted {
            Some(condition) => status::set(conditions, condition, now),
            None => status::remove(conditions, kind),
        };
    };
    put("Ready", Some(ready(vmi, report)));
    for kind in ["LiveMigratable", "StorageLiveMigratable"] {
        put(kind, Some(Condition::new(kind, "False", NOT_MIGRATABLE.0, NOT_MIGRATABLE.1)));
    }
    put("Paused", paused(report));
    put("AgentConnected", holds("AgentConnected", report.is_alive() && report.domain.agent_connected));
    put("SoftwareEmulation", holds("SoftwareEmulation", report.is_alive() && report.domain.emulation));
    let failed =
        |f: &holdfast_agent_api::launcher::Failure| Condition::new("Synchronized", "False", &f.reason, &f.message);
    put("Synchronized", report.failure.as_ref().map(failed));
}

fn holds(kind: &str, it_does: bool) -> Option<Condition> {
    it_does.then(|| Condition::new(kind, "True", "", ""))
}

fn ready(vmi: &VirtualMachineInstance, report: &VmiReport) -> Condition {
    let not = |reason, message| Condition::new("Ready", "False", reason, message);
    match &report.domain.state {
        DomainState::Final(_) => not("PodTerminating", "virt-launcher pod is terminating"),
        DomainState::None => not("GuestNotRunning", "Guest VM is not reported as running"),
        _ if report.stopping.is_some() || vmi.metadata.deletion_timestamp.is_some() => {
            not("PodTerminating", "virt-launcher pod is terminating")
        }
        DomainState::Paused { .. } => not(
            "ReadinessGatesNotReady",
            "the status of pod readiness gate \"kubevirt.io/virtual-machine-unpaused\" is not \"True\", but False",
        ),
        DomainState::Running | DomainState::ShuttingDown => Condition::new("Ready", "True", "", ""),
    }
}

fn paused(report: &VmiReport) -> Option<Condition> {
    let DomainState::Paused { reason } = report.domain.state else { return None };
    let (reason, message) = match reason {
        PauseReason::User => ("PausedByUser", "VMI was paused by user"),
        PauseReason::IoError => ("PausedIOError", "VMI was paused, low-level IO error detected"),
        PauseReason::Migration => ("PausedByMigrationMonitor", "VMI was paused by the migration monitor"),
        PauseReason::Other => ("Paused", "VMI is paused"),
    };
    Some(Condition::new("Paused", "True", reason, message))
}
