//! The order of steps: one table, with the reason beside each line.

use crate::op::Op;

/// What a step does, as far as its place depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    DeleteOvsPort,
    DeleteTable,
    DeleteLinks,
    RemoveElements,
    DeleteGuard,
    CreateBridge,
    CreatePort,
    SetMark,
    RemoveAddress,
    SetHardware,
    SetMaster,
    SetPortFlags,
    SetPortVlans,
    SetSysctl,
    ReplaceTable,
    CreateGuard,
    AddElements,
    SetUp,
    AddAddress,
    RemoveRoute,
    AddRoute,
    RemoveNeighbour,
    SetNeighbour,
    SetOvsPort,
    AwaitOvsPort,
    SetShaper,
    SetOvsFlows,
}

/// First to last.
const ORDER: [(Step, &str); 27] = [
    (Step::DeleteOvsPort, "a switch whose port lost its link keeps the port, and logs an error at each look"),
    (Step::DeleteTable, "a table is found by its bridge: were the bridge gone first, a crash would lose the table"),
    (Step::DeleteLinks, "a name has to be free before it is used anew"),
    (Step::RemoveElements, "a port that is there still is secured still"),
    (Step::DeleteGuard, "by now its sets are empty"),
    (Step::CreateBridge, "a veth is made as the port of a bridge that is there"),
    (Step::CreatePort, "all that follows is done to links that are there"),
    (Step::SetMark, "the sooner, the less a crash leaves without its attachment's name"),
    (Step::RemoveAddress, "a port of a bridge with an address would answer in the guest's place"),
    (Step::SetHardware, "nothing may be heard of a link before its MAC, MTU and checksums are right"),
    (Step::SetMaster, "port flags belong to a port"),
    (Step::SetPortFlags, "a bridge learns from a port as soon as that is up"),
    (Step::SetPortVlans, "a port that is up is in the bridge's default VLAN until it is told its own"),
    (Step::SetSysctl, "settings of a link exist with it, and IPv6 speaks as soon as the link is up"),
    (Step::ReplaceTable, "what a table keeps off the wire is kept off from the first packet"),
    (Step::CreateGuard, "a set has to be there before its elements"),
    (Step::AddElements, "a port is secured before its first frame"),
    (Step::SetUp, "the kernel takes routes only through a link that is up"),
    (Step::AddAddress, "a next hop has to be on the link"),
    (Step::RemoveRoute, "a destination has one route of ours"),
    (Step::AddRoute, "by now links, addresses and next hops are there"),
    (Step::RemoveNeighbour, "an address has one neighbour of ours"),
    (Step::SetNeighbour, "a link that is down forgets its neighbours"),
    (Step::SetOvsPort, "the switch opens the link at once, and takes its MTU and offloads as they are then"),
    (Step::AwaitOvsPort, "the switch works while all the rest is done"),
    (Step::SetShaper, "a switch takes the queue off a port that it takes in"),
    (Step::SetOvsFlows, "flows name the number that the switch gives a port"),
];

/// Sorts steps; those of one rank keep the order in which the planner found them.
pub(super) fn sort(ops: &mut [Op]) {
    ops.sort_by_key(|op| rank(step(op)));
}

fn rank(step: Step) -> usize {
    ORDER.iter().position(|(listed, _)| *listed == step).unwrap_or(ORDER.len())
}

fn step(op: &Op) -> Step {
    match op {
        Op::DeleteOvsPort(_) => Step::DeleteOvsPort,
        Op::DeleteTable { .. } => Step::DeleteTable,
        Op::DeleteLinks { .. } => Step::DeleteLinks,
        Op::RemoveElements { .. } => Step::RemoveElements,
        Op::DeleteGuard { .. } => Step::DeleteGuard,
        Op::CreateGuard { .. } => Step::CreateGuard,
        Op::AddElements { .. } => Step::AddElements,
        Op::CreateBridge { .. } => Step::CreateBridge,
        Op::CreateVeth { .. } | Op::CreateTap { .. } | Op::CreateMacvlan { .. } => Step::CreatePort,
        Op::SetMark { .. } => Step::SetMark,
        Op::RemoveAddress { .. } => Step::RemoveAddress,
        Op::SetMac { .. } | Op::SetMtu { .. } | Op::DisableTxChecksum { .. } => Step::SetHardware,
        Op::ClearMaster { .. } | Op::SetMaster { .. } => Step::SetMaster,
        Op::SetPortFlags { .. } => Step::SetPortFlags,
        Op::SetPortVlans { .. } => Step::SetPortVlans,
        Op::SetSysctl { .. } => Step::SetSysctl,
        Op::ReplaceTable { .. } => Step::ReplaceTable,
        Op::SetUp { .. } => Step::SetUp,
        Op::AddAddress { .. } => Step::AddAddress,
        Op::RemoveRoute { .. } => Step::RemoveRoute,
        Op::AddRoute { .. } => Step::AddRoute,
        Op::RemoveNeighbour { .. } => Step::RemoveNeighbour,
        Op::SetNeighbour { .. } => Step::SetNeighbour,
        Op::SetOvsPort { .. } => Step::SetOvsPort,
        Op::AwaitOvsPort { .. } => Step::AwaitOvsPort,
        Op::SetShaper { .. } => Step::SetShaper,
        Op::SetOvsFlows { .. } => Step::SetOvsFlows,
    }
}
