//! The kernel and Open vSwitch: observe, apply, and the loop of both around the pure planner.
//!
//! Invariants: each reconciliation looks only at what its desired state names; each namespace is worked in by a thread
//! of its own that ends with the reconciliation; every call has a deadline.

mod apply;
mod changes;
mod dhcp_socket;
mod error;
mod ethtool;
mod guard;
mod links;
mod macvtap;
mod mtu;
mod netlink;
mod netns;
mod nft;
mod observe;
mod openflow;
mod ovsdb;
mod rehearsal;
pub mod reply;
mod shaper;
mod tap;
mod view;
mod vlans;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::RwLock;

use self::apply::Executors;
pub use self::changes::{Changes, Place};
pub use self::error::{StepError, WiringError};
use self::netns::{Idle, Inside, Namespace};
use self::ovsdb::Ovs;
pub use self::rehearsal::{RehearsalError, rehearse};
use self::view::Look;
use crate::desired::{DesiredState, Netns};
use crate::mark::{DOOMED_LINK_GROUP, LINK_GROUP, Mark};
use crate::model::{AttachmentId, IfName, PodInterface, StaticRoute};
use crate::observed::{ObservedNamespace, ObservedOvs, ObservedState};
use crate::op::Op;
use crate::plan::{Plan, PlanError};

/// How often it is observed and planned before somebody is thought to work against us.
const ROUNDS: usize = 5;

/// Where the host's parts are.
#[derive(Clone, Debug, Default)]
pub struct WiringOptions {
    /// Unix socket of ovsdb-server (`/run/openvswitch/db.sock`); none where the host has no Open vSwitch.
    pub ovsdb: Option<PathBuf>,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApplyReport {
    /// Each step in the order in which it was done, with its outcome.
    pub done: Vec<(Op, Outcome)>,
    /// How often it was observed, planned and applied.
    pub rounds: usize,
}

/// How a step that did not fail came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Done,
    /// It was to delete an object that was gone.
    AlreadyGone,
    /// It was to make an object that somebody else, or an earlier round, had made in the meantime.
    AlreadyThere,
}

/// The host's wiring. Clones share it.
#[derive(Clone, Debug)]
pub struct Wiring {
    host: Arc<File>,
    /// Threads in the host's namespace.
    idle: Arc<Idle>,
    ovs: Option<Ovs>,
    /// Held for reading while something is wired, for writing while what is shared and unused is removed: else a bridge
    /// might go between the moment a port was planned for it and the moment it is made.
    shared: Arc<RwLock<()>>,
    changes: Arc<changes::Source>,
}

/// The namespaces of one reconciliation.
struct Entered {
    namespaces: BTreeMap<Netns, Namespace>,
    handles: BTreeMap<Netns, File>,
}

impl Wiring {
    /// Opens the host's wiring; the network namespace of the calling thread is the host's. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the namespace cannot be opened. An OVSDB that does not answer is no error: it is connected to in the
    /// background, again and again.
    pub fn open(options: WiringOptions) -> Result<Self, WiringError> {
        let WiringOptions { ovsdb } = options;
        let host = File::open("/proc/thread-self/ns/net")
            .map_err(|source| WiringError::Enter { netns: Netns::Host, source })?;
        let heard = changes::teller();
        let ovs = ovsdb.map(|path| Ovs::start(path, heard.clone()));
        let changes = changes::Source::start(heard, ovs.as_ref());
        Ok(Self { host: Arc::new(host), idle: Arc::default(), ovs, shared: Arc::default(), changes })
    }

    /// Hears of changes from now on, of ours and of others.
    pub fn changes(&self) -> Changes {
        self.changes.changes()
    }

