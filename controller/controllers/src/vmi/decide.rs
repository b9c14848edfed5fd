//! The one next step for a VMI (pure).

use std::time::Duration;

use holdfast_api::defaults::VMI_FINALIZER;
use holdfast_api::kubevirt::{VirtualMachineInstance, VirtualMachineInstanceCondition, VirtualMachineInstanceStatus};
use holdfast_api::run_strategy::{CONTROLLER_FINALIZER, GENERATION_ANNOTATION};
use holdfast_api::status::{self, Condition as _, is_final, is_true, phase};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::pod::{ComputeState, NODE_NAME_LABEL, POD_GRACE, PodFacts, UNPAUSED, grace, is_ordinary};

type Condition = VirtualMachineInstanceCondition;

/// How long virt-handler may take to say how a guest ended whose pod is over.
const HANDLER_SAYS: SignedDuration = SignedDuration::from_secs(15);

/// Annotation of a VMI: the UIDs of those of its pods that a kubelet gave up before it started anything.
const REFUSED_PODS: &str = "holdfast.io/refused-pods";
/// How many such pods there may be; the next one ends the VMI.
const REFUSALS: usize = 5;

/// A VMI's pod.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pod<'a> {
    /// It is there.
    There(&'a PodFacts),
    /// The cache does not have it.
    NotSeen,
    /// The API server does not have it.
    Gone,
}

/// What is decided upon.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    pub vmi: &'a VirtualMachineInstance,
    pub pod: Pod<'a>,
    /// What keeps its pod from starting on its node, where that is known.
    pub trouble: Option<&'a Told>,
    /// Nobody answers for the VMI's node.
    pub node_lost: bool,
    /// The VM that controls it is there, and lets it go as well.
    pub owned: bool,
    pub now: Timestamp,
}

/// Something to tell users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub reason: String,
    pub message: String,
}

/// What to do next. Each step is safe to do twice.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// All is as it shall be.
    Nothing,
    /// Look again then.
    Wait(Duration),
    /// Ask the API server whether the pod is gone for good.
    Confirm,
    /// Take the addresses, and make the pod.
    MakePod,
    /// Set the pod's readiness gate.
    Gate { unpaused: bool },
    /// Delete the pod with this UID.
    DeletePod { uid: String, grace: u32 },
    /// Write the VMI like this, and tell why.
    Write { vmi: Box<VirtualMachineInstance>, told: Option<Told> },
}

impl Step {
    /// For the log.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Wait(_) => "wait",
            Self::Confirm => "confirm that the pod is gone",
            Self::MakePod => "make the pod",
            Self::Gate { .. } => "set the readiness gate",
            Self::DeletePod { .. } => "delete the pod",
            Self::Write { .. } => "write the VMI",
        }
    }
}

/// Decides.
pub(super) fn decide(view: &View<'_>) -> Step {
    let deleting = view.vmi.metadata.deletion_timestamp.is_some();
    match view.pod {
        Pod::There(pod) if deleting && !pod.deleting => {
            let grace = u32::try_from(grace(view.vmi) + POD_GRACE).unwrap_or(u32::MAX);
            Step::DeletePod { uid: pod.uid.clone(), grace }
        }
        Pod::There(pod) => with_pod(view, pod),
        Pod::NotSeen if deleting => Step::Confirm,
        Pod::Gone if deleting => let_go(view),
        _ if is_final(view.vmi) => Step::Nothing,
        // A pod of that name is made once: where it was made before and is lost, making it finds it, or makes it.
        _ if matches!(phase(view.vmi), "" | "Pending") => Step::MakePod,
        Pod::NotSeen => Step::Confirm,
        Pod::Gone if phase(view.vmi) == "Scheduling" && !refused_pods(view.vmi).is_empty() => Step::MakePod,
        Pod::Gone => lost(view),
    }
}

/// The VMI is to go, and its pod has gone.
fn let_go(view: &View<'_>) -> Step {
    let mut vmi = view.vmi.clone();
    if !is_final(&vmi) {
        let status = vmi.status.get_or_insert_default();
        end(status, "Failed", view.now);
        set(status, no_pod(), view.now);
    }
    if let Some(finalizers) = &mut vmi.metadata.finalizers {
        // A VM that is gone, or has let its VMI live on, does not look after it any more.
        finalizers.retain(|finalizer| finalizer != VMI_FINALIZER && (view.owned || finalizer != CONTROLLER_FINALIZER));
    }
    written(view, vmi, None)
}

