//! What the agent must know of the VMs on its node: which NIC of which VM an interface of a pod carries.
//!
//! Whoever runs the agent answers from memory: the objects of a cluster's cache, or of a folder. CNI ADD never
//! allocates for a VM; it takes what stands here.

mod networks;

use futures::future::BoxFuture;
use holdfast_api::lease::Claim;
use holdfast_api::nad::Bandwidth;
use holdfast_api::underlay::AddressPair;
use holdfast_ipam::nic::NicLease;
use holdfast_net::model::{Delivery, IfName, MacAddr};
use ipnetwork::IpNetwork;

use crate::cni::result::CniResult;

pub use networks::{Attach, AttachError, attachments};

/// A pod as CNI_ARGS names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PodRef {
    /// K8S_POD_NAMESPACE; empty where the runtime tells none.
    pub namespace: String,
    /// K8S_POD_NAME.
    pub name: String,
    /// K8S_POD_UID.
    pub uid: String,
}

/// A NIC of a VM, with the addresses that it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmNic {
    /// The claim that holds the leases; `claim.network` is the network's name in the VM's spec.
    pub claim: Claim,
    /// The guest's Ethernet address.
    pub mac: MacAddr,
    /// The guest's addresses with their prefix; empty where the network has no subnets.
    pub addresses: Vec<IpNetwork>,
    /// What the guest is told about the network.
    pub delivery: Option<Delivery>,
    /// Whether the guest itself carries the addresses (binding `bridge`). Where it does, the pod's interface
    /// gets none of them, and an Ethernet address of its own, so that nothing speaks for the guest before it
    /// runs. Where it does not, the pod's interface carries both.
    pub vm_owned: bool,
    /// What the guest asks to use beside its addresses; what of it the network allows is seen to when it is attached.
    pub pairs: Vec<AddressPair>,
    /// How much it asks to carry.
    pub bandwidth: Option<Bandwidth>,
}

impl From<&NicLease> for VmNic {
    fn from(lease: &NicLease) -> Self {
        Self {
            claim: lease.claim.clone(),
            mac: lease.mac,
            addresses: lease.addresses.clone(),
            delivery: Some(lease.delivery.clone()),
            vm_owned: lease.vm_owned,
            pairs: lease.pairs.clone(),
            bandwidth: lease.bandwidth.clone(),
        }
    }
}

/// Who runs on this node.
pub trait Workloads: Send + Sync + 'static {
    /// The VM NIC that the interface `ifname` of `pod` carries; none for a pod without a VM, and for an
    /// interface of a VM's pod that is addressed like any pod's (masquerade on the pod network).
    ///
    /// # Errors
    /// [`NotReady`] where the pod is a VM's and its addresses are not known yet: the runtime tries again.
    fn vm_nic(&self, pod: &PodRef, ifname: &IfName) -> Result<Option<VmNic>, NotReady>;

    /// Returns when [`Self::vm_nic`] can be answered for a pod that has just appeared, or when it has been waited
    /// for long enough.
    fn settled<'a>(&'a self, _pod: &'a PodRef) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }

    /// The networks that a pod joins besides its own, for our plugin behind the primary one to make; none where
    /// somebody else sees to that.
    ///
    /// # Errors
    /// [`AttachError`]: the pod asks for something that cannot be, or is not known yet.
    fn networks<'a>(&'a self, _pod: &'a PodRef) -> BoxFuture<'a, Result<Vec<Attach>, AttachError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    /// Told behind the answer that a pod has joined what [`Self::networks`] said. Must not block.
    fn joined(&self, _joined: Joined) {}
}

/// What became of a pod's networks.
#[derive(Clone, Debug, PartialEq)]
pub struct Joined {
    /// The pod.
    pub pod: PodRef,
    /// Name of its primary network.
    pub primary: String,
    /// Its primary interface.
    pub ifname: String,
    /// What the primary plugins answered.
    pub result: CniResult,
    /// The further networks by name, `namespace/name`, with what each gave.
    pub further: Vec<(String, CniResult)>,
}

/// The pod is a VM's, but what its NIC needs is not known (yet).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the addresses of interface `{ifname}` of pod `{pod}` are not known yet: {reason}")]
pub struct NotReady {
    /// `namespace/name` of the pod.
    pub pod: String,
    /// The interface.
    pub ifname: IfName,
    /// What is missing.
    pub reason: String,
}

/// A node without VMs: each pod is a plain one.
#[derive(Clone, Copy, Debug, Default)]
pub struct PlainPods;

impl Workloads for PlainPods {
    fn vm_nic(&self, _pod: &PodRef, _ifname: &IfName) -> Result<Option<VmNic>, NotReady> {
        Ok(None)
    }
}