    /// Where it is that something changes when it changes in these namespaces; none for one that is gone.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub async fn places_of(&self, namespaces: Vec<PathBuf>) -> Result<Vec<Option<Place>>, WiringError> {
        let host = self.enter_one(&Netns::Host)?;
        let ask = move |inside: &mut Inside| {
            let mut place = |handle: &File| changes::number_of(&mut inside.route, handle).map(Place::Namespace);
            namespaces.iter().map(|path| File::open(path).ok().map(|handle| place(&handle)).transpose()).collect()
        };
        let places: io::Result<_> = host.call(ask).await?;
        let what = "numbers of namespaces".to_owned();
        places.map_err(|source| WiringError::Observe { netns: Netns::Host, what, source })
    }

    /// Brings about what shall be: observes, plans, applies, and does so until there is nothing left to do.
    ///
    /// # Errors
    /// At the first step that fails; what was done by then stays, for the next round.
    pub async fn reconcile(&self, desired: &DesiredState) -> Result<ApplyReport, WiringError> {
        let _wiring = self.shared.read().await;
        self.converge(desired, Look::Whole, false).await
    }

    /// Brings about what nobody has made before, as [`Self::reconcile`] does. It does not look for what an earlier life of
    /// the same names may have left in tables that all ports share, which would take longer with each port of the node;
    /// nor does it look again in the end, unless somebody else was at work. Both is for a [`Self::reconcile`] soon after.
    ///
    /// # Errors
    /// As those of [`Self::reconcile`].
    pub async fn make(&self, desired: &DesiredState) -> Result<ApplyReport, WiringError> {
        let _wiring = self.shared.read().await;
        let entered = self.enter(desired)?;
        let mut report = ApplyReport { rounds: 1, ..ApplyReport::default() };
        let namespaces = self.observe_namespaces(desired, Look::Wanted, &entered).await?;
        let observed = ObservedState { namespaces, ovs: self.observe_ovs(desired, &BTreeSet::new()).await? };
        let plan = crate::plan::plan(desired, &observed)?;
        let executors = self.executors(&entered);
        report.done = make_all(&plan, &executors).await?;
        // The flows of a port name the number that it has by now; they are the only steps that follow from others.
        let mut sequel = Plan::default();
        let new_ports = new_ports_of(&plan);
        if !new_ports.is_empty() {
            let ports = DesiredState { ovs_ports: desired.ovs_ports.clone(), ..DesiredState::default() };
            let ovs = self.observe_ovs(&ports, &new_ports).await?;
            sequel = crate::plan::plan(&ports, &ObservedState { ovs, ..ObservedState::default() })?;
            apply_all(&sequel, &executors, false, &mut report).await?;
        }
        let as_planned = |(_, outcome): &(Op, Outcome)| *outcome == Outcome::Done;
        if report.done.iter().all(as_planned) && report.done.len() == plan.ops.len() + sequel.ops.len() {
            return Ok(report);
        }
        let rest = self.converge(desired, Look::Wanted, false).await?;
        report.done.extend(rest.done);
        report.rounds += rest.rounds;
        Ok(report)
    }

    /// What would have to be done: empty where all is as it shall be.
    ///
    /// # Errors
    /// When something cannot be observed, or no plan leads to what is desired.
    pub async fn plan(&self, desired: &DesiredState) -> Result<Plan, WiringError> {
        let entered = self.enter(desired)?;
        let namespaces = self.observe_namespaces(desired, Look::Whole, &entered).await?;
        let observed = ObservedState { namespaces, ovs: self.observe_ovs(desired, &BTreeSet::new()).await? };
        Ok(crate::plan::plan(desired, &observed)?)
    }

    /// Does the steps of a plan for this desired state, and does not look whether that was enough.
    ///
    /// # Errors
    /// At the first step that fails.
    pub async fn apply(&self, desired: &DesiredState, plan: &Plan) -> Result<ApplyReport, WiringError> {
        let _wiring = self.shared.read().await;
        let entered = self.enter(desired)?;
        let mut report = ApplyReport { rounds: 1, ..ApplyReport::default() };
        apply_all(plan, &self.executors(&entered), false, &mut report).await?;
        Ok(report)
    }

    /// Removes all that these attachments have on the host, in groups, and what they shared with others if nobody uses
    /// it any more. What is not there is a success; a step that fails, or a switch that does not answer, does not keep
    /// the rest from being done.
    ///
    /// # Errors
    /// All steps that failed; [`WiringError::Ovs`] where ports may be left for another attempt.
    pub async fn remove(&self, ids: &[AttachmentId]) -> Result<ApplyReport, WiringError> {
        let mut report = {
            let _wiring = self.shared.read().await;
            self.converge(&DesiredState::without(ids), Look::Whole, true).await?
        };
        let _alone = self.shared.write().await;
        let unused = self.converge(&DesiredState::without_unused(), Look::Whole, true).await?;
        report.done.extend(unused.done);
        report.rounds += unused.rounds;
        Ok(report)
    }

    /// Removes what an attachment has in its pod and no host end takes with it. What is not there is a success, as is a
    /// namespace that is gone.
    ///
    /// # Errors
    /// The steps that failed.
    pub async fn remove_inside(&self, netns: &Path, id: &AttachmentId) -> Result<ApplyReport, WiringError> {
        let _wiring = self.shared.read().await;
        self.converge(&DesiredState::without_inside(netns.to_owned(), id.clone()), Look::Whole, true).await
    }

    /// Opens a macvtap: what is written to it leaves for the wire, what the wire has for it is read. Each open file is a
    /// queue that the kernel spreads frames over, so there must be one in all.
    ///
    /// # Errors
    /// When the namespace or the macvtap is not there.
    pub async fn open_macvtap(&self, netns: &Path, name: &IfName) -> Result<OwnedFd, WiringError> {
        let netns = Netns::Path(netns.to_owned());
        let namespace = self.enter_one(&netns)?;
        let inside = name.clone();
        namespace.call(move |_| macvtap::open(&inside)).await?.map_err(|source| {
            let what = format!("macvtap `{name}`");
            WiringError::Observe { netns, what, source }
        })
    }

    /// Reads a pod interface as its CNI plugin left it.
    ///
    /// # Errors
    /// When the namespace or the interface is not there.
    pub async fn observe_pod_interface(&self, netns: &Path, ifname: &IfName) -> Result<PodInterface, WiringError> {
        let (netns, name) = (Netns::Path(netns.to_owned()), ifname.clone());
        let missing = WiringError::MissingLink { netns: netns.clone(), name: name.clone() };
        let observe_error = |source| {
            let what = format!("interface `{ifname}`");
            WiringError::Observe { netns: netns.clone(), what, source }
        };
        let namespace = self.enter_one(&netns)?;
        let read = move |inside: &mut netns::Inside| pod_interface(inside, &name);
        namespace.call(read).await?.map_err(observe_error)?.ok_or(missing)
    }

    /// Opens a packet socket on a tap that sees the guest's DHCPv4 requests, and nothing else, before any bridge does.
    /// Frames that are sent on it reach the guest alone. It does not block.
    ///
    /// # Errors
    /// When the namespace or the tap is not there.
    pub async fn open_dhcp_socket(&self, netns: &Path, tap: &IfName) -> Result<OwnedFd, WiringError> {
        let (netns, name) = (Netns::Path(netns.to_owned()), tap.clone());
        let namespace = self.enter_one(&netns)?;
        let open = move |_: &mut netns::Inside| dhcp_socket::open(links::index(&name)?);
        namespace.call(open).await?.map_err(|source| {
            if source.raw_os_error() == Some(nix::libc::ENODEV) {
                return WiringError::MissingLink { netns: netns.clone(), name: tap.clone() };
            }
            WiringError::Observe { netns: netns.clone(), what: format!("tap `{tap}`"), source }
        })
    }

    /// The names of the host's bridges, sorted: those of Open vSwitch, or the kernel's. For people who look for one.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn bridges(&self, ovs: bool) -> Result<Vec<String>, WiringError> {
        let mut names = match &self.ovs {
            Some(switch) if ovs => switch.bridges().await.map_err(|source| ovs_error(switch, source))?,
            _ if ovs => Vec::new(),
            _ => {
                let namespace = self.enter_one(&Netns::Host)?;
                let observe_error =
                    |source| WiringError::Observe { netns: Netns::Host, what: "links".to_owned(), source };
                namespace.call(|inside| observe::bridges(&mut inside.route)).await?.map_err(observe_error)?
            }
        };
        names.sort();
        Ok(names)
    }

    /// The attachments of which the host has anything, by our marks, sorted.
    ///
    /// # Errors
    /// When something cannot be observed.
    pub async fn owned(&self) -> Result<Vec<AttachmentId>, WiringError> {
        let namespace = self.enter_one(&Netns::Host)?;
        let observe_error = |source| WiringError::Observe { netns: Netns::Host, what: "links".to_owned(), source };
        let mut owned = namespace.call(marked).await?.map_err(observe_error)?;
        if let Some(ovs) = &self.ovs {
            owned.extend(ovs.attachments().await.map_err(|source| ovs_error(ovs, source))?);
        }
        Ok(owned.into_iter().collect())
    }

    /// Removes flows of ours whose port is none of ours any more. How many ports there were.
    ///
    /// # Errors
    /// [`WiringError::Ovs`] where the switch does not answer.
    pub async fn drop_stray_flows(&self) -> Result<usize, WiringError> {
        let Some(ovs) = &self.ovs else { return Ok(0) };
        let strays = async || ovs.stray_flows().await.map_err(|source| ovs_error(ovs, source));
        if strays().await?.is_empty() {
            return Ok(0);
        }
        // Once more, while nobody makes a port that might have one of the numbers.
        let _alone = self.shared.write().await;
        let strays = strays().await?;
        for (bridge, number) in &strays {
            ovs.set_flows(bridge, *number, &[]).await.map_err(|source| ovs_error(ovs, source))?;
        }
        Ok(strays.len())
    }

    /// Observes, plans and applies until the plan is empty. A teardown goes on after a step that failed.
    async fn converge(&self, desired: &DesiredState, look: Look, teardown: bool) -> Result<ApplyReport, WiringError> {
        let entered = self.enter(desired)?;
        let executors = self.executors(&entered);
        let mut report = ApplyReport::default();
        let mut plan = Plan::default();
        let mut unreachable = None;
        let mut new_ports = BTreeSet::new();
        for round in 1..=ROUNDS {
            let namespaces = self.observe_namespaces(desired, look, &entered).await?;
            let ovs = match self.observe_ovs(desired, &new_ports).await {
                Err(error) if teardown => {
                    unreachable = Some(error);
                    None
                }
                observed => observed?,
            };
            plan = crate::plan::plan(desired, &ObservedState { namespaces, ovs })?;
            if plan.is_empty() {
                return unreachable.map_or(Ok(report), Err);
            }
            report.rounds = round;
            new_ports = new_ports_of(&plan);
            let failures = apply_all(&plan, &executors, teardown, &mut report).await?;
            if !failures.is_empty() {
                return Err(WiringError::Remove { failures });
            }
        }
        Err(WiringError::Unstable { rounds: ROUNDS, plan: plan.to_string().trim_end().replace('\n', "; ") })
    }

    /// Enters the namespaces that a desired state is about. Those that are gone are left out.
    fn enter(&self, desired: &DesiredState) -> Result<Entered, WiringError> {
        let mut entered = Entered { namespaces: BTreeMap::new(), handles: BTreeMap::new() };
        for netns in view::views(desired, Look::Whole).into_keys() {
            let Some(handle) = self.handle(&netns)? else { continue };
            entered.namespaces.insert(netns.clone(), self.enter_by(&netns, &handle)?);
            entered.handles.insert(netns, handle);
        }
        Ok(entered)
    }

    fn executors<'a>(&'a self, entered: &'a Entered) -> Executors<'a> {
        Executors { namespaces: &entered.namespaces, handles: &entered.handles, ovs: self.ovs.as_ref() }
    }

    fn enter_one(&self, netns: &Netns) -> Result<Namespace, WiringError> {
        let missing = || WiringError::Plan(PlanError::MissingNetns(netns.clone()));
        let handle = self.handle(netns)?.ok_or_else(missing)?;
        self.enter_by(netns, &handle)
    }

    fn enter_by(&self, netns: &Netns, handle: &File) -> Result<Namespace, WiringError> {
        let idle = (*netns == Netns::Host).then(|| self.idle.clone());
        if let Some(namespace) = idle.as_ref().and_then(|idle| idle.take(netns.clone())) {
            return Ok(namespace);
        }
        let handle = handle.try_clone().map_err(|source| WiringError::Enter { netns: netns.clone(), source })?;
        Namespace::enter(netns.clone(), handle, idle)
    }

    /// A handle of a namespace; none where there is none.
    fn handle(&self, netns: &Netns) -> Result<Option<File>, WiringError> {
        let handle = match netns {
            Netns::Host => self.host.try_clone(),
            Netns::Path(path) => File::open(path),
        };
        let kind = |handle: &File| nix::sys::statfs::fstatfs(handle).map(|found| found.filesystem_type());
        match handle.and_then(|handle| Ok((kind(&handle)?, handle))) {
            Ok((netns::NSFS, handle)) => Ok(Some(handle)),
            // One that was unmounted leaves an empty file behind.
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(WiringError::Enter { netns: netns.clone(), source }),
        }
    }

    async fn observe_namespaces(
        &self,
        desired: &DesiredState,
        look: Look,
        entered: &Entered,
    ) -> Result<BTreeMap<Netns, ObservedNamespace>, WiringError> {
        let looks = view::views(desired, look).into_iter().filter_map(|(netns, view)| {
            let namespace = entered.namespaces.get(&netns)?;
            Some(async move {
                let observed = namespace.call(move |inside| observe::observe(inside, &view)).await?;
                match observed {
                    Ok(observed) => Ok((netns, observed)),
                    Err((what, source)) => Err(WiringError::Observe { netns, what, source }),
                }
            })
        });
        Ok(futures::future::try_join_all(looks).await?.into_iter().collect())
    }

    /// What is of Open vSwitch; none where nothing is asked for, or there is none. The switch is not asked for the flows
    /// of ports that were made a moment ago: they get theirs next, in the place of any that may be there.
    async fn observe_ovs(
        &self,
        desired: &DesiredState,
        new_ports: &BTreeSet<String>,
    ) -> Result<Option<ObservedOvs>, WiringError> {
        match (&self.ovs, view::ovs_view(desired)) {
            (Some(ovs), Some(mut view)) => {
                view.secured.retain(|port| !new_ports.contains(port));
                ovs.observe(&view).await.map_err(|source| ovs_error(ovs, source))
            }
            (None, _) | (_, None) => Ok(None),
        }
    }
}

