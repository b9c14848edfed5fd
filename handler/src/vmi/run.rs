//! One launcher's pod, from its first appearance to its end.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_agent::registry::Registry;
use holdfast_agent::vmi::status::{OccurrenceKind, events};
use holdfast_agent::vmi::{NicInput, Sandbox, VmiContext, VmiInput, VmiReport, VmiTask, Wanted, last_words};
use holdfast_agent_api::launcher::{DomainState, FinalState};
use holdfast_api::kubevirt::VirtualMachineInstance;
use holdfast_api::status::is_final;
use holdfast_ipam::nic::{Nic, wanted};
use holdfast_kubernetes::events::{EventType, Events};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Api, Client, Resource};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::appear::appears;
use super::launcher::{FindError, Found, find};
use super::objects::{Seen, Vmis};
use super::place::Place;
use super::running::{Entry, Running};
use super::status::{self, Written};
use crate::nics::{Known, Nics, prove};
use crate::pods::{Pod, Pods};

/// Seconds that a guest has to power off where its VMI says nothing.
const DEFAULT_GRACE: u64 = 30;
/// What a pod's grace period has beyond its guest's.
const POD_OVERTIME: u64 = 15;
/// Waits between two tries: the first, doubled with each, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// Waits of a launcher whose socket is there and which does not listen yet.
const LISTEN: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// How long a launcher whose pod is said to have ended may still be found.
const PARTING: Duration = Duration::from_secs(1);
/// For one answer of the API server.
const ASK: Duration = Duration::from_secs(5);

/// What all runs of the node share.
pub struct Node {
    /// The API server.
    pub client: Client,
    /// Name of the node.
    pub name: String,
    /// The kubelet's folder.
    pub kubelet: PathBuf,
    /// The pods.
    pub pods: Pods,
    /// NICs of VMs.
    pub nics: Nics,
    /// The VMI objects.
    pub vmis: Vmis,
    /// Attachments of the node.
    pub registry: Registry,
    /// What the agent's tasks share.
    pub vmi: VmiContext,
    /// Whether KVM can run a guest here.
    pub kvm: bool,
    /// The VMIs that run.
    pub running: Running,
    /// Tells of VMIs.
    pub events: Events,
    /// Sandboxes in use, by CNI's container id.
    pub used: Mutex<BTreeSet<String>>,
}

impl Node {
    /// Sandboxes in use, by CNI's container id.
    pub fn sandboxes(&self) -> BTreeSet<String> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Marks a sandbox as in use, or not any more.
    fn use_sandbox(&self, id: &str, used: bool) {
        let mut all = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used {
            all.insert(id.to_owned());
        } else {
            all.remove(id);
        }
    }
}

/// The run of one pod.
pub struct Run {
    node: Arc<Node>,
    uid: String,
    place: Place,
    changes: watch::Receiver<u64>,
    objects: watch::Receiver<Seen>,
}

/// A VMI as this run knows it.
struct Vmi {
    object: VirtualMachineInstance,
    /// Whether the API server has told of it since this run began: what the disk has is too old to be written.
    fresh: bool,
}

impl Run {
    /// A run that knows nothing yet.
    pub fn new(node: Arc<Node>, pod: &Pod) -> Self {
        let name = pod.vmi.as_ref().map(|vmi| vmi.name.as_str()).unwrap_or_default();
        Self {
            uid: pod.uid.clone(),
            place: Place::of(&node.kubelet, &pod.uid),
            changes: node.pods.changes(),
            objects: node.vmis.follow(&pod.namespace, name),
            node,
        }
    }

    /// Runs until the pod is gone.
    pub async fn run(mut self) {
        let Some((known, fresh)) = self.know().await else { return self.forget() };
        let vmi = Vmi { object: known.vmi.clone(), fresh };
        match self.reach().await {
            Some(found) => self.serve(vmi, &known, &found).await,
            None => self.tell_lost(vmi).await,
        }
        while self.pod().is_some() {
            self.changed().await;
        }
        self.forget();
    }

    fn pod(&self) -> Option<Arc<Pod>> {
        self.node.pods.get(&self.uid)
    }

    fn forget(&self) {
        self.node.nics.forget(&self.uid);
    }

    /// Returns when a pod of the node has changed.
    async fn changed(&mut self) {
        if self.changes.changed().await.is_err() {
            std::future::pending().await
        }
    }

