//! What all controllers share: the caches, and the ways to write and to tell.

use std::sync::Arc;

use holdfast_api::kubevirt::{
    VirtualMachine, VirtualMachineInstance, VirtualMachineInstanceReplicaSet, VirtualMachinePool,
};
use holdfast_api::underlay::UnderlayNetwork;
use holdfast_ipam::leases::LeaseStore;
use holdfast_kubernetes::config::Settings;
use holdfast_kubernetes::events::{EventType, Events};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Client, Resource};
use serde_json::Value;
use tokio::sync::watch;

use crate::engine::{Cache, Cached, Queue};
use crate::leases::Unrestored;
use crate::nodes::NodeFacts;
use crate::pod::PodFacts;
use crate::usage::{Address, Counted};
use crate::vm::revision::Revisions;
use crate::vmi::trouble::Troubles;

/// What the launcher's pods are made of.
#[derive(Clone, Debug)]
pub struct Launcher {
    /// Image of its container.
    pub image: String,
    /// When it is pulled.
    pub pull_policy: String,
}

/// See the module.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// VirtualMachines.
    pub vms: Cache<VirtualMachine>,
    /// VirtualMachineInstances.
    pub vmis: Cache<VirtualMachineInstance>,
    /// VirtualMachineInstanceReplicaSets.
    pub replica_sets: Cache<VirtualMachineInstanceReplicaSet>,
    /// VirtualMachinePools.
    pub pools: Cache<VirtualMachinePool>,
    /// What keeps launchers' pods from starting.
    pub troubles: Troubles,
    /// Launchers' pods.
    pub pods: Cache<PodFacts>,
    /// Nodes.
    pub nodes: Cache<NodeFacts>,
    /// Networks of the data centre.
    pub underlays: Cache<UnderlayNetwork>,
    /// Addresses that somebody has.
    pub ip_leases: Cache<Address>,
    /// When they were counted.
    pub counted: Counted,
    /// Leases that cannot be made again.
    pub unrestored: Unrestored,
    /// virt-handler's pods.
    pub handlers: Cache<PodFacts>,
    /// Queues of the controllers.
    pub queues: Queues,
    /// Leases of addresses.
    pub leases: Arc<dyn LeaseStore>,
    /// The installation's configuration.
    pub settings: watch::Receiver<Arc<Settings>>,
    /// Events in the name of the VM and VMI controllers.
    pub events: Events,
    /// Events in the name of the node controller.
    pub node_events: Events,
    /// The launcher's image.
    pub launcher: Launcher,
    /// What VMIs were made from.
    pub revisions: Revisions,
}

/// Who is told of what.
#[derive(Clone, Debug)]
pub struct Queues {
    /// Of the VM controller.
    pub vms: Queue,
    /// Of the VMI controller.
    pub vmis: Queue,
    /// Of those who keep numbers of VMIs and VMs.
    pub replica_sets: Queue,
    /// See `replica_sets`.
    pub pools: Queue,
    /// Of the node controller.
    pub nodes: Queue,
    /// Of who gives addresses back.
    pub leases: Queue,
    /// Of who counts them.
    pub usage: Queue,
}

impl Context {
    /// The configuration as it is now.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.borrow().clone()
    }

    /// Tells of an object.
    pub async fn event<K: Resource<DynamicType = ()>>(&self, about: &K, kind: EventType, reason: &str, message: &str) {
        self.events.publish(&reference(about), kind, reason, message).await;
    }
}

/// An object as an event names it.
pub fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    object.object_ref(&())
}

impl Cached for VirtualMachine {
    fn read(object: Value) -> Result<Self, serde_json::Error> {
        serde_json::from_value(object)
    }
}

impl Cached for VirtualMachineInstance {
    fn read(object: Value) -> Result<Self, serde_json::Error> {
        serde_json::from_value(object)
    }
}