/// The ports of Open vSwitch that a plan makes.
fn new_ports_of(plan: &Plan) -> BTreeSet<String> {
    let made = plan.ops.iter().filter_map(|op| match op {
        Op::SetOvsPort { name, present: None, .. } => Some(name.clone()),
        _ => None,
    });
    made.collect()
}

/// Applies a plan; gives the failures of a teardown. Where something was made by somebody else in the meantime, what
/// follows may fail for that reason: the rest is left to the next round.
async fn apply_all(
    plan: &Plan,
    executors: &Executors<'_>,
    teardown: bool,
    report: &mut ApplyReport,
) -> Result<Vec<(Op, StepError)>, WiringError> {
    let mut failures = Vec::new();
    let mut raced = false;
    let mut rest = plan.ops.as_slice();
    while !rest.is_empty() {
        let outcomes = apply::apply_run(rest, executors).await?;
        let (tried, later) = rest.split_at(outcomes.len());
        rest = later;
        for (op, outcome) in tried.iter().zip(outcomes) {
            match outcome {
                Ok(outcome) => {
                    raced |= outcome == Outcome::AlreadyThere;
                    report.done.push((op.clone(), outcome));
                }
                Err(source) if teardown => failures.push((op.clone(), source)),
                Err(_) if raced => return Ok(failures),
                Err(source) => return Err(WiringError::Apply { op: Box::new(op.clone()), source }),
            }
        }
    }
    Ok(failures)
}

