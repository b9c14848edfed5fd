//! Of evictions of launcher pods: a VM that can move is moved in the place of being ended.
//!
//! The one webhook with an effect: it sets `status.evacuationNodeName` of a VMI whose strategy asks for that. What
//! somebody gains who forges a review is thus a VM that moves, and no VM that ends.

use holdfast_api::config::ClusterConfig;
use holdfast_api::error_status::ErrorStatus;
use holdfast_api::kubevirt::VirtualMachineInstance;
use holdfast_api::status::{is_final, is_true};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::time::timeout;

use super::review::{Allowed, Review};
use crate::DEADLINE;
use crate::server::Server;
use holdfast_api::names::is_dns_subdomain;

/// The annotation of a launcher's pod that names its VMI.
const DOMAIN: &str = "kubevirt.io/domain";
/// The label of a pod that says what it is.
const ROLE: &str = "kubevirt.io";

/// What becomes of an eviction.
#[derive(Debug, PartialEq)]
enum Verdict {
    /// The pod goes.
    Pass,
    /// The VMI is to be moved; the eviction is refused until it is gone.
    Evacuate,
    /// It is refused.
    Refuse(String),
}

/// Decides about an eviction, and marks the VMI where it is to be moved.
pub async fn decide(server: &Server, review: &Review) -> Result<Allowed, ErrorStatus> {
    if !is_dns_subdomain(&review.namespace) || !is_dns_subdomain(&review.name) {
        return Err(ErrorStatus::bad_request("the review names no pod"));
    }
    let pods = Api::<Pod>::namespaced(server.client.clone(), &review.namespace);
    let pod = match timeout(DEADLINE, pods.get_opt(&review.name)).await {
        Ok(Ok(Some(pod))) => pod,
        // The API server says so itself.
        Ok(Ok(None)) => return Ok(Allowed::default()),
        Ok(Err(error)) => {
            return Err(refused(&format!("failed to get the pod: {}", holdfast_kubernetes::chain(&error))));
        }
        Err(_) => return Err(refused("failed to get the pod: no answer in time")),
    };
    let Some(name) = instance_of(&pod).filter(|name| is_dns_subdomain(name)) else { return Ok(Allowed::default()) };
    let instances = Api::<VirtualMachineInstance>::namespaced(server.client.clone(), &review.namespace);
    let vmi = match timeout(DEADLINE, instances.get_opt(name)).await {
        Ok(Ok(Some(vmi))) => vmi,
        Ok(Ok(None)) => return Ok(Allowed::default()),
        Ok(Err(error)) => {
            return Err(refused(&format!("kubevirt failed getting the vmi: {}", holdfast_kubernetes::chain(&error))));
        }
        Err(_) => return Err(refused("kubevirt failed getting the vmi: no answer in time")),
    };
    let config = server.settings.borrow().cluster.clone();
    match verdict(&vmi, &pod, &config) {
        Verdict::Pass => Ok(Allowed::default()),
        Verdict::Refuse(message) => Err(refused(&message)),
        Verdict::Evacuate => {
            mark(&instances, &vmi, review.dry_run == Some(true)).await?;
            // In words that the descheduler looks for.
            let message = format!("Eviction triggered evacuation of VMI \"{}/{name}\"", review.namespace);
            Err(refused(&message))
        }
    }
}

/// The VMI whose launcher a pod is.
fn instance_of(pod: &Pod) -> Option<&str> {
    let role = pod.metadata.labels.as_ref()?.get(ROLE)?;
    if role != "virt-launcher" {
        return None;
    }
    pod.metadata.annotations.as_ref()?.get(DOMAIN).map(String::as_str)
}

fn verdict(vmi: &VirtualMachineInstance, pod: &Pod, config: &ClusterConfig) -> Verdict {
    let status = vmi.status.clone().unwrap_or_default();
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    // A pod that its VMI does not run in (any more, or yet) is a pod as any other.
    if is_final(vmi) || status.node_name.is_none() || status.node_name.as_deref() != node {
        return Verdict::Pass;
    }
    let strategy = vmi.spec.eviction_strategy.as_deref().unwrap_or(&config.eviction_strategy);
    let can_move = is_true(&status.conditions, "LiveMigratable");
    match strategy {
        "LiveMigrate" if !can_move => {
            let name = vmi.metadata.name.as_deref().unwrap_or_default();
            Verdict::Refuse(format!("VMI {name} is configured with an eviction strategy but is not live-migratable"))
        }
        "LiveMigrate" | "External" => Verdict::Evacuate,
        "LiveMigrateIfPossible" if can_move => Verdict::Evacuate,
        _ => Verdict::Pass,
    }
}

