//! Writing the status of a claim's leases: where they are in use, and that they are given up.
//!
//! Each write is a compare-and-swap; who loses reads again and tries a few times more.

use holdfast_api::lease::{Claim, LeaseStatus};

use super::quarantine::{quarantined, status_mut};
use super::{Lease, LeaseError, LeaseKind, LeaseStore};

/// How often a status that somebody else writes at the same time is read again.
const ATTEMPTS: usize = 5;

/// Puts every lease that `claim` holds on `segment` into quarantine; [`super::sweep`] deletes them after it.
///
/// # Errors
/// [`LeaseError`] of the first one that cannot be written; the others have been tried.
pub async fn release(store: &dyn LeaseStore, segment: &str, claim: &Claim) -> Result<(), LeaseError> {
    let mut result = Ok(());
    for kind in [LeaseKind::Ip, LeaseKind::Mac] {
        for lease in store.held(kind, segment, claim).await? {
            result = result.and(write_status(store, lease, quarantined).await.map(|_| ()));
        }
    }
    result
}

/// Where a lease is in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Node.
    pub node: String,
    /// Pod.
    pub pod: String,
    /// CNI's container id.
    pub container_id: String,
}

/// Notes on the leases of `claim` on `segment` where they are in use.
///
/// # Errors
/// [`LeaseError`].
pub async fn bind(store: &dyn LeaseStore, segment: &str, claim: &Claim, place: &Place) -> Result<(), LeaseError> {
    set_place(store, segment, claim, |status| {
        status.node = Some(place.node.clone());
        status.pod = Some(place.pod.clone());
        status.container_id = Some(place.container_id.clone());
    })
    .await
}

/// Notes that the leases of `claim` on `segment` are not in use in that container any more.
///
/// # Errors
/// [`LeaseError`].
pub async fn unbind(
    store: &dyn LeaseStore,
    segment: &str,
    claim: &Claim,
    container_id: &str,
) -> Result<(), LeaseError> {
    set_place(store, segment, claim, |status| {
        if status.container_id.as_deref() == Some(container_id) {
            (status.node, status.pod, status.container_id) = (None, None, None);
        }
    })
    .await
}

async fn set_place(
    store: &dyn LeaseStore,
    segment: &str,
    claim: &Claim,
    set: impl Fn(&mut LeaseStatus),
) -> Result<(), LeaseError> {
    let changed = |mut lease: Lease| {
        let before = lease.status().cloned();
        set(status_mut(&mut lease));
        (lease.status() != before.as_ref().or(Some(&LeaseStatus::default()))).then_some(lease)
    };
    for kind in [LeaseKind::Ip, LeaseKind::Mac] {
        for lease in store.held(kind, segment, claim).await? {
            write_status(store, lease, changed).await?;
        }
    }
    Ok(())
}

/// Writes what `change` makes of the lease's status, unless it makes nothing.
pub(super) async fn write_status(
    store: &dyn LeaseStore,
    mut lease: Lease,
    change: impl Fn(Lease) -> Option<Lease>,
) -> Result<Lease, LeaseError> {
    for attempt in 1.. {
        let Some(wanted) = change(lease.clone()) else { return Ok(lease) };
        match store.update_status(wanted).await {
            Err(LeaseError::Changed { kind, name }) if attempt < ATTEMPTS => match store.get(kind, &name).await? {
                Some(present) if present.uid() == lease.uid() => lease = present,
                _ => return Err(LeaseError::Changed { kind, name }),
            },
            result => return result,
        }
    }
    Ok(lease)
}