/// Applies a plan that makes things: those of the host first, as what is in pods hangs on them; then those in pods while
/// the switch takes its ports in; then what waits for that. To go back and forth takes longer than the steps.
async fn make_all(plan: &Plan, executors: &Executors<'_>) -> Result<Vec<(Op, Outcome)>, WiringError> {
    let mut report = ApplyReport::default();
    let in_turn = |op: &Op| {
        // What a table keeps off is kept off before anything is up; what is in the way goes first.
        matches!(op, Op::ReplaceTable { .. } | Op::DeleteTable { .. } | Op::DeleteOvsPort(_) | Op::DeleteLinks { .. })
    };
    if plan.ops.iter().any(in_turn) {
        apply_all(plan, executors, false, &mut report).await?;
        return Ok(report.done);
    }
    let of_switch = |op: &Op| op.inside().is_none();
    let waiting = plan.ops.iter().rposition(of_switch).map_or(plan.ops.len(), |last| last + 1);
    let (first, last) = plan.ops.split_at(waiting);
    let pick = |wanted: &dyn Fn(&Op) -> bool| Plan { ops: first.iter().filter(|op| wanted(op)).cloned().collect() };
    let host = pick(&|op| op.inside() == Some(&Netns::Host));
    let pods = pick(&|op| op.inside().is_some_and(|netns| *netns != Netns::Host));
    let (switch, last) = (pick(&of_switch), Plan { ops: last.to_vec() });
    apply_all(&host, executors, false, &mut report).await?;
    if report.done.len() < host.ops.len() {
        // Somebody else is at work.
        return Ok(report.done);
    }
    let (mut inside, mut outside) = (ApplyReport::default(), ApplyReport::default());
    futures::future::try_join(
        apply_all(&pods, executors, false, &mut inside),
        apply_all(&switch, executors, false, &mut outside),
    )
    .await?;
    report.done.extend(inside.done.into_iter().chain(outside.done));
    apply_all(&last, executors, false, &mut report).await?;
    Ok(report.done)
}