    /// What the pod needs to run, from the disk or from the API server, with whether it is the latter; none once the
    /// pod is gone.
    async fn know(&mut self) -> Option<(Arc<Known>, bool)> {
        if let Some(known) = self.node.nics.get(&self.uid) {
            return Some((known, false));
        }
        let mut pause = RETRY.0;
        let mut told = String::new();
        loop {
            let pod = self.pod()?;
            match self.learn(&pod).await {
                Ok(known) => return Some((known, true)),
                Err(why) => {
                    if told != why {
                        tracing::warn!(pod = pod.name, "the NICs of a VM are not known yet: {why}");
                    }
                    self.node.nics.put_off(&self.uid, why.clone());
                    told = why;
                }
            }
            tokio::select! {
                () = sleep(pause) => pause = (pause * 2).min(RETRY.1),
                // Not each of another pod's changes is a reason to ask again.
                () = self.gone() => return None,
            }
        }
    }

    async fn gone(&mut self) {
        while self.pod().is_some() {
            self.changed().await;
        }
    }

    async fn learn(&self, pod: &Pod) -> Result<Arc<Known>, String> {
        let owner = pod.vmi.as_ref().ok_or("the pod is no launcher's")?;
        let seen = self.objects.borrow().clone();
        let vmi = match seen.filter(|vmi| vmi.metadata.uid.as_deref() == Some(&owner.uid)) {
            Some(vmi) => (*vmi).clone(),
            None => self.get(pod).await?.ok_or("its VMI is gone")?,
        };
        let nics = prove(&self.node.client, pod, &vmi).await.map_err(|error| holdfast_kubernetes::chain(&error))?;
        let nics = complete(nics, &vmi)?;
        let known = Known { pod_uid: self.uid.clone(), vmi, nics };
        self.node.nics.put(known).await.map_err(|error| holdfast_kubernetes::chain(&error))
    }

    /// The pod's VMI as the API server has it; none where it is gone.
    async fn get(&self, pod: &Pod) -> Result<Option<VirtualMachineInstance>, String> {
        let Some(owner) = &pod.vmi else { return Ok(None) };
        let api = Api::<VirtualMachineInstance>::namespaced(self.node.client.clone(), &pod.namespace);
        match timeout(ASK, api.get_opt(&owner.name)).await {
            Ok(Ok(found)) => Ok(found.filter(|vmi| vmi.metadata.uid.as_deref() == Some(&owner.uid))),
            Ok(Err(error)) => Err(holdfast_kubernetes::chain(&error)),
            Err(_) => Err("the API server does not answer".to_owned()),
        }
    }

    /// Waits for the launcher; none where its pod has ended, or is gone, before it was found.
    async fn reach(&mut self) -> Option<Found> {
        let socket = self.place.socket();
        let uid = self.uid.clone();
        let finding = async {
            let mut pause = LISTEN.0;
            loop {
                if let Err(error) = appears(&socket).await {
                    tracing::warn!(%error, "failed to watch for a launcher");
                    sleep(RETRY.1).await;
                    continue;
                }
                match find(&socket, &uid).await {
                    Ok(found) => return found,
                    Err(FindError::Absent { .. }) => {}
                    Err(error) => {
                        tracing::warn!("{}", holdfast_kubernetes::chain(&error));
                        pause = LISTEN.1;
                    }
                }
                sleep(pause).await;
                pause = (pause * 2).min(LISTEN.1);
            }
        };
        tokio::pin!(finding);
        loop {
            let is_over = self.pod()?.is_over();
            tokio::select! {
                biased;
                found = &mut finding => return Some(found),
                () = sleep(PARTING), if is_over => return None,
                () = self.changed(), if !is_over => {}
            }
        }
    }

