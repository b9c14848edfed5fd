//! Comparing everything with the kernel: at the start and every few seconds; sooner where something is not as it shall
//! be. In between, whenever something changes, the attachments that it may concern.
//!
//! In this order: notes of DELs, attachments whose namespace is gone, devices of ours that nobody owns, drift
//! of the rest, flows of ours without a port, leases of pods that are gone, leases that do not say where they are in use,
//! quarantine. Each round is complete in itself; what fails in one is tried again in the next.

use std::collections::BTreeSet;
use std::time::Duration;

use holdfast_net::desired::DesiredState;
use holdfast_net::kernel::{Changes, Place};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::scope::Scope;
use super::{Entry, Outcome, Registry};
use crate::context::Context;
use crate::metrics::RepairLabels;
use crate::repairs::Repair;
use holdfast_ipam::leases::{self, LeaseKind, NODE_LABEL};

/// Until the next round where something is not as it shall be; twice as long with each, up to the usual time.
const SOON: Duration = Duration::from_millis(200);
/// From a change to the comparison that it leads to: changes come in groups.
const GATHER: Duration = Duration::from_millis(20);
/// How many times as long as a comparison and its repairs took nothing is compared after them, so that others' changes,
/// however many, cost a sixth of a CPU at most.
const REST: u32 = 5;
/// The shortest and the longest such rest.
const RESTS: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// Runs rounds until `stop`, the first one at once.
pub(crate) async fn resync_forever(context: Context, registry: Registry, stop: CancellationToken) {
    let mut soon = SOON;
    let (mut changes, mut scope) = (context.wiring.changes(), Scope::default());
    loop {
        // The round sees what changed before it.
        changes.forget();
        registry.take_notes(&context.options.run).await;
        drop_dead(&context, &registry).await;
        drop_strays(&context, &registry).await;
        // Those that are being worked on are looked at when that has ended: it changes something, or there is nothing to see.
        let converged = repair(&context, &registry, registry.entries_at_rest()).await.all_mended;
        drop_stray_flows(&context).await;
        release_orphans(&context, &registry).await;
        note_places(&context, &registry).await;
        if let Err(error) = leases::sweep(&*context.leases, context.options.quarantine).await {
            tracing::warn!(error = crate::chain(&error), "failed to end quarantines");
        }
        let pause = context.options.resync.min(if converged { Duration::MAX } else { soon });
        soon = if converged { SOON } else { soon.saturating_mul(2) };
        tokio::select! {
            () = stop.cancelled() => return,
            () = heal(&context, &registry, (&mut changes, &mut scope), Instant::now() + pause, soon) => {}
        }
    }
}

/// Compares the attachments that a change may concern when something changes, until the next round: at `end`, or `soon`
/// after a comparison whose findings could not be mended.
async fn heal(
    context: &Context,
    registry: &Registry,
    (changes, scope): (&mut Changes, &mut Scope),
    mut end: Instant,
    soon: Duration,
) {
    while let Ok(place) = timeout_at(end, changes.next()).await {
        let mut places = BTreeSet::from([place]);
        if scope.concerned(&context.wiring, registry, &places).await.is_empty() {
            continue;
        }
        sleep(GATHER).await;
        places.extend(changes.pending());
        let begin = Instant::now();
        let entries = scope.concerned(&context.wiring, registry, &places).await;
        let found = repair(context, registry, entries).await;
        if !found.all_mended {
            end = end.min(Instant::now() + soon);
        }
        // Flows of no port are told of as the switch's; those of a port that is gone, by that.
        if found.drifted > 0 || places.iter().any(|place| matches!(place, Place::Switch | Place::Anywhere)) {
            drop_stray_flows(context).await;
        }
        sleep_until(Instant::now() + (begin.elapsed() * REST).clamp(RESTS.0, RESTS.1)).await;
    }
}

/// Drops the attachments whose namespace is gone, or is another one by now: for runtimes that never say DEL.
pub(crate) async fn drop_dead(context: &Context, registry: &Registry) {
    for Entry { record, .. } in registry.entries() {
        let dead = match context.visitor.identify(&record.attachment.netns).await {
            Ok(present) => present != record.netns,
            Err(error) => error.is_gone(),
        };
        if !dead {
            continue;
        }
        tracing::info!(attachment = %record.key, "its network namespace is gone: removing the attachment");
        let Ok(hold) = registry.hold(&record.key, &record.attachment.id).await else { continue };
        // A DEL and a new ADD may have come in between.
        if registry.get(&record.key).is_some_and(|entry| entry.record == record)
            && let Err(error) = registry.drop_key(&hold, &record.key, record.attachment.id)
        {
            tracing::warn!(error = crate::chain(&error), "an attachment without a namespace stays");
        }
    }
}

