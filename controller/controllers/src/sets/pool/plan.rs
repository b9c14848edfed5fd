//! What to do with a pool (pure).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use holdfast_api::kubevirt::{
    VirtualMachine, VirtualMachineInstance, VirtualMachinePool, VirtualMachinePoolAutohealingStrategy,
    VirtualMachinePoolSelectionPolicy,
};
use holdfast_api::selector::Selector;
use holdfast_api::status::{find, is_final, is_true};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::{REVISION_LABEL, member};
use crate::sets::BURST;

/// Failures to start after which a VM is replaced, where the pool heals itself and says no number.
const FAILURES: i64 = 3;
/// How long it must have failed to start, where the pool does not say.
const FAILING: SignedDuration = SignedDuration::from_mins(5);

/// A VM of a pool, as far as it matters.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Member {
    pub name: String,
    pub index: Option<u32>,
    pub labels: BTreeMap<String, String>,
    pub created: Option<Timestamp>,
    pub deleting: bool,
    pub ready: bool,
    /// UID of its VMI, which runs, and the revision that the VMI is of.
    pub running: Option<(String, Option<String>)>,
    /// How often in a row it failed to start, and since when it is not ready.
    pub failures: i64,
    pub unready_since: Option<Timestamp>,
    /// A number that was drawn for it.
    pub lot: u32,
}

impl Member {
    pub fn of(vm: &VirtualMachine, vmi: Option<&VirtualMachineInstance>, lot: u32) -> Self {
        let status = vm.status.as_ref();
        let ready = status.and_then(|status| find(&status.conditions, "Ready"));
        let since = ready.and_then(|ready| ready.last_transition_time.as_ref()?.as_str()?.parse().ok());
        let live = vmi.filter(|vmi| !is_final(vmi) && vmi.metadata.deletion_timestamp.is_none());
        Self {
            name: vm.metadata.name.clone().unwrap_or_default(),
            index: member::index(vm),
            labels: vm.metadata.labels.clone().unwrap_or_default(),
            created: vm.metadata.creation_timestamp.as_ref().map(|time| time.0),
            deleting: vm.metadata.deletion_timestamp.is_some(),
            ready: status.is_some_and(|status| is_true(&status.conditions, "Ready")),
            running: live.map(|vmi| {
                let revision = vmi.metadata.labels.as_ref().and_then(|labels| labels.get(REVISION_LABEL)).cloned();
                (vmi.metadata.uid.clone().unwrap_or_default(), revision)
            }),
            failures: status
                .and_then(|status| status.start_failure.as_ref()?.consecutive_fail_count)
                .map_or(0, i64::from),
            unready_since: since,
            lot,
        }
    }
}

/// What to do.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    /// Numbers of VMs to make.
    pub create: Vec<u32>,
    /// Names of VMs to delete.
    pub delete: Vec<String>,
    /// Names of VMs to give the present template.
    pub update: Vec<String>,
    /// Names and VMIs' UIDs of VMs to restart.
    pub restart: Vec<(String, String)>,
    pub replicas: usize,
    pub ready: usize,
    /// When to look again although nothing happens.
    pub again: Option<Duration>,
}

impl Plan {
    /// Whether there is anything to do.
    pub fn acts(&self) -> bool {
        !(self.create.is_empty() && self.delete.is_empty() && self.update.is_empty() && self.restart.is_empty())
    }
}

pub(super) fn plan(pool: &VirtualMachinePool, members: &[Member], revision: &str, now: Timestamp) -> Plan {
    let live: Vec<&Member> = members.iter().filter(|member| !member.deleting).collect();
    let ready = live.iter().filter(|member| member.ready).count();
    let mut plan = Plan { replicas: live.len(), ready, ..Plan::default() };
    if pool.spec.paused == Some(true) {
        return plan;
    }
    if let Some(healing) = &pool.spec.autohealing {
        heal(&mut plan, healing, &live, now);
    }
    let wanted = usize::try_from(pool.spec.replicas.unwrap_or(1)).unwrap_or_default();
    if live.len() > wanted {
        plan.delete.extend(surplus(pool, &live, live.len() - wanted));
    } else {
        let taken: BTreeSet<u32> = members.iter().filter_map(|member| member.index).collect();
        plan.create = (0..).filter(|index| !taken.contains(index)).take((wanted - live.len()).min(BURST)).collect();
    }
    plan.delete.sort();
    plan.delete.dedup();
    plan.delete.truncate(BURST);
    update(&mut plan, pool, &live, revision, wanted);
    plan
}

