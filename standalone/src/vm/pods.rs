//! Which NIC of which VM an interface of a sandbox carries: the agent asks when a CNI plugin calls.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use holdfast_agent::vmi::NicInput;
use holdfast_agent::workloads::{NotReady, PodRef, VmNic, Workloads};
use holdfast_api::lease::Claim;
use holdfast_net::model::{Delivery, IfName, MacAddr};
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

/// A NIC of a VMI in its sandbox; remembered with it, so that a VM that runs needs nothing else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Nic {
    /// `spec.domain.devices.interfaces[].name`.
    pub interface: String,
    /// `spec.networks[].name`.
    pub network: String,
    /// The sandbox's interface.
    pub ifname: IfName,
    /// Its leases, on a network of ours.
    pub lease: Option<NicLease>,
}

/// The addresses of a NIC on a network of ours.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NicLease {
    /// Who holds them.
    pub claim: Claim,
    /// Ethernet address.
    pub mac: MacAddr,
    /// IP addresses.
    pub addresses: Vec<IpNetwork>,
    /// What the guest is told.
    pub delivery: Delivery,
    /// Whether the guest carries them itself.
    pub vm_owned: bool,
}

impl Nic {
    /// The NIC as a VMI's task takes it.
    pub fn input(&self) -> NicInput {
        NicInput {
            interface: self.interface.clone(),
            network: self.network.clone(),
            pod_interface: self.ifname.clone(),
            mac: self.lease.as_ref().map(|lease| lease.mac),
            delivery: self.lease.as_ref().filter(|lease| lease.vm_owned).map(|lease| lease.delivery.clone()),
        }
    }
}

/// The NICs by pod (`namespace/name`). Cloning it is cheap.
#[derive(Clone, Default)]
pub struct Pods(Arc<Mutex<BTreeMap<String, Vec<Nic>>>>);

impl Pods {
    /// Says what a pod's interfaces carry.
    pub fn put(&self, namespace: &str, pod: &str, nics: Vec<Nic>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(format!("{namespace}/{pod}"), nics);
    }

    /// Forgets a pod.
    pub fn remove(&self, namespace: &str, pod: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&format!("{namespace}/{pod}"));
    }
}

impl Workloads for Pods {
    fn vm_nic(&self, pod: &PodRef, ifname: &IfName) -> Result<Option<VmNic>, NotReady> {
        let pods = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let nics = pods.get(&format!("{}/{}", pod.namespace, pod.name));
        let Some(nic) = nics.into_iter().flatten().find(|nic| nic.ifname == *ifname) else { return Ok(None) };
        Ok(nic.lease.as_ref().map(|lease| VmNic {
            claim: lease.claim.clone(),
            mac: lease.mac,
            addresses: lease.addresses.clone(),
            delivery: Some(lease.delivery.clone()),
            vm_owned: lease.vm_owned,
        }))
    }
}
