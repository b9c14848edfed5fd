//! Does one step: an exhaustive match on [`Op`].

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use super::error::{StepError, WiringError};
use super::links::{self, Veth};
use super::netns::{Inside, Namespace};
use super::ovsdb::Ovs;
use super::{Outcome, ethtool, nft, tap};
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

/// Does one step.
pub(super) async fn apply(op: &Op, executors: &Executors<'_>) -> Result<Outcome, WiringError> {
    let failed = |source| WiringError::Apply { op: Box::new(op.clone()), source };
    match op {
        Op::DeleteOvsPort(port) => match executors.ovs {
            Some(ovs) => done_or_gone(ovs.delete_port(port).await.map_err(failed)?),
            None => Ok(Outcome::AlreadyGone),
        },
        Op::SetOvsPort { name, port, present } => match executors.ovs {
            Some(ovs) => ovs.set_port(name, port, present.as_ref()).await.map(|()| Outcome::Done).map_err(failed),
            None => Err(failed(no_ovs())),
        },
        Op::AwaitOvsPort { name } => match executors.ovs {
            Some(ovs) => ovs.await_port(name).await.map(|()| Outcome::Done).map_err(failed),
            None => Err(failed(no_ovs())),
        },
        Op::DeleteTable { netns, table } => {
            let namespace = executors.namespace(netns)?;
            table_outcome(nft::delete(namespace, table).await, failed)
        }
        Op::ReplaceTable { netns, name, table } => {
            let namespace = executors.namespace(netns)?;
            table_outcome(nft::replace(namespace, name, table).await, failed)
        }
        Op::DeleteLinks { netns, .. }
        | Op::CreateBridge { netns, .. }
        | Op::CreateVeth { netns, .. }
        | Op::CreateTap { netns, .. }
        | Op::SetMark { netns, .. }
        | Op::SetMac { netns, .. }
        | Op::SetMtu { netns, .. }
        | Op::DisableTxChecksum { netns, .. }
        | Op::RemoveAddress { netns, .. }
        | Op::SetMaster { netns, .. }
        | Op::SetPortFlags { netns, .. }
        | Op::SetSysctl { netns, .. }
        | Op::SetUp { netns, .. }
        | Op::AddAddress { netns, .. }
        | Op::RemoveRoute { netns, .. }
        | Op::AddRoute { netns, .. }
        | Op::RemoveNeighbour { netns, .. }
        | Op::SetNeighbour { netns, .. } => {
            let namespace = executors.namespace(netns)?;
            let peer = match op {
                Op::CreateVeth { peer_netns, .. } => Some(executors.handle(peer_netns)?),
                _ => None,
            };
            let step = op.clone();
            let result = namespace.call(move |inside| in_namespace(&step, inside, peer.as_ref())).await?;
            result.map_err(|error| failed(StepError::Kernel(error)))
        }
    }
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

fn no_ovs() -> StepError {
    StepError::Ovsdb("not configured".to_owned())
}

fn done_or_gone(done: bool) -> Result<Outcome, WiringError> {
    Ok(if done { Outcome::Done } else { Outcome::AlreadyGone })
}

fn table_outcome(
    result: Result<(), nft::ApplyError>,
    failed: impl Fn(StepError) -> WiringError,
) -> Result<Outcome, WiringError> {
    match result {
        Ok(()) => Ok(Outcome::Done),
        Err(nft::ApplyError::Namespace(error)) => Err(error),
        Err(nft::ApplyError::Step(error)) => Err(failed(error)),
    }
}

/// A step that takes nothing but the namespace it is done in. What is to be made and is there, and what is to be
/// deleted and is gone, is no error: the next look tells whether it is what is wanted.
fn in_namespace(op: &Op, inside: &mut Inside, peer: Option<&File>) -> io::Result<Outcome> {
    let route = &mut inside.route;
    match op {
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
        Op::CreateTap { name, tap, .. } => made(tap::create(name, tap, || links::set_group(route, name))),
        Op::SetMark { link, mark, .. } => done(links::set_mark(route, link, mark)),
        Op::SetMac { link, mac, .. } => done(links::set_mac(route, link, *mac)),
        Op::SetMtu { link, mtu, .. } => done(links::set_mtu(route, link, *mtu)),
        Op::DisableTxChecksum { link, .. } => done(ethtool::disable_tx_checksum(&inside.control, link)),
        Op::SetMaster { link, master, .. } => done(links::set_master(route, link, master)),
        Op::SetPortFlags { link, flags, .. } => done(links::set_port_flags(route, link, *flags)),
        Op::SetSysctl { key, value, .. } => done(std::fs::write(Path::new("/proc/sys").join(key), value)),
        Op::SetUp { link, up, .. } => done(links::set_up(route, link, *up)),
        Op::AddAddress { link, address, .. } => made(links::add_address(route, link, *address)),
        Op::AddRoute { link, route: wanted, .. } => made(links::add_route(route, link, wanted)),
        Op::SetNeighbour { link, address, mac, .. } => done(links::set_neighbour(route, link, *address, *mac)),
        // Not done inside of a namespace's thread.
        Op::DeleteOvsPort(_)
        | Op::SetOvsPort { .. }
        | Op::AwaitOvsPort { .. }
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
