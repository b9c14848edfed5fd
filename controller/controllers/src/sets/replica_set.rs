//! VirtualMachineInstanceReplicaSets to VMIs.

use std::sync::Arc;

use holdfast_api::defaults::{default_vmi, stable_identities};
use holdfast_api::kubevirt::{VirtualMachineInstance, VirtualMachineInstanceReplicaSet as ReplicaSet};
use holdfast_api::status::{is_final, is_true, phase};
use holdfast_kubernetes::chain;
use holdfast_kubernetes::events::EventType;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use rand::Rng;
use serde_json::json;
use uuid::Uuid;

use super::status::Seen;
use super::{BURST, SetError, is_controlled, owner};
use crate::api;
use crate::context::Context;
use crate::engine::{Key, Outcome};
use crate::patch::difference;

/// What to do with a set (pure).
#[derive(Debug, Default, PartialEq)]
struct Plan {
    /// How many VMIs to make.
    create: usize,
    /// Names and UIDs of VMIs to delete.
    delete: Vec<(String, String)>,
    /// VMIs that count.
    replicas: usize,
    /// Those of them that are ready.
    ready: usize,
}

fn plan(set: &ReplicaSet, owned: &[Arc<VirtualMachineInstance>]) -> Plan {
    let (counted, ended): (Vec<_>, Vec<_>) =
        owned.iter().filter(|vmi| vmi.metadata.deletion_timestamp.is_none()).partition(|vmi| !is_final(vmi));
    let ready = counted.iter().filter(|vmi| is_ready(vmi)).count();
    let mut plan = Plan { replicas: counted.len(), ready, ..Plan::default() };
    if set.spec.paused == Some(true) {
        return plan;
    }
    let identity = |vmi: &VirtualMachineInstance| {
        (vmi.metadata.name.clone().unwrap_or_default(), vmi.metadata.uid.clone().unwrap_or_default())
    };
    plan.delete = ended.iter().map(|vmi| identity(vmi)).collect();
    let wanted = usize::try_from(set.spec.replicas.unwrap_or(1)).unwrap_or_default();
    if counted.len() > wanted {
        let mut order = counted.clone();
        // Those that are the least loss first: not running, not ready, young.
        order.sort_by_key(|vmi| {
            let age = vmi.metadata.creation_timestamp.as_ref().map_or(Timestamp::MIN, |time: &Time| time.0);
            (phase(vmi) == "Running", is_ready(vmi), std::cmp::Reverse(age))
        });
        plan.delete.extend(order.iter().take(counted.len() - wanted).map(|vmi| identity(vmi)));
    }
    plan.delete.truncate(BURST);
    plan.create = wanted.saturating_sub(counted.len()).min(BURST);
    plan
}

fn is_ready(vmi: &VirtualMachineInstance) -> bool {
    vmi.status.as_ref().is_some_and(|status| is_true(&status.conditions, "Ready"))
}

/// Looks at a set.
pub async fn reconcile(context: Arc<Context>, key: Key) -> Result<Outcome, SetError> {
    let Some(set) = context.replica_sets.get(&key) else { return Ok(Outcome::Done) };
    if set.metadata.deletion_timestamp.is_some() {
        return Ok(Outcome::Done);
    }
    let owned = context
        .vmis
        .select(|at, vmi| at.namespace == key.namespace && is_controlled(&vmi.metadata, set.metadata.uid.as_ref()));
    let plan = plan(&set, &owned);
    let mut failure = None;
    for (name, uid) in &plan.delete {
        match api::delete::<VirtualMachineInstance>(&context.client, &key.beside(name), uid, None).await {
            Ok(left) => {
                if let Some(left) = left {
                    context.vmis.wrote(&left.metadata.clone(), left);
                }
                let message = format!("Deleted virtual machine instance: {name}");
                context.event(&*set, EventType::Normal, "SuccessfulDelete", &message).await;
            }
            Err(error) => failure = Some(("FailedDelete", chain(&error))),
        }
    }
    for _ in 0..plan.create {
        match api::create(&context.client, &member(&context, &set)).await {
            Ok(created) => {
                let name = created.metadata.name.clone().unwrap_or_default();
                context.vmis.wrote(&created.metadata.clone(), created);
                context.queues.vmis.add(key.beside(&name));
                let message = format!("Created virtual machine instance: {name}");
                context.event(&*set, EventType::Normal, "SuccessfulCreate", &message).await;
            }
            Err(error) => {
                failure = Some(("FailedCreate", chain(&error)));
                break;
            }
        }
    }
    let failed = failure.is_some();
    if let Some((reason, message)) = &failure {
        context.event(&*set, EventType::Warning, reason, message).await;
    }
    let seen = Seen {
        replicas: plan.replicas,
        ready: plan.ready,
        selector: &set.spec.selector,
        paused: set.spec.paused == Some(true),
        failure,
        now: Timestamp::now(),
    };
    let before = set.status.as_ref().map_or_else(|| Ok(json!({})), serde_json::to_value)?;
    if let Some(change) = difference(&before, &seen.status(&before)) {
        let change = json!({"metadata": {"resourceVersion": set.metadata.resource_version}, "status": change});
        match api::patch_status::<ReplicaSet>(&context.client, &key, &change).await {
            Ok(written) => context.replica_sets.wrote(&written.metadata.clone(), written),
            Err(error) if error.is_stale() => return Ok(Outcome::Retry),
            Err(error) => return Err(error.into()),
        }
    }
    let unfinished = !plan.delete.is_empty() || plan.create > 0;
    Ok(if failed || unfinished { Outcome::Retry } else { Outcome::Done })
}

