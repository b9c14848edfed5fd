//! How far the components are: pure.

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};

/// Whether all pods of a Deployment are of its newest template, and ready.
pub fn is_deployment_ready(deployment: &Deployment) -> bool {
    let (Some(spec), Some(status)) = (&deployment.spec, &deployment.status) else { return false };
    let wanted = spec.replicas.unwrap_or(1);
    let counts = [status.replicas, status.updated_replicas, status.ready_replicas, status.available_replicas];
    status.observed_generation == deployment.metadata.generation
        && counts.into_iter().all(|count| count.unwrap_or_default() == wanted)
}

/// Whether all pods of a DaemonSet are of its newest template, and ready. Where no node is for it, it is.
pub fn is_daemon_set_ready(set: &DaemonSet) -> bool {
    let Some(status) = &set.status else { return false };
    let wanted = status.desired_number_scheduled;
    status.observed_generation == set.metadata.generation
        && status.updated_number_scheduled.unwrap_or_default() == wanted
        && status.number_ready == wanted
}

/// Whether `target` follows `current`: then nodes come first, so that they know what the controllers will ask of
/// them. Versions that cannot be compared are taken for an update.
pub fn is_update(current: Option<&str>, target: &str) -> bool {
    let Some(current) = current.filter(|current| !current.is_empty() && *current != target) else { return false };
    match (numbers(current), numbers(target)) {
        (Some(current), Some(target)) => current < target,
        _ => true,
    }
}

fn numbers(version: &str) -> Option<[u64; 3]> {
    let version = version.strip_prefix('v').unwrap_or(version);
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let mut parts = core.split('.').map(|part| part.parse().ok());
    let numbers = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(numbers)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn newer_versions_are_updates() {
        assert!(is_update(Some("v1.0.0"), "v1.0.1"));
        assert!(is_update(Some("v1.9.0"), "v1.10.0"));
        assert!(!is_update(Some("v1.0.1"), "v1.0.0"), "a step back begins with virt-api");
        assert!(is_update(Some("devel"), "v1.0.0"));
        assert!(!is_update(Some("v1.0.0"), "v1.0.0"));
        assert!(!is_update(None, "v1.0.0"));
        assert!(!is_update(Some(""), "v1.0.0"));
    }

    #[test]
    fn a_deployment_is_ready_when_nothing_old_is_left() {
        let of = |generation: i64, old: i64| -> Deployment {
            serde_json::from_value(json!({
                "metadata": {"generation": generation}, "spec": {"replicas": 2, "selector": {}, "template": {}},
                "status": {"observedGeneration": 2, "replicas": 2 + old, "updatedReplicas": 2, "readyReplicas": 2,
                    "availableReplicas": 2},
            }))
            .unwrap()
        };
        assert!(is_deployment_ready(&of(2, 0)));
        assert!(!is_deployment_ready(&of(3, 0)), "the controller has not seen the newest");
        assert!(!is_deployment_ready(&of(2, 1)), "an old pod still serves");
    }

    #[test]
    fn a_daemon_set_is_ready_on_all_nodes() {
        let of = |wanted: i64, updated: i64, ready: i64| -> DaemonSet {
            serde_json::from_value(json!({
                "metadata": {"generation": 1},
                "status": {"observedGeneration": 1, "currentNumberScheduled": wanted, "numberMisscheduled": 0,
                    "desiredNumberScheduled": wanted, "updatedNumberScheduled": updated, "numberReady": ready},
            }))
            .unwrap()
        };
        assert!(is_daemon_set_ready(&of(2, 2, 2)));
        assert!(!is_daemon_set_ready(&of(2, 1, 2)));
        assert!(!is_daemon_set_ready(&of(2, 2, 1)));
        assert!(is_daemon_set_ready(&of(0, 0, 0)));
    }
}