async fn mark(
    instances: &Api<VirtualMachineInstance>,
    vmi: &VirtualMachineInstance,
    dry_run: bool,
) -> Result<(), ErrorStatus> {
    let status = vmi.status.clone().unwrap_or_default();
    if status.evacuation_node_name.as_ref().is_some_and(|name| !name.is_empty()) {
        return Ok(());
    }
    let patch = json!({
        "metadata": {"resourceVersion": vmi.metadata.resource_version},
        "status": {"evacuationNodeName": status.node_name},
    });
    let params = PatchParams { dry_run, field_manager: Some("virt-api".to_owned()), ..PatchParams::default() };
    let name = vmi.metadata.name.as_deref().unwrap_or_default();
    let patch = Patch::Merge(patch);
    let why = match timeout(DEADLINE, instances.patch(name, &params, &patch)).await {
        Ok(Ok(_)) => return Ok(()),
        Ok(Err(error)) => holdfast_kubernetes::chain(&error),
        Err(_) => "no answer in time".to_owned(),
    };
    Err(refused(&format!("kubevirt failed marking the vmi for eviction: {why}")))
}

/// 429: who drains a node tries again.
fn refused(message: &str) -> ErrorStatus {
    ErrorStatus { code: 429, reason: None, message: message.to_owned(), details: None }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn pod(node: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "virt-launcher-a", "labels": {"kubevirt.io": "virt-launcher"},
                "annotations": {"kubevirt.io/domain": "a"}},
            "spec": {"nodeName": node, "containers": []},
        }))
        .unwrap()
    }

    fn vmi(strategy: Option<&str>, movable: bool) -> VirtualMachineInstance {
        let movable = if movable { "True" } else { "False" };
        serde_json::from_value(json!({
            "metadata": {"name": "a", "namespace": "n"},
            "spec": {"domain": {"devices": {}}, "evictionStrategy": strategy},
            "status": {"phase": "Running", "nodeName": "one",
                "conditions": [{"type": "LiveMigratable", "status": movable}]},
        }))
        .unwrap()
    }

    #[test]
    fn the_strategy_says_what_becomes_of_an_eviction() {
        let config = ClusterConfig::default();
        let refused = "VMI a is configured with an eviction strategy but is not live-migratable";
        for (strategy, movable, expected) in [
            (None, true, Verdict::Pass),
            (Some("None"), true, Verdict::Pass),
            (Some("LiveMigrate"), true, Verdict::Evacuate),
            (Some("LiveMigrate"), false, Verdict::Refuse(refused.to_owned())),
            (Some("LiveMigrateIfPossible"), true, Verdict::Evacuate),
            (Some("LiveMigrateIfPossible"), false, Verdict::Pass),
            (Some("External"), false, Verdict::Evacuate),
        ] {
            assert_eq!(verdict(&vmi(strategy, movable), &pod("one"), &config), expected, "{strategy:?} {movable}");
        }
        let config = ClusterConfig { eviction_strategy: "LiveMigrate".to_owned(), ..ClusterConfig::default() };
        assert_eq!(verdict(&vmi(None, true), &pod("one"), &config), Verdict::Evacuate, "that of the cluster");
        assert_eq!(verdict(&vmi(Some("None"), true), &pod("one"), &config), Verdict::Pass);
    }

    #[test]
    fn a_pod_that_the_vm_does_not_run_in_goes() {
        let config = ClusterConfig::default();
        assert_eq!(verdict(&vmi(Some("LiveMigrate"), false), &pod("two"), &config), Verdict::Pass);
        let mut ended = vmi(Some("LiveMigrate"), false);
        ended.status.as_mut().unwrap().phase = Some("Failed".to_owned());
        assert_eq!(verdict(&ended, &pod("one"), &config), Verdict::Pass);
        let mut waiting = vmi(Some("LiveMigrate"), false);
        waiting.status.as_mut().unwrap().node_name = None;
        assert_eq!(verdict(&waiting, &pod("one"), &config), Verdict::Pass);
    }

    #[test]
    fn only_launchers_are_looked_at() {
        assert_eq!(instance_of(&pod("one")), Some("a"));
        let mut other = pod("one");
        other.metadata.labels = Some([("kubevirt.io".to_owned(), "virt-handler".to_owned())].into());
        assert_eq!(instance_of(&other), None);
    }
}
