//! The status of a VM, computed whole from the VM and its VMI.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::decide::retry_time;
use super::{RunStrategy, requests, restart_required};
use crate::addresses;
use crate::kubevirt::{
    VirtualMachine, VirtualMachineCondition, VirtualMachineInstance, VirtualMachineInstanceCondition,
    VirtualMachineInstanceTemplateSpec, VirtualMachineStartFailure, VirtualMachineStatus, VolumeSnapshotStatus,
};
use crate::status::{self, Condition, find, has_run, is_final, is_true, phase};

/// The longest wait before a VM that failed to start is tried again.
const MAX_BACKOFF_SECONDS: i64 = 300;

/// What a VM's status is computed from.
#[derive(Debug, Clone, Copy)]
pub struct Observed<'a> {
    /// The VM, with its status as stored.
    pub vm: &'a VirtualMachine,
    /// Its VMI, where there is one.
    pub vmi: Option<&'a VirtualMachineInstance>,
    /// The template that the VMI was made from, where that is known.
    pub started: Option<&'a VirtualMachineInstanceTemplateSpec>,
    /// Whether NICs join and leave a guest that runs.
    pub hot_plug: bool,
    /// Why the controller could not do what it decided, where it could not.
    pub failure: Option<&'a Failure>,
    /// The time.
    pub now: Timestamp,
    /// A random number from 0 up to 1, not included; spreads out retries.
    pub jitter: f64,
}

/// Why an action for a VM failed, for its condition `Failure`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// A word for programs, for example `FailedCreate`.
    pub reason: String,
    /// The sentence for people.
    pub message: String,
}

/// Computes a VM's status. What other parts keep there is left as it is.
pub fn vm_status(observed: &Observed) -> VirtualMachineStatus {
    let Observed { vm, vmi, .. } = *observed;
    let mut status = vm.status.clone().unwrap_or_default();
    let strategy = RunStrategy::of(&vm.spec).ok();
    let ready = vmi.and_then(|vmi| find(conditions(vmi), "Ready"));
    status.created = vmi.is_some().then_some(true);
    status.ready = ready.is_some_and(|r| r.status == "True").then_some(true);
    if vmi.is_some() {
        status.run_strategy = strategy.map(|strategy| strategy.as_str().to_owned());
    }
    if first_request_is_done(vm, vmi) {
        status.state_change_requests.remove(0);
    }
    set_start_failure(&mut status, observed);
    set_conditions(&mut status, observed);
    status.desired_generation = vm.metadata.generation;
    status.observed_generation = vm.metadata.generation;
    status.volume_snapshot_statuses = snapshot_statuses(vm);
    let judged = VirtualMachine { status: Some(status), ..vm.clone() };
    let printable = printable_status(&judged, vmi, strategy, observed.now);
    let mut status = judged.status.unwrap_or_default();
    status.printable_status = Some(printable.to_owned());
    status
}

fn conditions(vmi: &VirtualMachineInstance) -> &[VirtualMachineInstanceCondition] {
    vmi.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default()
}

/// Whether what the first request asks for has happened: its VMI is gone, or a VMI is there that
/// has neither ended nor is going.
fn first_request_is_done(vm: &VirtualMachine, vmi: Option<&VirtualMachineInstance>) -> bool {
    let Some(request) = requests(vm).first() else {
        return false;
    };
    match (request.action.as_str(), vmi) {
        ("Start", vmi) => vmi.is_some_and(|vmi| !is_final(vmi) && vmi.metadata.deletion_timestamp.is_none()),
        (_, None) => true,
        (_, Some(vmi)) => request.uid != vmi.metadata.uid,
    }
}