/// VMs that do not come up are made anew.
fn heal(plan: &mut Plan, healing: &VirtualMachinePoolAutohealingStrategy, live: &[&Member], now: Timestamp) {
    let threshold = healing.start_up_failure_threshold.unwrap_or(FAILURES);
    let least = healing.min_failing_to_start_duration.as_deref().and_then(go_duration).unwrap_or(FAILING);
    for member in live.iter().filter(|member| !member.ready && member.failures >= threshold) {
        let failing = member.unready_since.map_or(SignedDuration::ZERO, |since| now.duration_since(since));
        if failing >= least {
            plan.delete.push(member.name.clone());
        } else {
            let left = (least - failing).unsigned_abs();
            plan.again = Some(plan.again.map_or(left, |again| again.min(left)));
        }
    }
}

/// A duration as Go writes it: `1h2m3s`.
fn go_duration(text: &str) -> Option<SignedDuration> {
    text.parse::<SignedDuration>().ok()
}

/// Names of VMs that are too many, where the pool deletes any.
fn surplus(pool: &VirtualMachinePool, live: &[&Member], count: usize) -> Vec<String> {
    let strategy = pool.spec.scale_in_strategy.as_ref();
    if strategy.is_some_and(|strategy| strategy.unmanaged.is_some() || strategy.opportunistic.is_some()) {
        return Vec::new();
    }
    let policy = strategy.and_then(|strategy| strategy.proactive.as_ref()?.selection_policy.as_ref());
    order(policy, live).into_iter().take(count).map(|member| member.name.clone()).collect()
}

/// VMs in the order in which they are chosen: first those that the selectors choose, then by the sort policy.
fn order<'a>(policy: Option<&VirtualMachinePoolSelectionPolicy>, live: &[&'a Member]) -> Vec<&'a Member> {
    let selector = policy.and_then(|policy| policy.selectors.as_ref()?.label_selector.as_ref());
    let selector = selector.and_then(|selector| Selector::of(selector).ok());
    let chosen = |member: &Member| selector.is_none_or(|selector| selector.matches(&member.labels));
    let mut order = live.to_vec();
    match policy.and_then(|policy| policy.sort_policy.as_deref()) {
        Some("AscendingOrder") => order.sort_by_key(|member| member.index),
        Some("DescendingOrder") => order.sort_by_key(|member| Reverse(member.index)),
        Some("Newest") => order.sort_by_key(|member| Reverse((member.created, member.index))),
        Some("Oldest") => order.sort_by_key(|member| (member.created, member.index)),
        _ => order.sort_by_key(|member| member.lot),
    }
    order.sort_by_key(|member| !chosen(member));
    order
}

/// Brings the template to VMs, and to what runs where the pool says so.
fn update(plan: &mut Plan, pool: &VirtualMachinePool, live: &[&Member], revision: &str, wanted: usize) {
    let strategy = pool.spec.update_strategy.as_ref();
    if strategy.is_some_and(|strategy| strategy.unmanaged.is_some()) {
        return;
    }
    let stays = |member: &&&Member| !plan.delete.contains(&member.name);
    let is_current = |member: &Member| member.labels.get(REVISION_LABEL).is_some_and(|label| label == revision);
    let update: Vec<String> =
        live.iter().filter(stays).filter(|member| !is_current(member)).map(|member| member.name.clone()).collect();
    if strategy.is_none_or(|strategy| strategy.opportunistic.is_none()) {
        let policy = strategy.and_then(|strategy| strategy.proactive.as_ref()?.selection_policy.as_ref());
        let unready = live.iter().filter(|member| !member.ready).count();
        let mut allowed = max_unavailable(pool.spec.max_unavailable.as_ref(), wanted).saturating_sub(unready);
        for member in order(policy, live).iter().filter(stays).filter(|member| is_current(member)) {
            let Some((uid, of)) = &member.running else { continue };
            if of.as_deref() == Some(revision) {
                continue;
            }
            // One that is not ready is not made less available.
            if member.ready && allowed == 0 {
                continue;
            }
            allowed -= usize::from(member.ready);
            plan.restart.push((member.name.clone(), uid.clone()));
        }
    }
    plan.update = update;
    plan.update.truncate(BURST);
}

