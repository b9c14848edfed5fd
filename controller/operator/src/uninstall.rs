//! One pass of an uninstallation: takes away what can be taken away now.
//!
//! The order. Workloads first, while their controllers are there to end them. Then whatever would be in the way if
//! nobody answered it: webhooks and the aggregated API. Then the controllers; then virt-handler, whose pods clean their
//! nodes when they end while the KubeVirt object is going, and for that still need their rights. Kinds, rights and
//! certificates come last.

use std::time::Duration;

use holdfast_api::kubevirt::KubeVirt;
use jiff::Timestamp;
use kube::api::ObjectMeta;

use crate::certificates::{AUTHORITY, leaves};
use crate::cluster::{CallError, Cluster};
use crate::install::workloads;
use crate::live::KINDS;
use crate::object::{Id, resource};
use crate::target::Target;

/// How long after its time a pod may stay before it is given up: its node is gone.
const LOST: i64 = 120;
const SOON: Duration = Duration::from_secs(1);
/// Objects that are deleted in one go.
const BATCH: u32 = 500;

/// Whether all is gone; else when to look again.
///
/// # Errors
/// Where the API server refuses.
pub async fn pass(cluster: &Cluster, kubevirt: &KubeVirt, target: &Target) -> Result<Option<Duration>, CallError> {
    let blocked = kubevirt.spec.uninstall_strategy.as_deref() == Some("BlockUninstallIfWorkloadsExist");
    if is_any_controller_there(cluster) && remove_workloads(cluster, blocked).await? {
        return Ok(Some(SOON));
    }
    let stages: [&[&str]; 5] = [
        &["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration", "APIService"],
        &["Deployment"],
        &["DaemonSet"],
        &["CustomResourceDefinition"],
        &[],
    ];
    for stage in stages {
        let rest = stage.is_empty();
        let ours = cluster.watched.ours();
        let mut left = false;
        // KINDS has the order within the rest.
        for kind in KINDS.iter().map(|(_, kind, _)| kind).filter(|kind| rest || stage.contains(kind)) {
            for (id, live) in ours.iter().filter(|(id, _)| id.kind == *kind) {
                left = true;
                if !live.deleting {
                    cluster.delete(id).await?;
                }
            }
        }
        if stage == ["CustomResourceDefinition"] && left {
            release_objects(cluster).await?;
        }
        for component in stage.iter().flat_map(|kind| components(kind)) {
            left |= are_pods_left(cluster, component).await?;
        }
        if left {
            return Ok(Some(SOON));
        }
    }
    let secrets = leaves(target).into_iter().map(|leaf| ("v1", "Secret", leaf.secret));
    // The Lease was made by virt-controller itself.
    let rest = [("v1", "Secret", AUTHORITY), ("coordination.k8s.io/v1", "Lease", "virt-controller")];
    for (api_version, kind, name) in secrets.chain(rest) {
        let (api_version, kind) = (api_version.to_owned(), kind.to_owned());
        let id = Id { api_version, kind, namespace: Some(target.namespace.clone()), name: name.to_owned() };
        cluster.delete(&id).await?;
    }
    Ok(None)
}

/// Components whose pods must be gone before the next stage.
fn components(kind: &str) -> &'static [&'static str] {
    match kind {
        "Deployment" => &["virt-controller", "virt-api"],
        "DaemonSet" => &["virt-handler"],
        _ => &[],
    }
}

/// Without a controller nobody would end workloads; whatever is left of them goes with its kind.
fn is_any_controller_there(cluster: &Cluster) -> bool {
    cluster
        .watched
        .ours()
        .iter()
        .any(|(id, live)| id.name == "virt-controller" && id.kind == "Deployment" && !live.deleting)
}

/// Deletes workloads, unless the user wants to do that himself; whether any are left.
async fn remove_workloads(cluster: &Cluster, blocked: bool) -> Result<bool, CallError> {
    let mut left = false;
    for kind in workloads() {
        for object in cluster.left(&kind, BATCH).await? {
            left = true;
            if !blocked && object.deletion_timestamp.is_none() {
                cluster.delete(&id(&kind, object)).await?;
            }
        }
    }
    Ok(left)
}

/// Kinds go when their objects have gone, and these wait for finalizers of components that are gone.
async fn release_objects(cluster: &Cluster) -> Result<(), CallError> {
    let ours = |name: &String| name.contains("kubevirt.io") || name.starts_with("holdfast.io/");
    for kind in workloads().chain([resource("holdfast.io/v1alpha1", "UnderlayNetwork")]) {
        for object in cluster.left(&kind, BATCH).await? {
            let set = object.finalizers.clone().unwrap_or_default();
            let foreign: Vec<_> = set.iter().filter(|name| !ours(name)).cloned().collect();
            if object.deletion_timestamp.is_some() && foreign.len() < set.len() {
                cluster.release(&id(&kind, object), foreign).await?;
            }
        }
    }
    Ok(())
}

fn id(kind: &kube::api::ApiResource, object: ObjectMeta) -> Id {
    Id {
        api_version: kind.api_version.clone(),
        kind: kind.kind.clone(),
        namespace: object.namespace,
        name: object.name.unwrap_or_default(),
    }
}

async fn are_pods_left(cluster: &Cluster, component: &str) -> Result<bool, CallError> {
    let now = Timestamp::now().as_second();
    let pods = cluster.pods(component).await?;
    let (lost, left): (Vec<_>, Vec<_>) = pods.into_iter().partition(|pod| is_lost(pod, now));
    for pod in lost {
        tracing::warn!(pod = pod.name, "does not end: its node is gone, most likely, and is not cleaned");
    }
    Ok(!left.is_empty())
}

/// Whether a pod should have ended long ago. Its deletionTimestamp is when its grace period is over.
fn is_lost(pod: &ObjectMeta, now: i64) -> bool {
    pod.deletion_timestamp.as_ref().is_some_and(|time| time.0.as_second() + LOST < now)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    #[test]
    fn a_pod_that_outlives_its_time_is_lost() {
        let at = |seconds| ObjectMeta {
            deletion_timestamp: Timestamp::from_second(seconds).ok().map(Time),
            ..ObjectMeta::default()
        };
        assert!(!is_lost(&ObjectMeta::default(), 1_000_000));
        assert!(!is_lost(&at(1_000_000), 1_000_000 + LOST));
        assert!(is_lost(&at(1_000_000), 1_000_001 + LOST));
    }

    #[test]
    fn every_kind_has_its_place_in_the_order() {
        for kind in ["APIService", "Deployment", "DaemonSet", "CustomResourceDefinition"] {
            assert!(KINDS.iter().any(|(_, known, _)| *known == kind));
        }
    }
}