/// Seconds before the next try after so many failures in a row: 10 n², up to half of that more by
/// `jitter` (0 up to 1), 300 at most.
pub fn start_backoff_seconds(failures: i32, jitter: f64) -> i64 {
    let failures = i64::from(failures);
    let base = failures.saturating_mul(failures).saturating_mul(10).clamp(0, MAX_BACKOFF_SECONDS);
    // At most 150 s, so the conversion loses nothing but the fraction.
    let extra = ((base / 2 + 1) as f64 * jitter.clamp(0.0, 1.0)) as i64;
    (base + extra).min(MAX_BACKOFF_SECONDS)
}

/// Whether a VMI failed to start and is not in this count yet: it ended by itself, without ever having run. One that
/// was deleted before it ran was not wanted any more, which says nothing about the VM.
pub(super) fn is_uncounted(vmi: &VirtualMachineInstance, counted: Option<&VirtualMachineStartFailure>) -> bool {
    is_final(vmi)
        && !has_run(vmi)
        && vmi.metadata.deletion_timestamp.is_none()
        && counted.is_none_or(|failure| failure.last_failed_vmiuid != vmi.metadata.uid)
}

/// Counts a VMI that failed to start, once; forgets when one ran or the VM is halted.
fn set_start_failure(status: &mut VirtualMachineStatus, observed: &Observed) {
    if RunStrategy::of(&observed.vm.spec) == Ok(RunStrategy::Halted) {
        status.start_failure = None;
    }
    let Some(vmi) = observed.vmi else { return };
    if has_run(vmi) {
        status.start_failure = None;
        return;
    }
    let before = status.start_failure.as_ref();
    if !is_uncounted(vmi, before) {
        return;
    }
    let count = before.and_then(|failure| failure.consecutive_fail_count).unwrap_or_default().saturating_add(1);
    let delay = SignedDuration::from_secs(start_backoff_seconds(count, observed.jitter));
    let retry = observed.now.saturating_add(delay).unwrap_or(observed.now);
    status.start_failure = Some(VirtualMachineStartFailure {
        consecutive_fail_count: Some(count),
        last_failed_vmiuid: vmi.metadata.uid.clone(),
        retry_after_timestamp: Some(status::whole_seconds(retry)),
    });
}

/// Conditions that are the VM's own and not copied from its VMI.
const OWN: [&str; 4] = ["Ready", "Failure", "RestartRequired", "ManualRecoveryRequired"];

fn set_conditions(status: &mut VirtualMachineStatus, observed: &Observed) {
    let now = observed.now;
    let list = &mut status.conditions;
    let own = |kind, status, reason, message| VirtualMachineCondition::new(kind, status, reason, message);
    match observed.vmi {
        None => {
            let gone = own("Ready", "False", "VMINotExists", "VMI does not exist");
            status::set(list, gone, now);
        }
        Some(vmi) => match find(conditions(vmi), "Ready") {
            Some(ready) => status::mirror(list, copied(ready)),
            None => {
                let message = "VMI is missing the Ready condition";
                let missing = own("Ready", "False", "VMIConditionMissing", message);
                status::set(list, missing, now);
            }
        },
    }
    match observed.failure {
        None => {
            status::remove(list, "Failure");
        }
        Some(failure) => {
            let failed = own("Failure", "True", &failure.reason, &failure.message);
            status::set(list, failed, now);
        }
    }
    if let Some(vmi) = observed.vmi {
        let theirs = conditions(vmi);
        list.retain(|c| OWN.contains(&c.kind()) || find(theirs, c.kind()).is_some());
        for condition in theirs.iter().filter(|c| !OWN.contains(&c.kind())) {
            status::mirror(list, copied(condition));
        }
    }
    set_restart_required(list, observed);
}

/// `RestartRequired` follows the template, and what is asked of networks: it goes when the change is taken back, and when the VM
/// is started anew.
fn set_restart_required(list: &mut Vec<VirtualMachineCondition>, observed: &Observed) {
    let Some(vmi) = observed.vmi else { return };
    let Some(started) = observed.started else {
        return;
    };
    let message = if restart_required(started, &observed.vm.spec.template, &vmi.spec, observed.hot_plug) {
        Some("a non-live-updatable field was changed in the template spec".to_owned())
    } else {
        addresses::changed(observed.vm, vmi).map(|annotation| format!("annotation {annotation} was changed"))
    };
    if let Some(message) = message.filter(|_| !is_final(vmi)) {
        let wanted = VirtualMachineCondition::new("RestartRequired", "True", "", &message);
        status::set(list, wanted, observed.now);
    } else if !is_final(vmi) {
        status::remove(list, "RestartRequired");
    }
}