async fn drop_strays(context: &Context, registry: &Registry) {
    match context.wiring.owned().await {
        Ok(owned) => {
            let strays = registry.drop_strays(owned);
            if strays > 0 {
                tracing::info!(strays, "removing devices of ours that no attachment owns");
            }
        }
        Err(error) => tracing::warn!(error = crate::chain(&error), "failed to look for devices that nobody owns"),
    }
}

async fn drop_stray_flows(context: &Context) {
    match context.wiring.drop_stray_flows().await {
        Ok(0) => {}
        Ok(ports) => tracing::info!(ports, "removed flows of ours of ports that somebody else took away"),
        Err(error) => tracing::debug!(error = crate::chain(&error), "failed to look for flows of ours without a port"),
    }
}

/// What a comparison came to.
struct Found {
    /// How many were not as they shall be, or could not be compared.
    drifted: usize,
    /// Whether all are in the end.
    all_mended: bool,
}

/// Compares these attachments in one look, and mends them one by one where that finds something.
async fn repair(context: &Context, registry: &Registry, entries: Vec<Entry>) -> Found {
    let (mut drifted, mut all_mended) = (0, true);
    if !entries.is_empty() && !is_converged(context, &entries).await {
        for entry in &entries {
            drifted += usize::from(!repair_one(context, registry, entry).await.unwrap_or_else(|| {
                all_mended = false;
                false
            }));
        }
    } else {
        for entry in &entries {
            registry.set_outcome(&entry.record.key, Outcome::Converged);
        }
    }
    context.metrics.drifted.set(i64::try_from(registry.failed()).unwrap_or(i64::MAX));
    Found { drifted, all_mended }
}

async fn is_converged(context: &Context, entries: &[Entry]) -> bool {
    let mut desired = entries.iter().map(|entry| context.desired(&entry.record));
    match desired.try_fold(DesiredState::default(), DesiredState::merge) {
        Ok(all) => context.wiring.plan(&all).await.is_ok_and(|plan| plan.is_empty()),
        Err(_) => false,
    }
}

/// Whether the attachment was as it shall be; none where it is not in the end.
async fn repair_one(context: &Context, registry: &Registry, entry: &Entry) -> Option<bool> {
    let record = &entry.record;
    let Ok(_hold) = registry.hold(&record.key, &record.attachment.id).await else { return Some(true) };
    if registry.get(&record.key).is_none_or(|now| now.record != *record) {
        return Some(true);
    }
    match context.wiring.reconcile(&context.desired(record)).await {
        Ok(report) => {
            let ops = Context::ops(&report);
            let outcome = if ops.is_empty() { Outcome::Converged } else { Outcome::Repaired(ops) };
            if let Outcome::Repaired(ops) = &outcome {
                // What is wrong further on follows from what is wrong before it.
                let what = report.done.first().map_or("", |(op, _)| op.subject());
                context.metrics.repairs.get_or_create(&RepairLabels { what }).inc();
                let what = ops.join("; ");
                tracing::warn!(attachment = %record.key, ops = what, "an attachment had drifted");
                let (container_id, pod_uid) = (record.key.container_id.clone(), record.pod_uid.clone());
                context.repairs.tell(Repair { container_id, pod_uid, what });
            }
            let was_converged = outcome == Outcome::Converged;
            registry.set_outcome(&record.key, outcome);
            Some(was_converged)
        }
        Err(error) => {
            let error = crate::chain(&error);
            let outcome = Outcome::Failed(error.clone());
            if entry.last != outcome {
                tracing::warn!(attachment = %record.key, error, "an attachment is not as it shall be");
            }
            registry.set_outcome(&record.key, outcome);
            None
        }
    }
}

/// Notes where leases are in use, for the attachments whose leases may not say so yet.
async fn note_places(context: &Context, registry: &Registry) {
    for entry in registry.entries().into_iter().filter(|entry| !entry.bound) {
        crate::cni::note_place(context, registry, &entry.record.key).await;
    }
}

/// Gives back the leases of plain pods of this node that no attachment uses: what a crash left between the
/// lease and the record.
async fn release_orphans(context: &Context, registry: &Registry) {
    let mut claims = BTreeSet::new();
    for kind in [LeaseKind::Ip, LeaseKind::Mac] {
        let Ok(leases) = context.leases.list(kind).await else { return };
        let here = |lease: &&leases::Lease| {
            let labels = lease.metadata().labels.as_ref();
            labels.and_then(|labels| labels.get(NODE_LABEL)) == Some(&context.options.node)
                && !leases::is_quarantined(lease)
                && registry.user_of(lease.claim()).is_none()
        };
        for lease in leases.iter().filter(here) {
            if claims.insert((lease.segment().to_owned(), lease.claim().id())) {
                let Ok(_hold) = registry.hold_claim(lease.claim()).await else { continue };
                if registry.user_of(lease.claim()).is_none()
                    && let Err(error) = leases::release(&*context.leases, lease.segment(), lease.claim()).await
                {
                    tracing::warn!(error = crate::chain(&error), "a lease that nobody uses stays");
                }
            }
        }
    }
}
