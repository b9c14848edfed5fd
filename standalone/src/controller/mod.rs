//! The VM controller: VirtualMachines to VirtualMachineInstances, by the API's pure decisions.
//!
//! Invariants: each decision is taken from what is stored now, and each step is safe to do twice; what a VMI was
//! made from is written down before the VMI is; leases go only after the object that holds them is gone.

mod leases;
mod queue;
mod revision;
mod vm;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio::time::sleep_until;

use crate::host::{Host, chain, stopped};
use crate::store::{Key, Kind};
use queue::Queue;

/// How often everything is looked at although nothing changed.
const RESYNC: Duration = Duration::from_secs(60);

/// Keeps VMs as they shall be until `stop` says true.
pub async fn control(host: Arc<Host>, mut stop: watch::Receiver<bool>) {
    let mut changes = host.store.subscribe();
    let mut queue = Queue::default();
    let all = |queue: &mut Queue| {
        let now = Instant::now();
        host.store.keys(Kind::VirtualMachine).into_iter().for_each(|key| queue.at(key, now));
    };
    all(&mut queue);
    leases::release_unowned(&host).await;
    let mut resync = tokio::time::interval(RESYNC);
    loop {
        while let Some(key) = queue.due(Instant::now()) {
            // Files are written: block_in_place lets the other tasks of this thread go on elsewhere.
            match tokio::task::block_in_place(|| vm::reconcile(&host, &key)) {
                Ok(Some(again)) => queue.at(key, again),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(vm = %key, error = chain(&error), "failed to reconcile");
                    queue.at(key, Instant::now() + Duration::from_secs(1));
                }
            }
        }
        let next = queue.next().unwrap_or_else(|| Instant::now() + RESYNC);
        tokio::select! {
            () = stopped(&mut stop) => return,
            () = sleep_until(next.into()) => {}
            _ = resync.tick() => {
                all(&mut queue);
                leases::release_unowned(&host).await;
                host.events.sweep();
                tokio::task::block_in_place(|| images(&host));
            }
            change = changes.recv() => match change {
                Ok(key) => heard(&host, &mut queue, &key).await,
                Err(RecvError::Lagged(_)) => all(&mut queue),
                Err(RecvError::Closed) => return,
            }
        }
    }
}

async fn heard(host: &Host, queue: &mut Queue, key: &Key) {
    if !matches!(key.kind, Kind::VirtualMachine | Kind::VirtualMachineInstance) {
        return;
    }
    queue.at(key.with_kind(Kind::VirtualMachine), Instant::now());
    if host.store.get(key).is_none() {
        leases::release_unowned(host).await;
        revision::forget_unowned(host);
        host.world.send_modify(|count| *count += 1);
    }
}

/// Removes the images that neither a manifest names nor a sandbox uses.
fn images(host: &Host) {
    let (references, digests) = vm::images_in_use(host);
    if let Err(error) = host.images.retain(&references, &digests) {
        tracing::warn!("{}", chain(&error));
    }
}