fn copied(condition: &VirtualMachineInstanceCondition) -> VirtualMachineCondition {
    VirtualMachineCondition {
        last_probe_time: condition.last_probe_time.clone(),
        last_transition_time: condition.last_transition_time.clone(),
        message: condition.message.clone(),
        reason: condition.reason.clone(),
        status: condition.status.clone(),
        r#type: condition.r#type.clone(),
    }
}

/// No volume of this version can be snapshotted; each says so, as clients expect an entry.
fn snapshot_statuses(vm: &VirtualMachine) -> Vec<VolumeSnapshotStatus> {
    let template = vm.spec.template.spec.as_ref();
    template
        .map(|spec| spec.volumes.as_slice())
        .unwrap_or_default()
        .iter()
        .map(|volume| VolumeSnapshotStatus {
            enabled: false,
            name: volume.name.clone(),
            reason: Some(format!("Snapshot is not supported for this volumeSource type [{}]", volume.name)),
        })
        .collect()
}

/// The one word for people. Several may be true at once; the first one listed wins.
fn printable_status(
    vm: &VirtualMachine,
    vmi: Option<&VirtualMachineInstance>,
    strategy: Option<RunStrategy>,
    now: Timestamp,
) -> &'static str {
    if vm.metadata.deletion_timestamp.is_some() {
        return "Terminating";
    }
    if let Some(live) = vmi.filter(|vmi| !is_final(vmi)) {
        return live_status(live);
    }
    if retry_time(vm).is_some_and(|until| until > now) && wants_start(strategy) {
        return "CrashLoopBackOff";
    }
    if vmi.is_none() && strategy == Some(RunStrategy::Always) {
        return "Starting";
    }
    "Stopped"
}

/// Whether a VM under this strategy is tried again after it failed to start.
fn wants_start(strategy: Option<RunStrategy>) -> bool {
    matches!(strategy, Some(RunStrategy::Always | RunStrategy::RerunOnFailure))
}

/// The word for a VM whose VMI has not ended.
fn live_status(vmi: &VirtualMachineInstance) -> &'static str {
    let list = conditions(vmi);
    let because = |kind, reason: &str| {
        find(list, kind)
            .is_some_and(|condition| condition.status == "False" && condition.reason.as_deref() == Some(reason))
    };
    let migration = vmi.status.as_ref().and_then(|s| s.migration_state.as_ref());
    let migrating = migration.is_some_and(|state| {
        state.start_timestamp.is_some() && state.end_timestamp.is_none() && state.completed != Some(true)
    });
    let rules = [
        (vmi.metadata.deletion_timestamp.is_some(), "Stopping"),
        (migrating, "Migrating"),
        (is_true(list, "Paused"), "Paused"),
        (phase(vmi) == "Running", "Running"),
        (because("Synchronized", "FailedPvcNotFound"), "ErrorPvcNotFound"),
        (because("PodScheduled", "Unschedulable"), "ErrorUnschedulable"),
        (is_true(list, "Provisioning"), "Provisioning"),
        (because("Synchronized", "ErrImagePull"), "ErrImagePull"),
        (because("Synchronized", "ImagePullBackOff"), "ImagePullBackOff"),
        (matches!(phase(vmi), "" | "Pending" | "Scheduling" | "Scheduled"), "Starting"),
        (phase(vmi) == "WaitingForSync", "WaitingForReceiver"),
    ];
    rules.into_iter().find_map(|(applies, word)| applies.then_some(word)).unwrap_or("Unknown")
}
