//! One run per launcher's pod, and nothing kept of pods that are gone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::run::{Node, Run};
use crate::{allocator, disk};

/// How often what may be left of pods that are gone is looked for.
const CLEAN: Duration = Duration::from_secs(60);
/// Before a run that failed is begun anew.
const AGAIN: Duration = Duration::from_secs(2);

/// Looks after every launcher's pod of the node until `stop`. VMs that run then go on.
pub async fn supervise(node: Arc<Node>, stop: CancellationToken) {
    let mut changes = node.pods.changes();
    let mut tasks = JoinSet::new();
    let mut runs: BTreeMap<String, Id> = BTreeMap::new();
    let mut clean = tokio::time::interval_at(tokio::time::Instant::now() + CLEAN, CLEAN);
    loop {
        changes.mark_unchanged();
        for pod in node.pods.launchers() {
            runs.entry(pod.uid.clone()).or_insert_with(|| {
                let span = tracing::info_span!("launcher", pod = pod.name);
                tasks.spawn(Run::new(Arc::clone(&node), &pod).run().instrument(span)).id()
            });
        }
        tokio::select! {
            () = stop.cancelled() => {
                // This may be the end of the installation, and what is left says that a VM is there.
                return remove_leftovers(&node);
            }
            changed = changes.changed() => if changed.is_err() { return },
            _ = clean.tick() => {
                remove_leftovers(&node);
                allocator::trim();
            }
            Some(ended) = tasks.join_next_with_id() => {
                let id = match ended {
                    Ok((id, ())) => id,
                    Err(error) => {
                        tracing::error!(error = holdfast_kubernetes::chain(&error), "a VMI's run failed; it is begun anew");
                        tokio::time::sleep(AGAIN).await;
                        error.id()
                    }
                };
                // A run ends with its pod; where it is there still, it is begun anew.
                runs.retain(|_, run| *run != id);
                // VMs mostly end together, and nothing may happen for long then.
                allocator::trim();
            }
        }
    }
}

/// Forgets what was written down of pods that are gone. An interface that is bound to a VM stays on record for as long
/// as it is attached: a comparison in between would give it back the addresses that the guest has.
fn remove_leftovers(node: &Node) {
    let gone = |uid: &String| node.pods.get(uid).is_none();
    node.nics.uids().iter().filter(|uid| gone(uid)).for_each(|uid| node.nics.forget(uid));
    let attached: Vec<_> = node.registry.entries().into_iter().map(|entry| entry.record.key.container_id).collect();
    let sandboxes = node.sandboxes();
    for path in disk::entries(&node.vmi.state.join("bindings")) {
        let Some(id) = path.file_stem().and_then(|stem| stem.to_str()) else { continue };
        let is_used = attached.iter().any(|used| used == id) || sandboxes.contains(id) || node.pods.get(id).is_some();
        if !is_used && let Err(error) = holdfast_agent::vmi::record::remove(&node.vmi.state, id) {
            tracing::warn!(error = holdfast_kubernetes::chain(&error), "a record of bindings stays");
        }
    }
}
