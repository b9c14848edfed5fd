//! Quarantine: a released address stays locked for a while, so that nobody speaks to its old holder by a stale
//! neighbour entry or a connection that is still open.
//!
//! It is the condition [`QUARANTINED`] on the lease, and its transition time is when it began.

use std::time::Duration;

use holdfast_api::lease::LeaseStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use super::{Lease, LeaseError, LeaseKind, LeaseStore};

/// Type of the condition.
pub const QUARANTINED: &str = "Quarantined";

fn condition(lease: &Lease) -> Option<&Condition> {
    lease.status()?.conditions.iter().find(|condition| condition.type_ == QUARANTINED && condition.status == "True")
}

/// Whether the holder has given the lease up.
pub fn is_quarantined(lease: &Lease) -> bool {
    condition(lease).is_some()
}

/// When the holder gave the lease up, where it has.
pub(super) fn released_at(lease: &Lease) -> Option<Timestamp> {
    condition(lease).map(|condition| condition.last_transition_time.0)
}

/// The lease, given up now; none where it has been already.
pub(super) fn quarantined(mut lease: Lease) -> Option<Lease> {
    if is_quarantined(&lease) {
        return None;
    }
    let status = status_mut(&mut lease);
    (status.node, status.pod, status.container_id, status.target) = (None, None, None, None);
    status.conditions.retain(|condition| condition.type_ != QUARANTINED);
    status.conditions.push(Condition {
        type_: QUARANTINED.to_owned(),
        status: "True".to_owned(),
        reason: "Released".to_owned(),
        message: "the claim is gone; the address is locked for a while before somebody else may have it".to_owned(),
        last_transition_time: Time(Timestamp::now()),
        observed_generation: None,
    });
    Some(lease)
}

/// The lease, taken back by its own claim; none where it was not given up.
pub(super) fn restored(mut lease: Lease) -> Option<Lease> {
    if !is_quarantined(&lease) {
        return None;
    }
    status_mut(&mut lease).conditions.retain(|condition| condition.type_ != QUARANTINED);
    Some(lease)
}

/// The status of a lease, an empty one where it has none yet.
pub(super) fn status_mut(lease: &mut Lease) -> &mut LeaseStatus {
    match lease {
        Lease::Ip(lease) => lease.status.get_or_insert_default(),
        Lease::Mac(lease) => lease.status.get_or_insert_default(),
    }
}

/// Deletes the leases whose quarantine is over and returns how many there were.
///
/// # Errors
/// [`LeaseError::Store`]. A lease that its claim took back in between stays and is no error.
pub async fn sweep(store: &dyn LeaseStore, quarantine: Duration) -> Result<usize, LeaseError> {
    let mut deleted = 0;
    for kind in [LeaseKind::Ip, LeaseKind::Mac] {
        for lease in store.list(kind).await? {
            let over = condition(&lease).is_some_and(|condition| {
                let age = Timestamp::now().duration_since(condition.last_transition_time.0);
                Duration::try_from(age).is_ok_and(|age| age >= quarantine)
            });
            if over {
                match store.delete(lease).await {
                    Ok(()) => deleted += 1,
                    Err(LeaseError::Changed { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }
    Ok(deleted)
}
