//! Leases: who holds which address on which segment.
//!
//! Invariants: creating a lease is the lock, whoever creates it has the address; a lease's spec never changes;
//! a status is written by compare-and-swap on `metadata.resourceVersion`; a lease is deleted only under its
//! UID, after its quarantine, or for who is made again under its holder's name; nobody is told of an address before its
//! lease outlives a power cut. The store decides nothing: [`allocate()`] does.

mod allocate;
mod file;
mod quarantine;
mod refusal;
mod status;
mod table;
mod usage;

use std::fmt;

use futures::future::BoxFuture;
use holdfast_api::lease::{Claim, IPLease, LeaseStatus, MACLease};

pub use allocate::{Allocation, Request, allocate, reserve};
pub use file::{FileStore, OpenError};
pub use quarantine::{QUARANTINED, is_quarantined, sweep};
pub use refusal::{AllocateError, Holder};
pub use status::{Place, bind, release, unbind};
pub use usage::usage;

/// Label of a lease that lives and ends with a pod on this node; those of VMs have none.
pub const NODE_LABEL: &str = "holdfast.io/node";

/// The kinds of lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LeaseKind {
    /// IPLease.
    Ip,
    /// MACLease.
    Mac,
}

impl LeaseKind {
    /// The plural, as in URLs and folders.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Ip => "ipleases",
            Self::Mac => "macleases",
        }
    }
}

impl fmt::Display for LeaseKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ip => "IPLease",
            Self::Mac => "MACLease",
        })
    }
}

/// A lease of either kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Lease {
    /// Of an IP address.
    Ip(IPLease),
    /// Of an Ethernet address.
    Mac(MACLease),
}

impl Lease {
    /// Its kind.
    pub const fn kind(&self) -> LeaseKind {
        match self {
            Self::Ip(_) => LeaseKind::Ip,
            Self::Mac(_) => LeaseKind::Mac,
        }
    }

    /// Its metadata.
    pub const fn metadata(&self) -> &kube::core::ObjectMeta {
        match self {
            Self::Ip(lease) => &lease.metadata,
            Self::Mac(lease) => &lease.metadata,
        }
    }

    /// `metadata.name`: `<segment>.<hex>`.
    pub fn name(&self) -> &str {
        self.metadata().name.as_deref().unwrap_or_default()
    }

    /// `metadata.uid`.
    pub fn uid(&self) -> &str {
        self.metadata().uid.as_deref().unwrap_or_default()
    }

    /// Who holds it.
    pub const fn claim(&self) -> &Claim {
        match self {
            Self::Ip(lease) => &lease.spec.claim,
            Self::Mac(lease) => &lease.spec.claim,
        }
    }

    /// The segment that the address is on.
    pub fn segment(&self) -> &str {
        match self {
            Self::Ip(lease) => &lease.spec.segment,
            Self::Mac(lease) => &lease.spec.segment,
        }
    }

    /// The address as text.
    pub fn address(&self) -> String {
        match self {
            Self::Ip(lease) => lease.spec.address.to_string(),
            Self::Mac(lease) => lease.spec.address.clone(),
        }
    }

    /// Where it is in use.
    pub const fn status(&self) -> Option<&LeaseStatus> {
        match self {
            Self::Ip(lease) => lease.status.as_ref(),
            Self::Mac(lease) => lease.status.as_ref(),
        }
    }
}

/// Where leases are kept. Objects are whole Kubernetes objects: the store gives them `uid`,
/// `resourceVersion` and `creationTimestamp`.
pub trait LeaseStore: Send + Sync + 'static {
    /// Creates `lease` under its name and returns it as stored. This is the lock. A power cut may undo it until
    /// [`LeaseStore::keep`] has returned; the end of a process does not.
    ///
    /// # Errors
    /// [`LeaseError::Exists`] with the lease that has the name; [`LeaseError::Store`].
    fn create(&self, lease: Lease) -> BoxFuture<'_, Result<Lease, LeaseError>>;

    /// Returns when these leases outlive a power cut. Of a store that keeps what it creates at once, now.
    ///
    /// # Errors
    /// [`LeaseError::Store`].
    fn keep(&self, _leases: Vec<Lease>) -> BoxFuture<'_, Result<(), LeaseError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// The lease of that name.
    ///
    /// # Errors
    /// [`LeaseError::Store`].
    fn get<'a>(&'a self, kind: LeaseKind, name: &'a str) -> BoxFuture<'a, Result<Option<Lease>, LeaseError>>;

    /// All leases of a kind, by name.
    ///
    /// # Errors
    /// [`LeaseError::Store`].
    fn list(&self, kind: LeaseKind) -> BoxFuture<'_, Result<Vec<Lease>, LeaseError>>;

    /// The leases of a kind that `claim` holds on a segment, those in quarantine included.
    ///
    /// # Errors
    /// [`LeaseError::Store`].
    fn held<'a>(
        &'a self,
        kind: LeaseKind,
        segment: &'a str,
        claim: &'a Claim,
    ) -> BoxFuture<'a, Result<Vec<Lease>, LeaseError>>;

    /// Writes the status of `lease` if nobody has written it since it was read, and returns it as stored.
    ///
    /// # Errors
    /// [`LeaseError::Changed`] where its `resourceVersion` is not the present one, or it is gone;
    /// [`LeaseError::Store`].
    fn update_status(&self, lease: Lease) -> BoxFuture<'_, Result<Lease, LeaseError>>;

    /// Deletes exactly this lease: its name, UID and `resourceVersion`. One that is gone is a success.
    ///
    /// # Errors
    /// [`LeaseError::Changed`] where another one has its name now; [`LeaseError::Store`].
    fn delete(&self, lease: Lease) -> BoxFuture<'_, Result<(), LeaseError>>;
}

/// Why a store did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The name is taken.
    #[error("{} `{}` exists", .0.kind(), .0.name())]
    Exists(Box<Lease>),
    /// Somebody else wrote the lease in between.
    #[error("{kind} `{name}` was changed in between")]
    Changed {
        /// Its kind.
        kind: LeaseKind,
        /// Its name.
        name: String,
    },
    /// The store failed.
    #[error("failed to {verb} {kind} `{name}`")]
    Store {
        /// What was tried.
        verb: &'static str,
        /// Of which kind.
        kind: LeaseKind,
        /// Which one.
        name: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
