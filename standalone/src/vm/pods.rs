//! Which NIC of which VM an interface of a sandbox carries: the agent asks when a CNI plugin calls.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use holdfast_agent::workloads::{NotReady, PodRef, VmNic, Workloads};
use holdfast_ipam::nic::Nic;
use holdfast_net::model::IfName;

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
        Ok(nic.lease.as_ref().map(VmNic::from))
    }
}
