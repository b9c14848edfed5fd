//! What the agent asks about pods, answered from memory; the API server is asked only where a pod is called for before
//! its own watch has told of it.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use holdfast_agent::workloads::{Attach, AttachError, Joined, NotReady, PodRef, VmNic, Workloads, attachments};
use holdfast_net::model::IfName;
use k8s_openapi::api::core::v1 as core;
use kube::{Api, Client};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::networks::Definitions;
use crate::nics::Nics;
use crate::pods::{Pod, Pods};

/// How long the watch may lag behind the kubelet's before the API server is asked.
const LAG: Duration = Duration::from_millis(100);
/// How long the API server may take for that.
const ASK: Duration = Duration::from_secs(2);
/// How long an ADD waits for the leases of a VM to be seen.
const LEASES: Duration = Duration::from_secs(4);
/// How a launcher's pod is named: the one kind of pod of which it is certain that it has networks of its own.
const LAUNCHER: &str = "virt-launcher-";

/// The pods of the node as the agent sees them.
pub struct NodeWorkloads {
    /// All of them.
    pub pods: Pods,
    /// NICs of VMs.
    pub nics: Nics,
    /// The networks that a pod may name.
    pub definitions: Definitions,
    /// For pods that are not known.
    pub client: Client,
    /// Takes what is to be told of pods that have joined networks.
    pub joined: mpsc::UnboundedSender<Joined>,
}

impl NodeWorkloads {
    /// The pod of a call; none where it is known to be nobody's, or cannot be known and would rather do without.
    async fn find(&self, pod: &PodRef) -> Result<Option<Arc<Pod>>, AttachError> {
        if let Some(found) = self.pods.find(pod) {
            return Ok(Some(found));
        }
        if !is_of_api(pod) {
            return Ok(None);
        }
        if let Some(found) = self.pods.wait_for(pod, LAG).await {
            return Ok(Some(found));
        }
        let api = Api::<core::Pod>::namespaced(self.client.clone(), &pod.namespace);
        let why = match timeout(ASK, api.get_opt(&pod.name)).await {
            Ok(Ok(found)) => {
                let found = found.as_ref().and_then(Pod::of);
                return Ok(found.filter(|found| pod.uid.is_empty() || found.uid == pod.uid).map(Arc::new));
            }
            Ok(Err(error)) => holdfast_kubernetes::chain(&error),
            Err(_) => "the API server does not answer".to_owned(),
        };
        let name = format!("{}/{}", pod.namespace, pod.name);
        if pod.name.starts_with(LAUNCHER) {
            return Err(AttachError::Unknown { pod: name, why });
        }
        tracing::warn!(pod = name, why, "a pod is not known, and is taken for one without networks of its own");
        Ok(None)
    }
}

/// Whether the API server can know the pod: the kubelet gives static pods a UID that is no UUID.
fn is_of_api(pod: &PodRef) -> bool {
    !pod.name.is_empty() && (pod.uid.is_empty() || uuid::Uuid::try_parse(&pod.uid).is_ok() && pod.uid.contains('-'))
}

impl Workloads for NodeWorkloads {
    fn vm_nic(&self, pod: &PodRef, ifname: &IfName) -> Result<Option<VmNic>, NotReady> {
        let not_ready = |reason: String| {
            Err(NotReady { pod: format!("{}/{}", pod.namespace, pod.name), ifname: ifname.clone(), reason })
        };
        let Some(found) = self.pods.find(pod) else {
            // By hand, or a static one.
            return if is_of_api(pod) { not_ready("the pod itself has not been seen".to_owned()) } else { Ok(None) };
        };
        if found.vmi.is_none() {
            return Ok(None);
        }
        match self.nics.get(&found.uid) {
            None => not_ready(self.nics.why_not(&found.uid)),
            Some(known) => {
                let nic = known.nics.iter().find(|nic| nic.ifname == *ifname);
                Ok(nic.and_then(|nic| nic.lease.as_ref()).map(VmNic::from))
            }
        }
    }

    fn settled<'a>(&'a self, pod: &'a PodRef) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let found = match self.pods.find(pod) {
                None if is_of_api(pod) => self.pods.wait_for(pod, ASK).await,
                found => found,
            };
            if let Some(found) = found.filter(|found| found.vmi.is_some()) {
                self.nics.wait_for(&found.uid, LEASES).await;
            }
        })
    }

    fn networks<'a>(&'a self, pod: &'a PodRef) -> BoxFuture<'a, Result<Vec<Attach>, AttachError>> {
        Box::pin(async move {
            let found = self.find(pod).await?;
            let Some((found, text)) = found.as_ref().and_then(|found| Some((found, found.networks.as_ref()?))) else {
                return Ok(Vec::new());
            };
            attachments(&found.namespace, text, |namespace, name| self.definitions.config(namespace, name))
        })
    }

    fn joined(&self, joined: Joined) {
        // The other end is there for as long as the process is.
        let _ = self.joined.send(joined);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn static_pods_are_told_from_others() {
        let pod = |name: &str, uid: &str| PodRef { namespace: "n".into(), name: name.into(), uid: uid.into() };
        assert!(is_of_api(&pod("p", "dac7dd85-459f-4320-b798-58ed58e793da")));
        assert!(is_of_api(&pod("p", "")));
        assert!(!is_of_api(&pod("p", "a5e3f3a1c2d94b0c8e7f6a5b4c3d2e1f")));
        assert!(!is_of_api(&pod("", "")));
    }
}