/// Its pod has gone though nobody asked for it.
fn lost(view: &View<'_>) -> Step {
    let mut vmi = view.vmi.clone();
    let status = vmi.status.get_or_insert_default();
    end(status, "Failed", view.now);
    set(status, no_pod(), view.now);
    written(view, vmi, None)
}

fn no_pod() -> Condition {
    Condition::new("Ready", "False", "PodNotExists", "virt-launcher pod has not yet been scheduled")
}

fn not_running() -> Condition {
    Condition::new("Ready", "False", "GuestNotRunning", "Guest VM is not reported as running")
}

/// The pod is there; the VMI follows it.
fn with_pod(view: &View<'_>, pod: &PodFacts) -> Step {
    if is_final(view.vmi) {
        return Step::Nothing;
    }
    if view.node_lost {
        return unresponsive(view);
    }
    let early = matches!(phase(view.vmi), "" | "Pending" | "Scheduling");
    if early && pod.was_refused() {
        let known = refused_pods(view.vmi);
        if known.contains(&pod.uid.as_str()) || known.len() < REFUSALS {
            return again(view, pod, &known);
        }
    }
    let paused = view.vmi.status.as_ref().is_some_and(|status| is_true(&status.conditions, "Paused"));
    let gate = if paused { "False" } else { "True" };
    if !pod.is_over() && !pod.deleting && pod.condition(UNPAUSED).is_none_or(|condition| condition.status != gate) {
        return Step::Gate { unpaused: !paused };
    }
    match phase(view.vmi) {
        "" | "Pending" | "Scheduling" => starting(view, pod),
        _ => running(view, pod),
    }
}

/// The pods of a VMI that were refused so far.
fn refused_pods(vmi: &VirtualMachineInstance) -> Vec<&str> {
    let noted = vmi.metadata.annotations.as_ref().and_then(|all| all.get(REFUSED_PODS));
    noted.map(|noted| noted.split(',').collect()).unwrap_or_default()
}

/// The kubelet refused the pod and has started nothing of it: that is noted first, then the pod goes, each time after
/// twice the time, and is made again when it is gone.
fn again(view: &View<'_>, pod: &PodFacts, known: &[&str]) -> Step {
    if !known.contains(&pod.uid.as_str()) {
        let mut vmi = view.vmi.clone();
        complete_revision_name(&mut vmi);
        let noted = [known, &[pod.uid.as_str()]].concat().join(",");
        vmi.metadata.annotations.get_or_insert_default().insert(REFUSED_PODS.to_owned(), noted);
        let reason = if pod.reason.is_empty() { "PodRefused".to_owned() } else { pod.reason.clone() };
        let node = pod.node.as_deref().unwrap_or("?");
        let message = format!("Pod was refused on node {node}, and is made again: {}", pod.message);
        let status = vmi.status.get_or_insert_default();
        set(status, not_running(), view.now);
        set(status, Condition::new("Synchronized", "False", &reason, &message), view.now);
        status::set_phase(status, "Scheduling", view.now);
        return written(view, vmi, Some(Told { reason, message }));
    }
    if pod.deleting {
        return Step::Nothing;
    }
    let wait = SignedDuration::from_secs(1 << known.len().saturating_sub(1).min(REFUSALS));
    let left = wait - view.now.duration_since(pod.bound.unwrap_or(view.now)).max(SignedDuration::ZERO);
    if left > SignedDuration::ZERO {
        return Step::Wait(left.unsigned_abs());
    }
    Step::DeletePod { uid: pod.uid.clone(), grace: 0 }
}

