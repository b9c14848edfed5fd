//! What of a pod matters, and nothing more: this is what is kept of each.

use std::collections::BTreeMap;
use std::net::IpAddr;

use holdfast_api::lease::Claim;
use holdfast_ipam::nic::{NICS_ANNOTATION, Nic};
use holdfast_net::model::MacAddr;
use k8s_openapi::api::core::v1::{ContainerState, Pod, PodCondition};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::{COMPUTE, CREATED_BY_LABEL, DOMAIN_ANNOTATION};
use crate::engine::{Cached, Key};

/// A pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodFacts {
    /// Namespace and name.
    pub key: Key,
    /// `metadata.uid`.
    pub uid: String,
    /// UID of what controls it, or of the VMI that it was made for where that is let go of (`--cascade=orphan`): its
    /// guest runs on.
    pub owner: String,
    /// Name of the same.
    pub owner_name: String,
    /// The node that it is bound to.
    pub node: Option<String>,
    /// The image that the container was asked to run.
    pub image: Option<String>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// `status.phase`.
    pub phase: String,
    /// Why it has that phase, where the kubelet says: a CamelCase word.
    pub reason: String,
    /// The same as a sentence.
    pub message: String,
    /// Since when it is bound to its node; since when it exists where that is not told.
    pub bound: Option<Timestamp>,
    /// Whether any container of it was ever started.
    pub ran: bool,
    /// `status.qosClass`.
    pub qos_class: Option<String>,
    /// Its conditions, without what tells only of time.
    pub conditions: Vec<PodCondition>,
    /// The container `compute`, or the only one.
    pub compute: ComputeState,
    /// Its NICs on networks of ours.
    pub nics: Vec<LeasedNic>,
}

/// The addresses that a NIC speaks from, as its pod's annotation says: who believes it looks at the claim first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeasedNic {
    /// Who holds them, and on which network.
    pub claim: Claim,
    /// Ethernet address.
    pub mac: MacAddr,
    /// IP addresses.
    pub addresses: Vec<IpAddr>,
}

/// How far a container is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ComputeState {
    /// Nothing is told of it.
    #[default]
    Unknown,
    /// It has not begun.
    Waiting {
        /// CamelCase word.
        reason: String,
        /// Sentence.
        message: String,
    },
    /// It runs.
    Running,
    /// It has ended.
    Terminated {
        /// When, where that is told.
        at: Option<Timestamp>,
    },
}

impl PodFacts {
    /// The condition of that type.
    pub fn condition(&self, kind: &str) -> Option<&PodCondition> {
        self.conditions.iter().find(|condition| condition.type_ == kind)
    }

    /// Whether the kubelet says that all its containers have ended.
    pub fn is_over(&self) -> bool {
        matches!(self.phase.as_str(), "Succeeded" | "Failed")
    }

    /// Whether its kubelet gave it up before it started anything: it had no place for it, or no device.
    pub fn was_refused(&self) -> bool {
        self.phase == "Failed" && !self.ran
    }

    /// Whether it has a node, and what is to start there has not begun, for no reason that its status tells.
    pub fn waits_on_node(&self) -> bool {
        let quiet = match &self.compute {
            ComputeState::Unknown => true,
            ComputeState::Waiting { reason, .. } => is_ordinary(reason),
            ComputeState::Running | ComputeState::Terminated { .. } => false,
        };
        quiet && self.node.is_some() && !self.deleting && !self.is_over()
    }

    /// Whether it is ready to serve.
    pub fn is_ready(&self) -> bool {
        self.condition("Ready").is_some_and(|condition| condition.status == "True")
    }

    /// Of a pod as the API server has it.
    pub fn of(pod: Pod) -> Self {
        let (meta, status) = (pod.metadata, pod.status.unwrap_or_default());
        let text = |of: &Option<BTreeMap<String, String>>, key: &str| of.as_ref().and_then(|of| of.get(key)).cloned();
        let nics = text(&meta.annotations, NICS_ANNOTATION);
        let owner = meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
        let (owner, owner_name) = match owner {
            Some(owner) => (Some(owner.uid.clone()), Some(owner.name.clone())),
            None => (text(&meta.labels, CREATED_BY_LABEL), text(&meta.annotations, DOMAIN_ANNOTATION)),
        };
        let states = status.container_statuses.unwrap_or_default();
        let inits = status.init_container_statuses.unwrap_or_default();
        let ran = states.iter().chain(&inits).any(|state| state.container_id.as_ref().is_some_and(|id| !id.is_empty()));
        let conditions = status.conditions.unwrap_or_default();
        let scheduled =
            conditions.iter().find(|condition| condition.type_ == "PodScheduled" && condition.status == "True");
        let bound = scheduled.and_then(|condition| condition.last_transition_time.as_ref());
        let compute = states.iter().find(|state| state.name == COMPUTE).or_else(|| states.first());
        let strip = |condition: PodCondition| PodCondition {
            last_probe_time: None,
            last_transition_time: None,
            observed_generation: None,
            ..condition
        };
        let spec = pod.spec.unwrap_or_default();
        let container = spec.containers.iter().find(|container| container.name == COMPUTE).or(spec.containers.first());
        Self {
            key: Key::of(&meta),
            nics: nics.map(|text| LeasedNic::read(&text)).unwrap_or_default(),
            bound: bound.or(meta.creation_timestamp.as_ref()).map(|time| time.0),
            ran,
            image: container.and_then(|container| container.image.clone()),
            owner: owner.unwrap_or_default(),
            owner_name: owner_name.unwrap_or_default(),
            uid: meta.uid.unwrap_or_default(),
            node: spec.node_name,
            deleting: meta.deletion_timestamp.is_some(),
            phase: status.phase.unwrap_or_default(),
            reason: status.reason.unwrap_or_default(),
            message: status.message.unwrap_or_default(),
            qos_class: status.qos_class,
            conditions: conditions.into_iter().map(strip).collect(),
            compute: compute.and_then(|state| state.state.as_ref()).map(ComputeState::of).unwrap_or_default(),
        }
    }
}

impl LeasedNic {
    /// Those of an annotation; none of one that cannot be read.
    fn read(text: &str) -> Vec<Self> {
        let nics: Vec<Nic> = serde_json::from_str(text).unwrap_or_default();
        let leased = nics.into_iter().filter_map(|nic| nic.lease).map(|lease| Self {
            addresses: lease.addresses.iter().map(|address| address.ip().to_canonical()).collect(),
            claim: lease.claim,
            mac: lease.mac,
        });
        leased.collect()
    }
}

/// Reasons for which a container waits on its ordinary way.
pub fn is_ordinary(reason: &str) -> bool {
    matches!(reason, "" | "ContainerCreating" | "PodInitializing")
}

impl ComputeState {
    fn of(state: &ContainerState) -> Self {
        match state {
            ContainerState { running: Some(_), .. } => Self::Running,
            ContainerState { terminated: Some(end), .. } => {
                Self::Terminated { at: end.finished_at.as_ref().map(|time| time.0) }
            }
            ContainerState { waiting: Some(waiting), .. } => Self::Waiting {
                reason: waiting.reason.clone().unwrap_or_default(),
                message: waiting.message.clone().unwrap_or_default(),
            },
            _ => Self::Unknown,
        }
    }
}

impl Cached for PodFacts {
    fn read(object: Value) -> Result<Self, serde_json::Error> {
        serde_json::from_value(object).map(Self::of)
    }
}
