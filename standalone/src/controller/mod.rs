//! The VM controller: VirtualMachines to VirtualMachineInstances, by the API's pure decisions.
//!
//! Invariants: each decision is taken from what is stored now, and each step is safe to do twice; what a VMI was
//! made from is written down before the VMI is; leases go only after the object that holds them is gone.

mod leases;
mod queue;
mod revision;
mod vm;

use std::collections::BTreeMap;
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
    let mut sweep = after_quarantine(&host).await;
    let mut resync = tokio::time::interval(RESYNC);
    let mut specs = Specs::new();
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
            () = sleep_until(sweep.unwrap_or(next).into()), if sweep.is_some() => {
                sweep = None;
                leases::sweep_quarantine(&host).await;
            }
            _ = resync.tick() => {
                all(&mut queue);
                sweep = after_quarantine(&host).await.or(sweep);
                host.events.sweep();
                tokio::task::block_in_place(|| images(&host));
            }
            change = changes.recv() => match change {
                Ok(key) => sweep = heard(&host, &mut queue, &mut specs, &key).await.or(sweep),
                Err(RecvError::Lagged(_)) => all(&mut queue),
                Err(RecvError::Closed) => return,
            }
        }
    }
}

/// The generations of VMs and VMIs, as far as they were heard of.
type Specs = BTreeMap<Key, Option<i64>>;

/// Looks at what a change concerns. Returns when a quarantine that began is over.
async fn heard(host: &Host, queue: &mut Queue, specs: &mut Specs, key: &Key) -> Option<Instant> {
    if !matches!(key.kind, Kind::VirtualMachine | Kind::VirtualMachineInstance) {
        return None;
    }
    queue.at(key.with_kind(Kind::VirtualMachine), Instant::now());
    if let Some(object) = host.store.get(key) {
        // With a NIC the last who names its network may be gone.
        let generation = object["metadata"]["generation"].as_i64();
        let changed = specs.insert(key.clone(), generation).is_some_and(|before| before != generation);
        return if changed { after_quarantine(host).await } else { None };
    }
    specs.remove(key);
    revision::forget_unowned(host);
    host.world.send_modify(|count| *count += 1);
    after_quarantine(host).await
}

/// Releases the leases of what is gone. Returns when their quarantine is over, a little later for whole seconds.
async fn after_quarantine(host: &Host) -> Option<Instant> {
    let released = leases::release_unowned(host).await;
    released.then(|| Instant::now() + host.quarantine + Duration::from_secs(1))
}

/// Removes the images that neither a manifest names nor a sandbox uses.
fn images(host: &Host) {
    let (references, digests) = vm::images_in_use(host);
    if let Err(error) = host.images.retain(&references, &digests) {
        tracing::warn!("{}", chain(&error));
    }
}
