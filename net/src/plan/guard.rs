//! Port security on Linux bridges.

use std::collections::BTreeSet;

use crate::attachment::host_ifname;
use crate::desired::{DesiredState, Netns};
use crate::mark::Mark;
use crate::model::IfName;
use crate::observed::ObservedState;
use crate::op::Op;
use crate::security::rules::{Element, Rule, rules};

/// Adds the steps for the host's ports.
pub(super) fn plan(desired: &DesiredState, observed: &ObservedState, ops: &mut Vec<Op>) {
    let host = observed.namespaces.get(&Netns::Host);
    let Some((host, have)) = host.and_then(|host| Some((host, host.guard.as_ref()?))) else { return };
    let nothing = BTreeSet::new();
    let want = desired.namespaces.get(&Netns::Host).map_or(&nothing, |want| &want.guard);
    let marks = desired.scope.get(&Netns::Host);
    let sharing = marks.is_some_and(|marks| marks.contains(&Mark::Shared));
    let mut ports: BTreeSet<IfName> = want.iter().map(|element| element.port.clone()).collect();
    ports.extend(marks.into_iter().flatten().filter_map(|mark| match mark {
        Mark::Attachment(id) => Some(host_ifname(id)),
        Mark::Binding(_) | Mark::Shared => None,
    }));

    // Where all links were looked at, a port without one is nobody's.
    let in_scope = |port: &IfName| ports.contains(port) || (sharing && !host.links.contains_key(port));
    let gone = |element: &&Element| in_scope(&element.port) && !want.contains(element);
    let remove: BTreeSet<Element> = have.elements.iter().filter(gone).cloned().collect();
    let netns = || Netns::Host;
    if sharing && want.is_empty() && remove.len() == have.elements.len() {
        if !have.rules.is_empty() {
            ops.push(Op::DeleteGuard { netns: netns() });
        }
        return;
    }
    if !remove.is_empty() {
        ops.push(Op::RemoveElements { netns: netns(), elements: remove });
    }
    if !want.is_empty() && have.rules != rules().iter().map(Rule::comment).collect::<Vec<_>>() {
        ops.push(Op::CreateGuard { netns: netns() });
    }
    let add: BTreeSet<Element> = want.difference(&have.elements).cloned().collect();
    if !add.is_empty() {
        ops.push(Op::AddElements { netns: netns(), elements: add });
    }
}