/// Until virt-handler takes over.
fn starting(view: &View<'_>, pod: &PodFacts) -> Step {
    let mut vmi = view.vmi.clone();
    complete_revision_name(&mut vmi);
    let status = vmi.status.get_or_insert_default();
    let ready = if pod.deleting {
        Condition::new("Ready", "False", "PodTerminating", "virt-launcher pod is terminating")
    } else {
        not_running()
    };
    set(status, ready, view.now);
    match pod.condition("PodScheduled").filter(|condition| condition.status == "False") {
        Some(not) => {
            let text = |value: &Option<String>| value.clone().unwrap_or_default();
            let copy = Condition::new("PodScheduled", "False", &text(&not.reason), &text(&not.message));
            set(status, copy, view.now);
        }
        None => {
            status::remove(&mut status.conditions, "PodScheduled");
        }
    }
    let mut told = None;
    match (&pod.compute, view.trouble) {
        (ComputeState::Waiting { reason, message }, _) if !is_ordinary(reason) => {
            set(status, Condition::new("Synchronized", "False", reason, message), view.now);
        }
        (_, Some(trouble)) => {
            let condition = Condition::new("Synchronized", "False", &trouble.reason, &trouble.message);
            told = set(status, condition, view.now).then(|| trouble.clone());
        }
        _ => {
            status::remove(&mut status.conditions, "Synchronized");
        }
    }
    match (&pod.node, &pod.compute) {
        _ if pod.is_over() => end(status, &pod.phase, view.now),
        (Some(node), ComputeState::Running) if !pod.deleting => {
            status.node_name = Some(node.clone());
            status.active_pods = [(pod.uid.clone(), node.clone())].into();
            status.qos_class.clone_from(&pod.qos_class);
            status.launcher_container_image_version = pod.image.clone();
            status.migration_transport = Some("Unix".to_owned());
            status.selinux_context = Some("none".to_owned());
            status::set_phase(status, "Scheduled", view.now);
            vmi.metadata.labels.get_or_insert_default().insert(NODE_NAME_LABEL.to_owned(), node.clone());
        }
        _ => {
            status::set_phase(status, "Scheduling", view.now);
        }
    }
    written(view, vmi, told)
}

/// From Scheduled on: virt-handler says what becomes of the guest, unless it cannot.
fn running(view: &View<'_>, pod: &PodFacts) -> Step {
    if !pod.is_over() {
        return Step::Nothing;
    }
    let ended = match pod.compute {
        ComputeState::Terminated { at: Some(at) } => at,
        // Nothing tells when: virt-handler cannot have missed it for long.
        _ => Timestamp::UNIX_EPOCH,
    };
    let left = HANDLER_SAYS - view.now.duration_since(ended).max(SignedDuration::ZERO);
    if left > SignedDuration::ZERO {
        return Step::Wait(left.unsigned_abs());
    }
    let mut vmi = view.vmi.clone();
    end(vmi.status.get_or_insert_default(), &pod.phase, view.now);
    written(view, vmi, None)
}

/// Nobody answers for its node. Its pod stays, and so the VMI: see the module's head.
fn unresponsive(view: &View<'_>) -> Step {
    let mut vmi = view.vmi.clone();
    let status = vmi.status.get_or_insert_default();
    let node = status.node_name.clone().unwrap_or_default();
    end(status, "Failed", view.now);
    status.reason = Some("NodeUnresponsive".to_owned());
    let message = format!("virt-handler on node {node} is not responsive, marking VMI as failed");
    written(view, vmi, Some(Told { reason: "NodeUnresponsive".to_owned(), message }))
}

/// The VMI as it is where it cannot have a pod.
pub(super) fn refused(vmi: &VirtualMachineInstance, why: &Told, now: Timestamp) -> VirtualMachineInstance {
    let mut vmi = vmi.clone();
    complete_revision_name(&mut vmi);
    let condition = Condition::new("Synchronized", "False", &why.reason, &why.message);
    set(vmi.status.get_or_insert_default(), condition, now);
    vmi
}

/// Writes `vmi` where it differs from what is there.
fn written(view: &View<'_>, vmi: VirtualMachineInstance, told: Option<Told>) -> Step {
    if vmi == *view.vmi { Step::Nothing } else { Step::Write { vmi: Box::new(vmi), told } }
}

fn end(status: &mut VirtualMachineInstanceStatus, phase: &str, now: Timestamp) {
    status::set_phase(status, phase, now);
    set(status, not_running(), now);
}

/// Whether that changed something.
fn set(status: &mut VirtualMachineInstanceStatus, condition: Condition, now: Timestamp) -> bool {
    status::set(&mut status.conditions, condition, now)
}

/// The name of the revision that the VMI was made from, where whoever admitted it dropped it.
fn complete_revision_name(vmi: &mut VirtualMachineInstance) {
    let owners = vmi.metadata.owner_references.as_deref().unwrap_or_default();
    let vm = owners.iter().find(|owner| owner.controller == Some(true) && owner.kind == "VirtualMachine");
    let generation = vmi.metadata.annotations.as_ref().and_then(|all| all.get(GENERATION_ANNOTATION));
    if let (Some(vm), Some(generation)) = (vm, generation) {
        let name = format!("revision-start-vm-{}-{generation}", vm.uid);
        vmi.status.get_or_insert_default().virtual_machine_revision_name.get_or_insert(name);
    }
}
