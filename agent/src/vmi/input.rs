//! What a VMI's task is given. A new value replaces the old one as a whole; the task converges to it.

use std::path::PathBuf;

use holdfast_api::kubevirt::VirtualMachineInstance;
use holdfast_ipam::nic::Nic;
use holdfast_net::model::{Delivery, IfName, MacAddr};

/// A VMI that has a sandbox on this node, as it shall be.
#[derive(Clone, Debug, PartialEq)]
pub struct VmiInput {
    /// The object, defaulted. Its spec is read; its status only by [`super::status`].
    pub vmi: VirtualMachineInstance,
    /// Where it runs.
    pub sandbox: Sandbox,
    /// Its NICs in the order of the spec. One of `state: absent` is let go, and left out once it is gone.
    pub nics: Vec<NicInput>,
    /// Whether it shall run.
    pub wanted: Wanted,
}

impl VmiInput {
    /// Leaves the NICs out of the spec whose networks the sandbox has not joined: they are plugged once it has.
    #[must_use]
    pub fn joined(mut self) -> Self {
        let nics = &self.nics;
        let interfaces = &mut self.vmi.spec.domain.devices.interfaces;
        interfaces.retain(|interface| nics.iter().any(|nic| nic.interface == interface.name));
        self
    }
}

/// The sandbox of a VMI: what the pod is in a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// CNI's container id.
    pub id: String,
    /// Path of its network namespace.
    pub netns: PathBuf,
    /// What the launcher sees as /var/run/kubevirt; it leaves `final.json` here.
    pub share_dir: PathBuf,
    /// What the launcher sees as `/var/run/kubevirt-private/<VMI uid>`: the console's socket.
    pub private_dir: PathBuf,
    /// Where the launcher listens.
    pub launcher_socket: PathBuf,
}

/// What is known of a NIC beside the VMI's spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NicInput {
    /// `spec.domain.devices.interfaces[].name`.
    pub interface: String,
    /// `spec.networks[].name`.
    pub network: String,
    /// The pod's interface that CNI made for it.
    pub pod_interface: IfName,
    /// The MAC that the VM's lease or its earlier runs settled; what the spec says comes first.
    pub mac: Option<MacAddr>,
    /// What the network delivers to the guest; none where the pod interface's own addresses are the guest's.
    pub delivery: Option<Delivery>,
}

impl From<&Nic> for NicInput {
    fn from(nic: &Nic) -> Self {
        Self {
            interface: nic.interface.clone(),
            network: nic.network.clone(),
            pod_interface: nic.ifname.clone(),
            mac: nic.lease.as_ref().map(|lease| lease.mac),
            delivery: nic.lease.as_ref().filter(|lease| lease.vm_owned).map(|lease| lease.delivery.clone()),
        }
    }
}

/// Whether a VMI shall run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// It shall run.
    Run,
    /// It shall end.
    Shutdown {
        /// Seconds that the guest has to power off; 0 ends it at once.
        grace_seconds: u64,
    },
}
