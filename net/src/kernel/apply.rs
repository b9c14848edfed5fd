//! Does one step: an exhaustive match on [`Op`].

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use super::error::{StepError, WiringError};
use super::links::{self, Macvlan, Veth};
use super::netns::{Inside, Namespace};
use super::ovsdb::Ovs;
use super::{Outcome, ethtool, guard, nft, shaper, tap, vlans};
use crate::desired::Netns;
use crate::op::Op;

/// What steps are done with.
pub(super) struct Executors<'a> {
    /// The namespaces that the plan works in.
    pub(super) namespaces: &'a BTreeMap<Netns, Namespace>,
    /// Handles of the same, to move the ends of veths there.
    pub(super) handles: &'a BTreeMap<Netns, File>,
    /// Open vSwitch, where there is one.
    pub(super) ovs: Option<&'a Ovs>,
}

/// Does the first of these steps, together with those that follow inside of the same namespace: each change to another
/// thread costs more than a step. Gives the outcome of each that was tried; none was tried after one that failed.
pub(super) async fn apply_run(
    ops: &[Op],
    executors: &Executors<'_>,
) -> Result<Vec<Result<Outcome, StepError>>, WiringError> {
    let Some(first) = ops.first() else { return Ok(Vec::new()) };
    let Some(netns) = first.inside() else {
        // Ports that are asked for at the same time go to the switch in one transaction.
        let kind = std::mem::discriminant(first);
        let alike = ops.iter().take_while(|op| std::mem::discriminant(*op) == kind);
        return futures::future::try_join_all(alike.map(|op| outside(op, executors))).await;
    };
    let run = ops.iter().take_while(|op| op.inside() == Some(netns));
    let steps: Vec<(Op, Option<File>)> = run
        .map(|op| match op {
            Op::CreateVeth { peer_netns: other, .. } | Op::CreateMacvlan { netns: other, .. } => {
                Ok((op.clone(), Some(executors.handle(other)?)))
            }
            _ => Ok((op.clone(), None)),
        })
        .collect::<Result<_, WiringError>>()?;
    let work = move |inside: &mut Inside| {
        let mut outcomes = Vec::new();
        for (op, peer) in &steps {
            let outcome = in_namespace(op, inside, peer.as_ref()).map_err(StepError::Kernel);
            let failed = outcome.is_err();
            outcomes.push(outcome);
            if failed {
                break;
            }
        }
        outcomes
    };
    executors.namespace(netns)?.call(work).await
}

/// A step that is not done inside of a namespace's thread.
async fn outside(op: &Op, executors: &Executors<'_>) -> Result<Result<Outcome, StepError>, WiringError> {
    let no_ovs = || StepError::Ovsdb("not configured".to_owned());
    let done = |result: Result<(), StepError>| result.map(|()| Outcome::Done);
    Ok(match (op, executors.ovs) {
        (Op::DeleteOvsPort(port), Some(ovs)) => ovs.delete_port(port).await.map(deleted),
        (Op::SetOvsPort { name, port, present }, Some(ovs)) => done(ovs.set_port(name, port, present.as_ref()).await),
        (Op::AwaitOvsPort { name }, Some(ovs)) => done(ovs.await_port(name).await),
        (Op::SetOvsFlows { bridge, number, flows, .. }, Some(ovs)) => done(ovs.set_flows(bridge, *number, flows).await),
        (Op::DeleteTable { netns, table }, _) => done(nft::delete(executors.namespace(netns)?, table).await?),
        (Op::ReplaceTable { netns, name, table }, _) => {
            done(nft::replace(executors.namespace(netns)?, name, table).await?)
        }
        // A switch that is not there, or a step of a namespace's thread, which is not done here.
        _ => Err(no_ovs()),
    })
}

impl Executors<'_> {
    fn namespace(&self, netns: &Netns) -> Result<&Namespace, WiringError> {
        self.namespaces.get(netns).ok_or_else(|| gone(netns))
    }

    fn handle(&self, netns: &Netns) -> Result<File, WiringError> {
        let handle = self.handles.get(netns).ok_or_else(|| gone(netns))?;
        handle.try_clone().map_err(|source| WiringError::Enter { netns: netns.clone(), source })
    }
}

fn gone(netns: &Netns) -> WiringError {
    WiringError::Plan(crate::plan::PlanError::MissingNetns(netns.clone()))
}