/// How many may be not ready at a time; all where nothing is said.
fn max_unavailable(given: Option<&IntOrString>, wanted: usize) -> usize {
    match given {
        None => wanted,
        Some(IntOrString::Int(number)) => usize::try_from(*number).unwrap_or_default(),
        Some(IntOrString::String(text)) => {
            let percent: usize = text.trim_end_matches('%').parse().unwrap_or(100);
            (wanted * percent / 100).max(1)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_second(10_000).unwrap()
    }

    fn pool(spec: Value) -> VirtualMachinePool {
        let mut pool: VirtualMachinePool = serde_json::from_value(json!({
            "apiVersion": "pool.kubevirt.io/v1beta1", "kind": "VirtualMachinePool", "metadata": {"name": "p"},
            "spec": {"selector": {}, "virtualMachineTemplate": {}}}))
        .unwrap();
        let mut whole = serde_json::to_value(&pool.spec).unwrap();
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        pool.spec = serde_json::from_value(whole).unwrap();
        pool
    }

    fn member(index: u32, revision: &str, running: &str) -> Member {
        Member {
            name: format!("p-{index}"),
            index: Some(index),
            labels: [(REVISION_LABEL.to_owned(), revision.to_owned())].into(),
            created: Some(Timestamp::from_second(i64::from(index)).unwrap()),
            ready: true,
            running: Some((format!("u{index}"), Some(running.to_owned()))),
            lot: 100 - index,
            ..Member::default()
        }
    }

    #[test]
    fn free_numbers_are_filled_lowest_first() {
        let members = [member(1, "r", "r"), Member { deleting: true, ..member(2, "r", "r") }];
        let found = plan(&pool(json!({"replicas": 3})), &members, "r", now());
        assert_eq!(found.create, [0, 3], "one that is going still has its name");
        assert_eq!((found.replicas, found.ready), (1, 1));
    }

    #[test]
    fn scaling_in_follows_the_policy() {
        let members = [member(0, "r", "r"), member(1, "r", "r"), member(2, "r", "r")];
        let policy = |policy: &str| {
            json!({"replicas": 2, "scaleInStrategy": {"proactive": {"selectionPolicy":
            {"sortPolicy": policy}}}})
        };
        for (spec, gone) in [
            (policy("AscendingOrder"), vec!["p-0"]),
            (policy("DescendingOrder"), vec!["p-2"]),
            (policy("Oldest"), vec!["p-0"]),
            (policy("Newest"), vec!["p-2"]),
            (json!({"replicas": 2}), vec!["p-2"]),
            (json!({"replicas": 2, "scaleInStrategy": {"unmanaged": {}}}), vec![]),
            (json!({"replicas": 2, "paused": true}), vec![]),
        ] {
            assert_eq!(plan(&pool(spec.clone()), &members, "r", now()).delete, gone, "{spec}");
        }
    }

    #[test]
    fn an_update_goes_to_vms_first_and_to_what_runs_as_far_as_may_be() {
        let members = [member(0, "old", "old"), member(1, "new", "old"), member(2, "new", "old")];
        let of = |spec| plan(&pool(spec), &members, "new", now());
        let found = of(json!({"replicas": 3, "maxUnavailable": 1}));
        assert_eq!((found.update.clone(), found.restart.len()), (vec!["p-0".to_owned()], 1));
        assert_eq!(of(json!({"replicas": 3})).restart.len(), 2);
        let found = of(json!({"replicas": 3, "updateStrategy": {"opportunistic": {}}}));
        assert_eq!((found.update.len(), found.restart.len()), (1, 0));
        assert!(!of(json!({"replicas": 3, "updateStrategy": {"unmanaged": {}}})).acts());
    }

    #[test]
    fn what_does_not_come_up_is_replaced_in_time() {
        let failing = |since| Member {
            ready: false,
            failures: 3,
            unready_since: Some(now() - SignedDuration::from_secs(since)),
            running: None,
            ..member(0, "r", "r")
        };
        let pool = pool(json!({"replicas": 1, "autohealing": {"minFailingToStartDuration": "1m"}}));
        assert_eq!(plan(&pool, &[failing(61)], "r", now()).delete, ["p-0"]);
        let found = plan(&pool, &[failing(50)], "r", now());
        assert_eq!((found.delete.len(), found.again), (0, Some(Duration::from_secs(10))));
    }
}