    /// Looks after a VMI whose launcher was found, until it has ended or its pod is gone.
    async fn serve(&mut self, mut vmi: Vmi, known: &Known, found: &Found) {
        let Some(pod) = self.pod() else { return };
        let sandbox = self.sandbox(&vmi, found);
        self.node.use_sandbox(&sandbox.id, true);
        let mut context = self.node.vmi.clone();
        context.emulation = !(pod.kvm && self.node.kvm);
        let mut wanted = self.wanted(&vmi, &pod);
        let input = |vmi: &Vmi, wanted: Wanted| VmiInput {
            vmi: vmi.object.clone(),
            sandbox: sandbox.clone(),
            nics: known.nics.iter().map(NicInput::from).collect(),
            wanted,
        };
        let task = Arc::new(VmiTask::spawn(context, input(&vmi, wanted)));
        let entry = Entry {
            about: about(&vmi.object),
            uid: vmi.object.metadata.uid.clone().unwrap_or_default(),
            task: Arc::clone(&task),
            private: self.place.private(),
        };
        let name = vmi.object.metadata.name.clone().unwrap_or_default();
        let _entered = self.node.running.enter(&pod.namespace, &name, entry);
        let mut reports = task.report();
        let mut told = VmiReport::default();
        let mut again: Option<(Instant, Duration)> = None;
        loop {
            let report = reports.borrow_and_update().clone();
            self.look(&mut vmi);
            match self.tell(&mut vmi, &mut told, &report).await {
                Ok(()) => again = None,
                Err(error) => {
                    let pause = again.map_or(RETRY.0, |(_, pause)| (pause * 2).min(RETRY.1));
                    if again.is_none() {
                        tracing::warn!(error, "failed to write a VMI's status; trying again");
                    }
                    again = Some((Instant::now() + pause, pause));
                }
            }
            let Some(pod) = self.pod() else { break };
            if report.final_state().is_some() && again.is_none() && is_final(&vmi.object) {
                break;
            }
            wanted = self.wanted(&vmi, &pod);
            task.update(input(&vmi, wanted));
            tokio::select! {
                changed = reports.changed() => if changed.is_err() {
                    tracing::error!("a VMI's task ended by itself");
                    break;
                },
                changed = self.objects.changed() => if changed.is_err() { break },
                changed = self.changes.changed() => if changed.is_err() { break },
                () = at(again.map(|(at, _)| at)) => {}
            }
        }
        self.node.use_sandbox(&sandbox.id, false);
    }

    /// The sandbox: CNI's own id of it, where an interface of ours is in it.
    fn sandbox(&self, vmi: &Vmi, found: &Found) -> Sandbox {
        let attached = self.node.registry.of_pod(&self.uid);
        let here = attached.into_iter().find(|entry| entry.record.netns == found.id);
        Sandbox {
            id: here.map_or_else(|| self.uid.clone(), |entry| entry.record.key.container_id),
            netns: found.path(),
            share_dir: self.place.share(),
            private_dir: self.place.private().join(vmi.object.metadata.uid.as_deref().unwrap_or_default()),
            launcher_socket: self.place.socket(),
        }
    }

    /// Takes over what the API server has told of the VMI meanwhile.
    fn look(&mut self, vmi: &mut Vmi) {
        let Some(seen) = self.objects.borrow_and_update().clone() else { return };
        if seen.metadata.uid != vmi.object.metadata.uid || (vmi.fresh && !is_newer(&seen, &vmi.object)) {
            return;
        }
        vmi.fresh = true;
        if seen.spec != vmi.object.spec
            && let Some(known) = self.node.nics.get(&self.uid)
        {
            let (nics, known) = (self.node.nics.clone(), Known { vmi: (*seen).clone(), ..(*known).clone() });
            tokio::spawn(async move {
                if let Err(error) = nics.put(known).await {
                    tracing::error!(error = holdfast_kubernetes::chain(&error), "a VMI cannot be written down");
                }
            });
        }
        vmi.object = (*seen).clone();
    }

    /// Whether the VMI shall run, from its own and its pod's point of view.
    fn wanted(&self, vmi: &Vmi, pod: &Pod) -> Wanted {
        let meta = &vmi.object.metadata;
        let grace = vmi.object.spec.termination_grace_period_seconds;
        let grace = grace.map_or(DEFAULT_GRACE, |seconds| u64::try_from(seconds).unwrap_or(0));
        let of_vmi = (meta.deletion_timestamp.is_some() || (vmi.fresh && is_final(&vmi.object))).then_some(grace);
        let of_pod = pod.deleting.map(|seconds| seconds.saturating_sub(POD_OVERTIME));
        match of_vmi.into_iter().chain(of_pod).min() {
            None => Wanted::Run,
            Some(grace_seconds) => Wanted::Shutdown { grace_seconds },
        }
    }

    /// Tells what is new in a report: events, and the status.
    async fn tell(&self, vmi: &mut Vmi, told: &mut VmiReport, report: &VmiReport) -> Result<(), String> {
        if !vmi.fresh {
            return Ok(());
        }
        if told != report {
            let found = events(&vmi.object, told, report);
            if !found.is_empty() {
                let (node, about) = (Arc::clone(&self.node), about(&vmi.object));
                tokio::spawn(async move {
                    for event in found {
                        let kind = match event.kind {
                            OccurrenceKind::Normal => EventType::Normal,
                            OccurrenceKind::Warning => EventType::Warning,
                        };
                        node.events.publish(&about, kind, &event.reason, &event.message).await;
                    }
                });
            }
            *told = report.clone();
        }
        match status::write(&self.node.client, &vmi.object, report, &self.node.name).await {
            Written::Done(object) => {
                if is_newer(&object, &vmi.object) {
                    vmi.object = *object;
                }
                Ok(())
            }
            Written::Nothing | Written::Gone => Ok(()),
            Written::Failed(error) => Err(error),
        }
    }

