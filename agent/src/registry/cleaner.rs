//! Removal behind DEL: one task that takes whatever has gathered and removes it in one go.
//!
//! Deleting a veth costs the kernel a grace period, a hundred of them in one group no more than three: so DEL
//! answers at once, and while one group is being removed the next one gathers.

use std::path::PathBuf;
use std::time::Duration;

use holdfast_api::lease::Claim;
use holdfast_net::model::AttachmentId;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Busy, Registry};
use crate::context::Context;
use holdfast_ipam::leases;

/// Most attachments that one group removes.
const GROUP: usize = 256;
/// Pause after a failure, doubled up to [`LONGEST_PAUSE`].
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Something to remove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// Whose devices.
    pub id: AttachmentId,
    /// The pod's namespace, where a device is in it that no host end takes with it. A crash before it is removed leaves
    /// that one to the end of the namespace.
    pub inside: Option<PathBuf>,
    /// What becomes of its leases after that.
    pub lease: Option<Lease>,
}

/// Leases that an attachment has used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// On this segment.
    pub segment: String,
    /// Of this claim.
    pub claim: Claim,
    /// Whether they end now; else they are only not in use here any more.
    pub release: bool,
}

/// Removes what arrives until `stop`; what is left then is the next start's, which finds it without a record.
///
/// What fails does not hold up what comes after it: it is set aside and tried again later.
pub(crate) async fn clean(
    context: Context,
    registry: Registry,
    mut removals: mpsc::UnboundedReceiver<Removal>,
    stop: CancellationToken,
) {
    let mut failed: Vec<Removal> = Vec::new();
    let mut pause = PAUSE;
    loop {
        let mut group = Vec::new();
        tokio::select! {
            () = stop.cancelled() => return,
            arrived = removals.recv_many(&mut group, GROUP) => if arrived == 0 { return },
            () = tokio::time::sleep(pause), if !failed.is_empty() => group.append(&mut failed),
        }
        let before = group.len();
        failed.extend(remove(&context, &registry, group).await);
        pause = if failed.len() < before { PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
    }
}

/// Removes a group and returns those of it that are not done.
async fn remove(context: &Context, registry: &Registry, group: Vec<Removal>) -> Vec<Removal> {
    let ids: Vec<AttachmentId> = group.iter().map(|removal| removal.id.clone()).collect();
    let all = context.wiring.remove(&ids).await;
    let mut failed = Vec::new();
    for removal in group {
        // Of a group that failed, each one alone: most of it is gone.
        let devices = match &all {
            Ok(_) => Ok(()),
            Err(_) => context.wiring.remove(std::slice::from_ref(&removal.id)).await.map(|_| ()),
        };
        let devices = match (&removal.inside, devices) {
            (Some(netns), Ok(())) => context.wiring.remove_inside(netns, &removal.id).await.map(|_| ()),
            (_, devices) => devices,
        };
        let done = match devices {
            Err(error) => Err(crate::chain(&error)),
            Ok(()) => {
                registry.removed(&removal.id);
                settle(context, registry, &removal).await.map_err(|error| crate::chain(&error))
            }
        };
        if let Err(error) = done {
            context.metrics.removal_failures.inc();
            tracing::warn!(attachment = %removal.id, error, "failed to remove an attachment; trying again");
            failed.push(removal);
        }
    }
    failed
}

/// Gives back the leases of an attachment whose devices are gone.
async fn settle(context: &Context, registry: &Registry, removal: &Removal) -> Result<(), SettleError> {
    let Some(Lease { segment, claim, release }) = &removal.lease else { return Ok(()) };
    let _hold = registry.hold_claim(claim).await?;
    if *release {
        // The same pod may have come back in a new sandbox meanwhile.
        if registry.user_of(claim).is_none() {
            leases::release(&*context.leases, segment, claim).await?;
        }
    } else {
        leases::unbind(&*context.leases, segment, claim, &removal.id.container_id).await?;
    }
    Ok(())
}

#[derive(Debug, thiserror::Error)]
enum SettleError {
    #[error(transparent)]
    Busy(#[from] Busy),
    #[error(transparent)]
    Lease(#[from] leases::LeaseError),
}
