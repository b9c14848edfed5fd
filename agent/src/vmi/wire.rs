//! The effects on a VMI's sandbox: read and record pod interfaces, wire, open packet sockets.

use std::os::fd::OwnedFd;
use std::path::Path;

use holdfast_agent_api::frame::MAX_FDS;
use holdfast_agent_api::launcher::{Failure, FailureClass};
use holdfast_net::binding::{self, BindingError};
use holdfast_net::desired::{DesiredState, MergeError, Netns};
use holdfast_net::error::ErrorClass;
use holdfast_net::kernel::{Wiring, WiringError};
use holdfast_net::mark::Mark;
use holdfast_net::model::{Binding, BindingMethod, GuestNic};

use super::nics::{self, NicError};
use super::record::{self, PodInterfaces, RecordError};
use super::{NicInput, NicReport, VmiInput, chain};
use crate::context::Context;

/// Why a VMI's NICs are not wired.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The spec asks for something that cannot be.
    #[error(transparent)]
    Nic(#[from] NicError),
    /// A binding cannot be carried out.
    #[error(transparent)]
    Binding(#[from] BindingError),
    /// Two interfaces ask for one object.
    #[error("failed to wire interface `{interface}`")]
    Merge {
        /// The second of them.
        interface: String,
        /// The object.
        source: MergeError,
    },
    /// The launcher cannot take so many descriptors at once.
    #[error("failed to wire the VMI: {0} interfaces are served by DHCP or are macvtaps, valid is up to {MAX_FDS}")]
    TooMany(usize),
    /// What the pod interfaces were is not on record.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The thread that writes the record ended.
    #[error("failed to write the binding record")]
    Thread(#[source] tokio::task::JoinError),
    /// The kernel or a switch.
    #[error(transparent)]
    Wiring(#[from] WiringError),
}

impl WireError {
    /// What the error means for a retry, with its reason for a condition and the whole chain as message.
    pub fn failure(&self) -> Failure {
        let class = |class| match class {
            ErrorClass::Retry => FailureClass::Retry,
            ErrorClass::Invalid => FailureClass::Invalid,
            ErrorClass::Conflict => FailureClass::Conflict,
            ErrorClass::Bug => FailureClass::Bug,
        };
        let (class, reason) = match self {
            Self::Nic(_) | Self::TooMany(_) => (FailureClass::Invalid, "InvalidInterface"),
            Self::Merge { .. } => (FailureClass::Invalid, "InterfaceConflict"),
            Self::Thread(_) => (FailureClass::Bug, "RecordUnavailable"),
            Self::Record(_) => (FailureClass::Retry, "RecordUnavailable"),
            Self::Binding(error) => (class(error.class()), error.reason()),
            Self::Wiring(error) => (class(error.class()), error.reason()),
        };
        Failure { class, reason: reason.to_owned(), message: chain(self) }
    }
}

/// A VMI's NICs, wired.
#[derive(Clone, Debug)]
pub struct Wired {
    /// For the launcher.
    pub nics: Vec<GuestNic>,
    /// For the report.
    pub reports: Vec<NicReport>,
}

/// Brings the bindings of a VMI about, and takes away those of the NICs in `gone`, which are no devices any more. Returns
/// the bindings with the steps that had to be done; none where all was in place.
///
/// # Errors
/// What was done by then stays, for the next attempt.
pub async fn wire(
    wiring: &Wiring,
    state: &Path,
    input: &VmiInput,
    gone: &[String],
) -> Result<(Wired, Vec<String>), WireError> {
    let sandbox = &input.sandbox;
    let mut pods = record::load(state, &sandbox.id)?;
    let known = pods.len();
    let (leaving, attached): (Vec<NicInput>, Vec<NicInput>) =
        input.nics.iter().cloned().partition(|nic| gone.contains(&nic.interface));
    for nic in &attached {
        if !pods.contains_key(&nic.pod_interface) {
            let pod = wiring.observe_pod_interface(&sandbox.netns, &nic.pod_interface).await?;
            pods.insert(nic.pod_interface.clone(), pod);
        }
    }
    let all = nics::bindings(&input.vmi, &attached, &sandbox.netns, &pods)?;
    // What the guest has not let go yet stays as it is, and is no NIC for the launcher.
    let absent = |binding: &&Binding| nics::is_leaving(&input.vmi, &binding.nic);
    let bindings: Vec<&Binding> = all.iter().filter(|binding| !absent(binding)).collect();
    let mut desired = desired(&bindings)?;
    for nic in &leaving {
        desired.claim(Netns::Path(sandbox.netns.clone()), Mark::Binding(nic.interface.clone()));
    }
    let nics = bindings.iter().map(|binding| binding::guest_nic(binding)).collect::<Result<Vec<_>, _>>()?;
    let served = nics.iter().filter(|nic| nic.dhcp_v4.is_some() || nic.macvtap).count();
    if served > MAX_FDS {
        return Err(WireError::TooMany(served));
    }
    if pods.len() > known {
        // Before the first op: it takes away what has just been read.
        save(state, &sandbox.id, pods.clone()).await?;
    }
    let done = Context::ops(&wiring.reconcile(&desired).await?);
    // After the last op: the next interface of that name is another.
    let forgotten = pods.len();
    pods.retain(|name, _| leaving.iter().all(|nic| nic.pod_interface != *name));
    if pods.len() < forgotten {
        save(state, &sandbox.id, pods).await?;
    }
    let reports = all.iter().map(|one| Ok(report(one, &binding::guest_nic(one)?))).collect::<Result<_, BindingError>>();
    Ok((Wired { nics, reports: reports? }, done))
}

/// A DHCP packet socket for each NIC that is served, in their order.
///
/// # Errors
/// When a tap is gone.
pub async fn dhcp_sockets(wiring: &Wiring, netns: &Path, nics: &[GuestNic]) -> Result<Vec<OwnedFd>, WireError> {
    let mut sockets = Vec::new();
    for nic in nics.iter().filter(|nic| nic.dhcp_v4.is_some()) {
        sockets.push(wiring.open_dhcp_socket(netns, &nic.tap).await?);
    }
    Ok(sockets)
}

/// The macvtap of each NIC that is one, in their order. For a domain that does not run: a second opening of one takes
/// frames away from the first.
///
/// # Errors
/// When one is gone, or is something else.
pub async fn macvtaps(wiring: &Wiring, netns: &Path, nics: &[GuestNic]) -> Result<Vec<OwnedFd>, WireError> {
    let mut taps = Vec::new();
    for nic in nics.iter().filter(|nic| nic.macvtap) {
        taps.push(wiring.open_macvtap(netns, &nic.tap).await?);
    }
    Ok(taps)
}

/// Writes the record on a thread that may wait for the disk.
async fn save(state: &Path, container_id: &str, pods: PodInterfaces) -> Result<(), WireError> {
    let (state, id) = (state.to_owned(), container_id.to_owned());
    let written = tokio::task::spawn_blocking(move || record::save(&state, &id, &pods)).await;
    written.map_err(WireError::Thread)?.map_err(WireError::Record)
}

fn desired(bindings: &[&Binding]) -> Result<DesiredState, WireError> {
    let mut all = DesiredState::default();
    for one in bindings {
        let wanted = binding::desired(one)?;
        all = all.merge(wanted).map_err(|source| WireError::Merge { interface: one.nic.clone(), source })?;
    }
    Ok(all)
}

fn report(binding: &Binding, nic: &GuestNic) -> NicReport {
    let masquerade = matches!(binding.method, BindingMethod::Masquerade { .. });
    NicReport {
        name: binding.nic.clone(),
        pod_interface: binding.pod_interface.clone(),
        mac: binding.guest_mac,
        masquerade,
        addresses: if masquerade { binding.pod.addresses.clone() } else { nic.addresses.clone() },
        queues: binding.queues,
        link_up: binding.link_up,
    }
}