    /// The pod has ended, and its launcher was never heard by this process: what is left of its last words, or the
    /// pod's own end, is all that is known.
    async fn tell_lost(&mut self, mut vmi: Vmi) {
        let mut pause = RETRY.0;
        loop {
            let Some(pod) = self.pod() else { return };
            self.look(&mut vmi);
            let end = last_words(&self.place.share()).unwrap_or_else(|| lost(&pod));
            let mut report = VmiReport::default();
            report.domain.state = DomainState::Final(end);
            let result = match vmi.fresh {
                true => self.tell(&mut vmi, &mut VmiReport::default(), &report).await,
                // The watch tells of VMIs that are this node's; others are the controller's.
                false => Ok(()),
            };
            if result.is_ok() && vmi.fresh && is_final(&vmi.object) {
                return;
            }
            tokio::select! {
                () = sleep(pause), if result.is_err() => pause = (pause * 2).min(RETRY.1),
                changed = self.changes.changed() => if changed.is_err() { return },
                changed = self.objects.changed() => if changed.is_err() { return },
            }
        }
    }
}

/// How a VM has ended of which nothing is known but its pod.
fn lost(pod: &Pod) -> FinalState {
    let succeeded = pod.phase == "Succeeded";
    let reason = if succeeded { "Shutdown" } else { "LauncherLost" };
    FinalState {
        succeeded,
        reason: reason.to_owned(),
        message: format!("launcher lost: its pod `{}` has ended ({})", pod.name, pod.phase),
    }
}

/// The NICs with those that the annotation has left out, in the order of the spec.
fn complete(nics: Vec<Nic>, vmi: &VirtualMachineInstance) -> Result<Vec<Nic>, String> {
    let all = wanted(vmi).map_err(|error| error.to_string())?;
    let find = |name: &str| nics.iter().find(|nic| nic.interface == name).cloned();
    let bare = |interface: String, network: String, ifname| Nic { interface, network, ifname, lease: None };
    Ok(all
        .into_iter()
        .map(|nic| find(&nic.interface).unwrap_or_else(|| bare(nic.interface, nic.network.name, nic.ifname)))
        .collect())
}

/// Whether an object was read later than another of the same UID. Versions can be compared (Kubernetes 1.35,
/// "resource versions"); those that cannot are taken for later.
fn is_newer(a: &VirtualMachineInstance, b: &VirtualMachineInstance) -> bool {
    let version = |vmi: &VirtualMachineInstance| vmi.metadata.resource_version.as_ref()?.parse::<u128>().ok();
    match (version(a), version(b)) {
        (Some(a), Some(b)) => a > b,
        _ => true,
    }
}

fn about(vmi: &VirtualMachineInstance) -> ObjectReference {
    vmi.object_ref(&())
}

/// Returns at that time; never where there is none.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    fn vmi(version: &str) -> VirtualMachineInstance {
        serde_json::from_value(json!({
            "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
            "metadata": {"name": "a", "namespace": "lab", "uid": "u", "resourceVersion": version},
            "spec": {
                "domain": {"devices": {"interfaces": [
                    {"name": "default", "masquerade": {}}, {"name": "lan", "bridge": {}}]}},
                "networks": [{"name": "default", "pod": {}}, {"name": "lan", "multus": {"networkName": "lan"}}]},
        }))
        .unwrap()
    }

    #[test]
    fn nics_without_leases_are_filled_in() {
        let lan: Nic = serde_json::from_value(json!({"interface": "lan", "network": "lan", "ifname": "pod5"})).unwrap();
        let all = complete(vec![lan.clone()], &vmi("1")).unwrap();
        assert_eq!((all[0].interface.as_str(), all[0].ifname.as_str()), ("default", "eth0"));
        assert_eq!(all[1], lan);
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(is_newer(&vmi("10"), &vmi("9")));
        assert!(!is_newer(&vmi("9"), &vmi("10")));
        assert!(!is_newer(&vmi("9"), &vmi("9")));
        assert!(is_newer(&vmi("x"), &vmi("9")));
    }

    #[test]
    fn a_pod_that_succeeded_had_a_guest_that_did() {
        let pod = |phase: &str| Pod { phase: phase.to_owned(), ..Pod::default() };
        assert!(lost(&pod("Succeeded")).succeeded);
        assert!(!lost(&pod("Failed")).succeeded);
    }
}
