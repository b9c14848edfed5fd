//! Comparing everything with the kernel: at the start and every few seconds; sooner where something is not as it shall
//! be. In between, the attachments alone, whenever something changes.
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

use super::{Entry, Outcome, Registry};
use crate::context::Context;
use crate::netns::NetnsId;
use crate::repairs::Repair;
use holdfast_ipam::leases::{self, LeaseKind, NODE_LABEL};

/// Until the next round where something is not as it shall be; twice as long with each, up to the usual time.
const SOON: Duration = Duration::from_millis(200);
/// From a change to the comparison that it leads to: changes come in groups.
const GATHER: Duration = Duration::from_millis(20);
/// How many times as long as a comparison took nothing is compared after it, so that others' changes, however many, cost
/// a tenth of a CPU at most.
const REST: u32 = 10;
/// The shortest and the longest such rest.
const RESTS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(500));

/// Runs rounds until `stop`, the first one at once.
pub(crate) async fn resync_forever(context: Context, registry: Registry, stop: CancellationToken) {
    let mut soon = SOON;
    let mut changes = context.wiring.changes();
    loop {
        // The round sees what changed before it.
        changes.forget();
        registry.take_notes(&context.options.run).await;
        drop_dead(&registry).await;
        drop_strays(&context, &registry).await;
        let converged = repair(&context, &registry).await;
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
            () = heal(&context, &registry, &mut changes, Instant::now() + pause, soon) => {}
        }
    }
}

/// Compares all attachments when something changes, until the next round: at `end`, or `soon` after a comparison whose
/// findings could not be mended.
async fn heal(context: &Context, registry: &Registry, changes: &mut Changes, mut end: Instant, soon: Duration) {
    let mut ours = places(context, registry).await;
    while let Ok(place) = timeout_at(end, changes.next()).await {
        if matches!(place, Place::Namespace(_)) && !ours.contains(&place) {
            continue;
        }
        sleep(GATHER).await;
        changes.forget();
        let begin = Instant::now();
        if !repair(context, registry).await {
            end = end.min(Instant::now() + soon);
        }
        drop_stray_flows(context).await;
        // Whatever came or went is told of in the host's namespace, too.
        ours = places(context, registry).await;
        sleep_until(Instant::now() + (begin.elapsed() * REST).clamp(RESTS.0, RESTS.1)).await;
    }
}

/// Where the pods' ends of the attachments are.
async fn places(context: &Context, registry: &Registry) -> BTreeSet<Place> {
    let namespaces = registry.entries().into_iter().map(|entry| entry.record.attachment.netns).collect();
    match context.wiring.places_of(namespaces).await {
        Ok(places) => places.into_iter().collect(),
        Err(error) => {
            tracing::warn!(error = crate::chain(&error), "changes in pods are found at the next round only");
            BTreeSet::new()
        }
    }
}

/// Drops the attachments whose namespace is gone, or is another one by now: for runtimes that never say DEL.
pub(crate) async fn drop_dead(registry: &Registry) {
    for Entry { record, .. } in registry.entries() {
        let path = record.attachment.netns.clone();
        let present = tokio::task::spawn_blocking(move || NetnsId::of(&path)).await;
        let dead = match present {
            Ok(Ok(present)) => present != record.netns,
            Ok(Err(error)) => error.is_gone(),
            Err(_) => false,
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

/// Compares all attachments in one look, and mends them one by one where that finds something. Whether all are as they
/// shall be in the end.
async fn repair(context: &Context, registry: &Registry) -> bool {
    // Those that are being worked on are looked at when that has ended: it changes something, or there is nothing to see.
    let entries = registry.entries_at_rest();
    let merged =
        entries.iter().try_fold(DesiredState::default(), |all, entry| all.merge(context.desired(&entry.record)));
    let converged = match &merged {
        Ok(all) => context.wiring.plan(all).await.is_ok_and(|plan| plan.is_empty()),
        Err(_) => false,
    };
    if converged {
        for entry in &entries {
            registry.set_outcome(&entry.record.key, Outcome::Converged);
        }
        context.metrics.drifted.set(0);
        return true;
    }
    let mut drifted = 0;
    for entry in entries {
        drifted += i64::from(!repair_one(context, registry, &entry).await);
    }
    context.metrics.drifted.set(drifted);
    drifted == 0
}

/// Whether the attachment is as it shall be in the end.
async fn repair_one(context: &Context, registry: &Registry, entry: &Entry) -> bool {
    let record = &entry.record;
    let Ok(_hold) = registry.hold(&record.key, &record.attachment.id).await else { return true };
    if registry.get(&record.key).is_none_or(|now| now.record != *record) {
        return true;
    }
    match context.wiring.reconcile(&context.desired(record)).await {
        Ok(report) => {
            let ops = Context::ops(&report);
            let outcome = if ops.is_empty() { Outcome::Converged } else { Outcome::Repaired(ops) };
            if let Outcome::Repaired(ops) = &outcome {
                context.metrics.repairs.inc();
                let what = ops.join("; ");
                tracing::warn!(attachment = %record.key, ops = what, "an attachment had drifted");
                let (container_id, pod_uid) = (record.key.container_id.clone(), record.pod_uid.clone());
                context.repairs.tell(Repair { container_id, pod_uid, what });
            }
            registry.set_outcome(&record.key, outcome);
            true
        }
        Err(error) => {
            let error = crate::chain(&error);
            let outcome = Outcome::Failed(error.clone());
            if entry.last != outcome {
                tracing::warn!(attachment = %record.key, error, "an attachment is not as it shall be");
            }
            registry.set_outcome(&record.key, outcome);
            false
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
