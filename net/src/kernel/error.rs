//! What can go wrong between us, the kernel and Open vSwitch.

use std::io;
use std::path::PathBuf;

use crate::desired::Netns;
use crate::error::ErrorClass;
use crate::model::IfName;
use crate::plan::{Op, PlanError};

/// Why the wiring is not as it shall be.
#[derive(Debug, thiserror::Error)]
pub enum WiringError {
    /// Something is missing or in the way that is not ours to make or remove; the message names it.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A namespace could not be entered.
    #[error("failed to enter network namespace `{netns}`")]
    Enter {
        /// Which.
        netns: Netns,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something could not be read.
    #[error("failed to observe {what} in network namespace `{netns}`")]
    Observe {
        /// Where.
        netns: Netns,
        /// What.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A step failed.
    #[error("failed to {op}")]
    Apply {
        /// The step.
        op: Box<Op>,
        /// Why.
        #[source]
        source: StepError,
    },
    /// Steps of a teardown failed; all others were done.
    #[error("failed to remove {} of the objects: {}", failures.len(), in_words(failures))]
    Remove {
        /// The steps that failed, each with its reason.
        failures: Vec<(Op, StepError)>,
    },
    /// Each round found something to do again: somebody works against us.
    #[error("failed to converge in {rounds} rounds; the plan is still: {plan}")]
    Unstable {
        /// How many rounds.
        rounds: usize,
        /// What the last look found to do.
        plan: String,
    },
    /// Open vSwitch did not answer as it should.
    #[error("failed to talk to Open vSwitch at `{}`", path.display())]
    Ovs {
        /// Its socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: StepError,
    },
    /// An interface to be read is not there.
    #[error("failed to find interface `{name}` in network namespace `{netns}`")]
    MissingLink {
        /// Where.
        netns: Netns,
        /// Its name.
        name: IfName,
    },
    /// The kernel took too long.
    #[error("failed to get an answer from network namespace `{0}` in time")]
    Deadline(Netns),
}

/// Why one step failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] io::Error),
    /// nft refused; its own words.
    #[error("nft: {0}")]
    Nft(String),
    /// OVSDB refused; its own words.
    #[error("ovsdb: {0}")]
    Ovsdb(String),
    /// A bridge did not take or tell its flows.
    #[error("OpenFlow of bridge `{0}`: {1}")]
    OpenFlow(String, io::Error),
    /// The switch could not take the port in; its own words.
    #[error("the switch reports: {0}")]
    Switch(String),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Deadline(std::time::Duration),
}

fn in_words(failures: &[(Op, StepError)]) -> String {
    failures.iter().map(|(op, why)| format!("{op}: {why}")).collect::<Vec<_>>().join("; ")
}

impl WiringError {
    /// What to do about it.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Plan(error) => error.class(),
            Self::Enter { .. }
            | Self::Observe { .. }
            | Self::Apply { .. }
            | Self::Remove { .. }
            | Self::Unstable { .. }
            | Self::Ovs { .. }
            | Self::MissingLink { .. }
            | Self::Deadline(_) => ErrorClass::Retry,
        }
    }

    /// A word for conditions and events.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Plan(error) => error.reason(),
            Self::Enter { .. } => "NetnsNotFound",
            Self::Observe { .. } => "ObserveFailed",
            Self::Apply { .. } => "WiringFailed",
            Self::Remove { .. } => "TeardownFailed",
            Self::Unstable { .. } => "WiringUnstable",
            Self::Ovs { .. } => "OpenVSwitchUnavailable",
            Self::MissingLink { .. } => "InterfaceNotFound",
            Self::Deadline(_) => "KernelTimeout",
        }
    }
}