/// A new VMI of a set.
fn member(context: &Context, set: &ReplicaSet) -> VirtualMachineInstance {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut random = rand::rng();
    let suffix: String = (0..5).map(|_| ALPHABET[random.random_range(0..ALPHABET.len())] as char).collect();
    let template = set.spec.template.metadata.clone().unwrap_or_default();
    let mut vmi = VirtualMachineInstance {
        metadata: ObjectMeta {
            name: Some(format!("{}{suffix}", set.metadata.name.as_deref().unwrap_or_default())),
            namespace: set.metadata.namespace.clone(),
            labels: template.labels,
            annotations: template.annotations,
            finalizers: template.finalizers,
            owner_references: Some(vec![owner("kubevirt.io/v1", "VirtualMachineInstanceReplicaSet", &set.metadata)]),
            ..ObjectMeta::default()
        },
        spec: set.spec.template.spec.clone().unwrap_or_default(),
        status: None,
    };
    let mut identities = stable_identities(Uuid::new_v4());
    default_vmi(&mut vmi, &context.settings().cluster, &mut identities, Timestamp::now());
    vmi
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn vmi(name: &str, phase: &str, ready: &str, second: i64, deleting: bool) -> Arc<VirtualMachineInstance> {
        let mut vmi: VirtualMachineInstance = serde_json::from_value(json!({
            "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
            "metadata": {"name": name, "uid": name}, "spec": {"domain": {"devices": {}}},
            "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready}]}}))
        .unwrap();
        let time = Time(Timestamp::from_second(second).unwrap());
        vmi.metadata.creation_timestamp = Some(time.clone());
        vmi.metadata.deletion_timestamp = deleting.then_some(time);
        Arc::new(vmi)
    }

    fn set(replicas: i32, paused: bool) -> ReplicaSet {
        let mut set = ReplicaSet::default();
        set.spec.replicas = Some(replicas);
        set.spec.paused = Some(paused);
        set
    }

    #[test]
    fn what_is_missing_is_made_and_what_has_ended_goes() {
        let owned = [
            vmi("a", "Running", "True", 1, false),
            vmi("b", "Failed", "False", 1, false),
            vmi("c", "Running", "True", 1, true),
        ];
        let expected = Plan { create: 2, delete: vec![("b".into(), "b".into())], replicas: 1, ready: 1 };
        assert_eq!(plan(&set(3, false), &owned), expected);
        let expected = Plan { replicas: 1, ready: 1, ..Plan::default() };
        assert_eq!(plan(&set(3, true), &owned), expected, "a paused set is only looked at");
    }

    #[test]
    fn the_least_loss_goes_first() {
        let owned = [
            vmi("old", "Running", "True", 1, false),
            vmi("young", "Running", "True", 9, false),
            vmi("unready", "Running", "False", 1, false),
            vmi("starting", "Scheduling", "False", 1, false),
        ];
        let gone = |replicas| -> Vec<String> {
            plan(&set(replicas, false), &owned).delete.into_iter().map(|(name, _)| name).collect()
        };
        assert_eq!(gone(3), ["starting"]);
        assert_eq!(gone(1), ["starting", "unready", "young"]);
        assert_eq!(gone(0).len(), 4);
    }
}
