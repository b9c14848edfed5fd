//! Why a claim does not get its addresses: the sentence for people, the word for conditions, and what to do about it.

use std::fmt;
use std::net::IpAddr;

use holdfast_agent_api::launcher::FailureClass;
use holdfast_api::lease::{Claim, LeaseNameError};
use ipnetwork::IpNetwork;
use k8s_openapi::jiff::Timestamp;

use super::LeaseError;

/// Who holds an address, for people: `VirtualMachine default/web, network lan`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder(pub Claim);

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Claim { kind, namespace, name, network, .. } = &self.0;
        write!(f, "{kind} `{namespace}/{name}`, network `{network}`")
    }
}

/// Why a claim did not get its addresses.
#[derive(Debug, thiserror::Error)]
pub enum AllocateError {
    /// An address that was asked for is somebody else's.
    #[error("address {address} on segment `{segment}` is held by {holder}{}", quarantine(.released))]
    Taken {
        /// The address.
        address: String,
        /// Its segment.
        segment: String,
        /// Who has it.
        holder: Box<Holder>,
        /// When the holder gave it up, where its quarantine still runs.
        released: Option<Timestamp>,
    },
    /// An address that was asked for is not of the network.
    #[error("address {address} is in none of the subnets of network `{network}` ({})", list(.subnets))]
    Outside {
        /// The address.
        address: IpAddr,
        /// The network.
        network: String,
        /// What it has.
        subnets: Vec<IpNetwork>,
    },
    /// An address that was asked for is never given out.
    #[error(
        "address {address} of subnet {subnet} is never given out: it is excluded, a gateway or name server, or the subnet's own"
    )]
    Reserved {
        /// The address.
        address: IpAddr,
        /// Its subnet.
        subnet: IpNetwork,
    },
    /// An address that was asked for is never given out, as another network of the segment says.
    #[error(
        "address {address} on segment `{segment}` is kept back by UnderlayNetwork `{keeper}`, which shares the segment: it is excluded there, a gateway or name server, or a subnet's own"
    )]
    KeptBack {
        /// The address.
        address: IpAddr,
        /// Its segment.
        segment: String,
        /// The UnderlayNetwork that keeps it.
        keeper: String,
    },
    /// The network goes.
    #[error("UnderlayNetwork `{network}` is being deleted: only those who hold addresses there already keep them")]
    Deleting {
        /// The UnderlayNetwork.
        network: String,
    },
    /// No address is left.
    #[error("network `{network}` has no free address left ({}){}", list(.subnets), told(.keepers))]
    Exhausted {
        /// The network.
        network: String,
        /// Where we looked.
        subnets: Vec<IpNetwork>,
        /// The UnderlayNetworks of the segment that keep some of them back.
        keepers: Vec<String>,
    },
    /// No lease can have this name.
    #[error(transparent)]
    Name(#[from] LeaseNameError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] LeaseError),
}

impl AllocateError {
    /// What to do about it.
    pub const fn class(&self) -> FailureClass {
        match self {
            // One that is being deleted may be made again.
            Self::Taken { released: Some(_), .. } | Self::Exhausted { .. } | Self::Deleting { .. } | Self::Store(_) => {
                FailureClass::Retry
            }
            Self::Taken { .. } => FailureClass::Conflict,
            Self::Outside { .. } | Self::Reserved { .. } | Self::KeptBack { .. } | Self::Name(_) => {
                FailureClass::Invalid
            }
        }
    }

    /// CamelCase word for a condition and an event.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Taken { .. } => "AddressConflict",
            Self::Outside { .. } | Self::Reserved { .. } | Self::KeptBack { .. } | Self::Name(_) => "AddressInvalid",
            Self::Deleting { .. } => "FailedAttachNetwork",
            Self::Exhausted { .. } => "AddressesExhausted",
            Self::Store(_) => "LeaseStoreFailed",
        }
    }
}

fn quarantine(released: &Option<Timestamp>) -> String {
    released.map(|time| format!(" (released at {time:.0}, and in quarantine for a minute)")).unwrap_or_default()
}

fn told(names: &[String]) -> String {
    match names {
        [] => String::new(),
        names => {
            format!("; what UnderlayNetwork `{}` keeps back on the same segment is not given out", names.join("`, `"))
        }
    }
}

fn list(subnets: &[IpNetwork]) -> String {
    subnets.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