fn ovs_error(ovs: &Ovs, source: StepError) -> WiringError {
    WiringError::Ovs { path: ovs.path().clone(), source }
}

/// The attachments that the aliases of our links name.
fn marked(inside: &mut netns::Inside) -> io::Result<BTreeSet<AttachmentId>> {
    let links = observe::dump_links(&mut inside.route)?;
    let ids = links.iter().filter_map(|link| match observe::group_and_alias(link) {
        (LINK_GROUP | DOOMED_LINK_GROUP, Some(alias)) => match alias.parse() {
            Ok(Mark::Attachment(id)) => Some(id),
            Ok(Mark::Binding(_) | Mark::Shared) | Err(_) => None,
        },
        _ => None,
    });
    Ok(ids.collect())
}

/// A pod interface with its addresses and routes; none where there is no such interface.
fn pod_interface(inside: &mut netns::Inside, name: &IfName) -> io::Result<Option<PodInterface>> {
    use netlink_packet_route::link::LinkAttribute;
    use netlink_packet_route::route::RouteProtocol;

    let Some(link) = links::get(&mut inside.route, name)? else { return Ok(None) };
    let mac = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Address(bytes) => bytes.as_slice().try_into().ok().map(crate::model::MacAddr),
        _ => None,
    });
    let mtu = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Mtu(mtu) => Some(*mtu),
        _ => None,
    });
    let Some((mac, mtu)) = mac.zip(mtu) else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the interface has no Ethernet address"));
    };
    let index = link.header.index;
    let addresses = observe::read_addresses(&mut inside.route, index)?.into_iter().collect();
    let routes = observe::read_routes(&mut inside.route, index)?
        .into_iter()
        .filter(|(protocol, _)| *protocol != RouteProtocol::Kernel)
        .map(|(_, route)| StaticRoute { destination: route.destination, gateway: route.gateway })
        .collect();
    Ok(Some(PodInterface { mac, mtu, addresses, routes }))
}
