//! The pod of a former VMI of the same name, which may run the same VM still.
//!
//! A VMI goes only after its pod, unless somebody takes its finalizers away. The pod that it leaves behind keeps its
//! guest, with the VM's addresses and disks, for as long as that takes to shut down, so no other is made before it has
//! ended. The API server is asked, and not a cache. That the pod ends is told by the watch of all launchers' pods.

use holdfast_api::kubevirt::VirtualMachineInstance;
use k8s_openapi::api::core::v1::Pod;

use super::decide::Told;
use crate::api::{self, ApiError};
use crate::context::Context;
use crate::pod::{PodFacts, pods_of};

/// Why a VMI cannot have a pod yet, where one of a former VMI is in the way.
pub(super) async fn in_the_way(context: &Context, vmi: &VirtualMachineInstance) -> Result<Option<Told>, ApiError> {
    let meta = &vmi.metadata;
    let (namespace, name) = (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
    let pods: Vec<Pod> = api::list(&context.client, namespace, &pods_of(name)).await?;
    Ok(first(vmi, pods.into_iter().map(PodFacts::of)).map(|pod| told(&pod)))
}

/// The first by name of the pods that are of a former VMI of this name and have not ended. One that is being deleted
/// has not, and neither has one on a node that does not answer.
fn first(vmi: &VirtualMachineInstance, pods: impl Iterator<Item = PodFacts>) -> Option<PodFacts> {
    let meta = &vmi.metadata;
    let is_former =
        |pod: &PodFacts| Some(&pod.owner_name) == meta.name.as_ref() && Some(&pod.owner) != meta.uid.as_ref();
    pods.filter(|pod| is_former(pod) && !pod.is_over()).min_by(|a, b| a.key.cmp(&b.key))
}

fn told(pod: &PodFacts) -> Told {
    let place = pod.node.as_ref().map_or_else(|| "without a node yet".to_owned(), |node| format!("on node {node}"));
    let message = format!(
        "Pod {}, {place}, is of a former virtual machine instance of this name and has not ended; no other is made \
         before it has, or is gone",
        pod.key.name
    );
    Told { reason: "FormerPodExists".to_owned(), message }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::engine::Key;

    fn vmi() -> VirtualMachineInstance {
        serde_json::from_value(json!({"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
            "metadata": {"name": "a", "namespace": "n", "uid": "new"}, "spec": {"domain": {"devices": {}}}}))
        .unwrap()
    }

    fn pod(name: &str, owner: &str) -> PodFacts {
        PodFacts {
            key: Key::new("n", name),
            owner: owner.to_owned(),
            owner_name: "a".to_owned(),
            node: Some("n1".to_owned()),
            phase: "Running".to_owned(),
            ..PodFacts::default()
        }
    }

    fn found(pods: &[PodFacts]) -> Option<String> {
        first(&vmi(), pods.iter().cloned()).map(|pod| pod.key.name)
    }

    #[test]
    fn a_former_pod_is_in_the_way_until_it_has_ended() {
        let former = pod("p", "old");
        for phase in ["", "Pending", "Running", "Unknown"] {
            for deleting in [false, true] {
                let pod = PodFacts { phase: phase.to_owned(), deleting, ..former.clone() };
                assert_eq!(found(&[pod]).as_deref(), Some("p"), "{phase} {deleting}");
            }
        }
        for phase in ["Succeeded", "Failed"] {
            assert_eq!(found(&[PodFacts { phase: phase.to_owned(), ..former.clone() }]), None, "{phase}");
        }
        let waits = PodFacts { node: None, phase: "Pending".to_owned(), ..former.clone() };
        assert_eq!(found(std::slice::from_ref(&waits)).as_deref(), Some("p"), "it may get a node yet");
        assert_eq!(found(&[]), None);
        // Of several always the same is told.
        let both = [pod("q", "older"), former.clone()];
        assert_eq!(found(&both).as_deref(), Some("p"));

        let told = (told(&former), told(&waits));
        assert_eq!(told.0.reason, "FormerPodExists");
        assert!(told.0.message.starts_with("Pod p, on node n1, is of a former"), "{}", told.0.message);
        assert!(told.1.message.starts_with("Pod p, without a node yet, is of"), "{}", told.1.message);
    }

    #[test]
    fn its_own_pod_and_those_of_others_are_not() {
        assert_eq!(found(&[pod("p", "new")]), None);
        // Long names have labels that may be the same by chance.
        assert_eq!(found(&[PodFacts { owner_name: "b".to_owned(), ..pod("p", "old") }]), None);
        assert_eq!(found(&[pod("o", "new"), pod("p", "old")]).as_deref(), Some("p"));
    }
}