/// A step that takes nothing but the namespace it is done in. What is to be made and is there, and what is to be
/// deleted and is gone, is no error: the next look tells whether it is what is wanted.
fn in_namespace(op: &Op, inside: &mut Inside, peer: Option<&File>) -> io::Result<Outcome> {
    let (route, netfilter) = (&mut inside.route, &mut inside.netfilter);
    match op {
        Op::RemoveElements { elements, .. } => removed(guard::remove(netfilter, elements)),
        Op::DeleteGuard { .. } => removed(guard::delete(netfilter)),
        Op::CreateGuard { .. } => done(guard::make(netfilter)),
        Op::AddElements { elements, .. } => done(guard::add(netfilter, elements)),
        Op::DeleteLinks { links, .. } => links::delete(route, links).map(deleted),
        Op::RemoveAddress { link, address, .. } => removed(links::remove_address(route, link, *address)),
        Op::RemoveRoute { link, route: gone, .. } => removed(links::remove_route(route, link, gone)),
        Op::RemoveNeighbour { link, address, .. } => removed(links::remove_neighbour(route, link, *address)),
        Op::CreateBridge { name, mac, mtu, .. } => made(links::create_bridge(route, name, *mac, *mtu)),
        Op::CreateVeth { name, mac, mtu, master, peer_name, peer_mac, .. } => {
            let missing = || io::Error::from_raw_os_error(nix::libc::ENOENT);
            let veth = Veth {
                name,
                mac: *mac,
                mtu: *mtu,
                master: master.as_ref(),
                peer_netns: peer.ok_or_else(missing)?.as_fd(),
                peer_name,
                peer_mac: *peer_mac,
            };
            made(links::create_veth(route, &veth))
        }
        Op::CreateMacvlan { name, uplink, mode, tap, mac, mtu, .. } => {
            let missing = || io::Error::from_raw_os_error(nix::libc::ENOENT);
            let netns = peer.ok_or_else(missing)?.as_fd();
            let macvlan = Macvlan { netns, name, uplink, mode: *mode, tap: *tap, mac: *mac, mtu: *mtu };
            match links::create_macvlan(route, &macvlan) {
                // Here it is not the name that is taken.
                Err(error) if error.raw_os_error() == Some(nix::libc::EBUSY) => {
                    Err(io::Error::other(format!("`{uplink}` is a port of a bridge, or carries its frames elsewhere")))
                }
                result => made(result),
            }
        }
        Op::CreateTap { name, tap, .. } => made(tap::create(name, tap, || links::set_group(route, name))),
        Op::SetMark { link, mark, .. } => done(links::set_mark(route, link, mark)),
        Op::SetMac { link, mac, .. } => done(links::set_mac(route, link, *mac)),
        Op::SetMtu { link, mtu, .. } => done(links::set_mtu(route, link, *mtu)),
        Op::DisableTxChecksum { link, .. } => done(ethtool::disable_tx_checksum(&inside.control, link)),
        Op::ClearMaster { link, .. } => done(links::clear_master(route, link)),
        Op::SetMaster { link, master, .. } => done(links::set_master(route, link, master)),
        Op::SetPortFlags { link, flags, .. } => done(links::set_port_flags(route, link, *flags)),
        Op::SetPortVlans { link, vlans: wanted, .. } => done(vlans::set(route, link, wanted)),
        Op::SetSysctl { key, value, .. } => done(std::fs::write(Path::new("/proc/sys").join(key), value)),
        Op::SetUp { link, up, .. } => done(links::set_up(route, link, *up)),
        Op::AddAddress { link, address, .. } => made(links::add_address(route, link, *address)),
        Op::AddRoute { link, route: wanted, .. } => made(links::add_route(route, link, wanted)),
        Op::SetNeighbour { link, address, mac, .. } => done(links::set_neighbour(route, link, *address, *mac)),
        Op::SetShaper { link, shaper, .. } => done(shaper::set(route, link, *shaper)),
        // Not done inside of a namespace's thread.
        Op::DeleteOvsPort(_)
        | Op::SetOvsPort { .. }
        | Op::AwaitOvsPort { .. }
        | Op::SetOvsFlows { .. }
        | Op::DeleteTable { .. }
        | Op::ReplaceTable { .. } => Err(io::Error::from(io::ErrorKind::Unsupported)),
    }
}

fn done(result: io::Result<()>) -> io::Result<Outcome> {
    result.map(|()| Outcome::Done)
}

fn deleted(any: bool) -> Outcome {
    if any { Outcome::Done } else { Outcome::AlreadyGone }
}

fn removed(result: io::Result<()>) -> io::Result<Outcome> {
    links::gone_is_fine(result).map(deleted)
}

fn made(result: io::Result<()>) -> io::Result<Outcome> {
    match result {
        Ok(()) => Ok(Outcome::Done),
        // A tap's TUNSETIFF says EBUSY where netlink says EEXIST.
        Err(error) if matches!(error.raw_os_error(), Some(nix::libc::EEXIST | nix::libc::EBUSY)) => {
            Ok(Outcome::AlreadyThere)
        }
        Err(error) => Err(error),
    }
}
