//! Ports of OVS bridges. The bridges themselves are the administrator's: never made, never removed.

use std::collections::BTreeSet;

use super::PlanError;
use crate::desired::{DesiredState, Netns, OvsPort};
use crate::mark::{Mark, OwnedPort};
use crate::model::{IfName, Vlan};
use crate::observed::{ObservedPort, ObservedState};
use crate::op::Op;
use crate::security::flows::{Flow, flows};

/// Adds the steps for OVS ports. `fresh` are the links that the plan makes: a port that was there before its link has
/// to be taken in again.
pub(super) fn plan(
    desired: &DesiredState,
    observed: &ObservedState,
    fresh: &BTreeSet<(Netns, IfName)>,
    ops: &mut Vec<Op>,
) -> Result<(), PlanError> {
    for (name, want) in &desired.ovs_ports {
        let ovs = observed.ovs.as_ref().ok_or_else(|| PlanError::NoOvs(name.clone()))?;
        if !ovs.bridges.contains_key(&want.bridge) {
            return Err(PlanError::MissingOvsBridge(want.bridge.clone()));
        }
        if matches!(want.vlan, Vlan::Tunnel { .. }) && !ovs.two_tags {
            return Err(PlanError::VlanLimit(want.bridge.clone()));
        }
        let link_is_new = fresh.iter().any(|(netns, link)| *netns == Netns::Host && link.as_str() == name);
        match ovs.ports.get(name) {
            None => add(name, want, None, ops),
            Some(have) => {
                let owned = OwnedPort::prove(name, have).ok_or_else(|| PlanError::ForeignPort(name.clone()))?;
                let broken = have.error.is_some() && have.number.is_none();
                if have.bridge != want.bridge || link_is_new || broken {
                    ops.push(Op::DeleteOvsPort(owned));
                    add(name, want, None, ops);
                    continue;
                }
                if !agrees(want, have) {
                    add(name, want, Some(owned), ops);
                } else if have.number.is_none() {
                    ops.push(Op::AwaitOvsPort { name: name.clone() });
                }
                plan_flows(name, want, have, ops);
            }
        }
    }
    let (Some(ovs), Some(marks)) = (&observed.ovs, desired.scope.get(&Netns::Host)) else { return Ok(()) };
    for (name, have) in &ovs.ports {
        let in_scope = have.attachment.clone().is_some_and(|id| marks.contains(&Mark::Attachment(id)));
        if in_scope && !desired.ovs_ports.contains_key(name) {
            ops.extend(OwnedPort::prove(name, have).map(Op::DeleteOvsPort));
        }
    }
    Ok(())
}

fn add(name: &str, want: &OvsPort, present: Option<OwnedPort>, ops: &mut Vec<Op>) {
    ops.push(Op::SetOvsPort { name: name.to_owned(), port: want.clone(), present });
    ops.push(Op::AwaitOvsPort { name: name.to_owned() });
}

/// Adds the step for the flows of a port that the switch has taken in.
fn plan_flows(name: &str, want: &OvsPort, have: &ObservedPort, ops: &mut Vec<Op>) {
    let Some(number) = have.number else { return };
    let flows: Vec<(u64, Flow)> = want.security.as_ref().map_or_else(Vec::new, |security| {
        let flows = flows(security, want.vlan.takes_tags());
        flows.into_iter().map(|flow| (flow.cookie(&want.attachment, number), flow)).collect()
    });
    let cookies: BTreeSet<u64> = flows.iter().map(|(cookie, _)| *cookie).collect();
    let present = have.flows.clone().unwrap_or_default();
    if cookies != present || (have.secured && want.security.is_none()) {
        ops.push(Op::SetOvsFlows { name: name.to_owned(), bridge: want.bridge.clone(), number, flows });
    }
}

fn agrees(want: &OvsPort, have: &ObservedPort) -> bool {
    let OvsPort { bridge, vlan, attachment, owner, security } = want;
    *bridge == have.bridge
        && have.vlan.as_ref().is_some_and(|present| canonical(present) == canonical(vlan))
        && have.attachment.as_ref() == Some(attachment)
        && *owner == have.owner
        && security.is_some() == have.secured
}

/// Tags are a set.
fn canonical(vlan: &Vlan) -> Vlan {
    let sorted = |tags: &[u16]| tags.iter().copied().collect::<BTreeSet<u16>>().into_iter().collect();
    match vlan {
        Vlan::Untagged | Vlan::Access(_) => vlan.clone(),
        Vlan::Trunk { tags, native } => Vlan::Trunk { tags: sorted(tags), native: *native },
        Vlan::Tunnel { outer, customers, protocol } => {
            Vlan::Tunnel { outer: *outer, customers: sorted(customers), protocol: *protocol }
        }
    }
}
