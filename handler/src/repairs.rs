//! Events of plain pods whose attachments were changed behind our back. Those of VMs are told by their tasks.

use holdfast_agent::repairs::Heard;
use holdfast_agent::workloads::PodRef;
use holdfast_kubernetes::events::{EventType, Events};
use k8s_openapi::api::core::v1::ObjectReference;

use crate::pods::{Pod, Pods};

/// Tells of repairs for as long as there may be any.
pub async fn tell(mut repairs: Heard, pods: Pods, events: Events) {
    loop {
        let repair = repairs.next().await;
        if repair.pod_uid.is_empty() {
            continue;
        }
        let pod = PodRef { uid: repair.pod_uid.clone(), ..PodRef::default() };
        let Some(pod) = pods.find(&pod).filter(|pod| pod.vmi.is_none()) else { continue };
        let events = events.clone();
        tokio::spawn(async move {
            let message = format!("The network of the pod had been changed; mended: {}", repair.what);
            events.publish(&about(&pod), EventType::Warning, "NetworkRepaired", &message).await;
        });
    }
}

fn about(pod: &Pod) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(pod.namespace.clone()),
        name: Some(pod.name.clone()),
        uid: Some(pod.uid.clone()),
        ..ObjectReference::default()
    }
}
