//! What goes wrong in a call, as CNI's error object: code, one line, and the causes behind it.

use holdfast_agent_api::cni::{CniError, code};
use holdfast_agent_api::launcher::FailureClass;
use holdfast_net::error::ErrorClass;
use holdfast_net::kernel::WiringError;

use crate::netns::NetnsError;
use crate::registry::{Busy, DiskError, NoteError};
use crate::workloads::{AttachError, NotReady};
use holdfast_ipam::leases::{AllocateError, LeaseError};
use holdfast_ipam::network::{BandwidthError, NetworkError, PairsError};

/// A call that fails.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Fault(pub CniError);

impl Fault {
    /// With a text of its own.
    pub fn new(code: u32, msg: impl Into<String>, details: impl Into<String>) -> Self {
        Self(CniError { code, msg: msg.into(), details: details.into() })
    }

    /// The same about one of several networks.
    pub fn on(self, network: &str) -> Self {
        let CniError { code, msg, details } = self.0;
        Self::new(code, format!("failed to join network `{network}`: {msg}"), details)
    }

    fn of(code: u32, error: &dyn std::error::Error) -> Self {
        let details = error.source().map(crate::chain).unwrap_or_default();
        Self::new(code, error.to_string(), details)
    }
}

impl From<NetworkError> for Fault {
    fn from(error: NetworkError) -> Self {
        let code = match error {
            NetworkError::Unsupported { .. } => code::UNSUPPORTED,
            // An object that may yet be made.
            NetworkError::Missing(_) => code::TRY_AGAIN,
            _ => code::CONFIG,
        };
        Self::new(code, format!("invalid network configuration: {error}"), "")
    }
}

impl From<PairsError> for Fault {
    fn from(error: PairsError) -> Self {
        Self::new(code::CONFIG, error.to_string(), "")
    }
}

impl From<BandwidthError> for Fault {
    fn from(error: BandwidthError) -> Self {
        Self::new(code::CONFIG, error.to_string(), "")
    }
}

impl From<NetnsError> for Fault {
    fn from(error: NetnsError) -> Self {
        Self::of(code::NETNS, &error)
    }
}

impl From<DiskError> for Fault {
    fn from(error: DiskError) -> Self {
        Self::of(code::IO, &error)
    }
}

impl From<Busy> for Fault {
    fn from(error: Busy) -> Self {
        Self::of(code::TRY_AGAIN, &error)
    }
}

impl From<NotReady> for Fault {
    fn from(error: NotReady) -> Self {
        Self::of(code::TRY_AGAIN, &error)
    }
}

impl From<AttachError> for Fault {
    fn from(error: AttachError) -> Self {
        let code = match error {
            AttachError::Annotation(_) | AttachError::Invalid { .. } => code::CONFIG,
            AttachError::NotReady { .. } | AttachError::Unknown { .. } => code::TRY_AGAIN,
        };
        Self::of(code, &error)
    }
}

impl From<NoteError> for Fault {
    fn from(error: NoteError) -> Self {
        match error {
            NoteError::Busy(error) => error.into(),
            NoteError::Disk(error) => error.into(),
        }
    }
}

impl From<LeaseError> for Fault {
    fn from(error: LeaseError) -> Self {
        Self::of(code::TRY_AGAIN, &error)
    }
}

impl From<AllocateError> for Fault {
    fn from(error: AllocateError) -> Self {
        let code = match error.class() {
            FailureClass::Retry => code::TRY_AGAIN,
            FailureClass::Conflict => code::CONFLICT,
            FailureClass::Invalid => code::CONFIG,
            FailureClass::Bug => code::INTERNAL,
        };
        Self::of(code, &error)
    }
}

impl From<WiringError> for Fault {
    fn from(error: WiringError) -> Self {
        let code = match error.class() {
            ErrorClass::Retry => code::TRY_AGAIN,
            ErrorClass::Invalid => code::NODE,
            ErrorClass::Conflict => code::CONFLICT,
            ErrorClass::Bug => code::INTERNAL,
        };
        Self::of(code, &error)
    }
}

impl From<serde_json::Error> for Fault {
    fn from(error: serde_json::Error) -> Self {
        Self::of(code::INTERNAL, &error)
    }
}
