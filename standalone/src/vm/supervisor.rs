//! One task per VMI, and no sandbox without one.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio::task::{Id, JoinSet};
use tracing::Instrument;

use super::task::VmiRun;
use crate::host::{Host, chain, stopped};
use crate::sandbox::{remove, remove_netns};
use crate::store::{Key, Kind};

/// The tasks by VMI: uid of the VMI, how to wake its task, and the task's id.
type Runs = BTreeMap<Key, (String, watch::Sender<u64>, Id)>;

/// Looks after every VMI until `stop` says true. VMs that run then go on.
pub async fn supervise(host: Arc<Host>, mut stop: watch::Receiver<bool>) {
    let mut changes = host.store.subscribe();
    remove_leftovers(&host).await;
    let mut tasks = JoinSet::new();
    let mut runs = Runs::new();
    for key in host.store.keys(Kind::VirtualMachineInstance) {
        look_at(&host, &mut tasks, &mut runs, key);
    }
    loop {
        tokio::select! {
            () = stopped(&mut stop) => return,
            change = changes.recv() => match change {
                Ok(key) => changed(&host, &mut tasks, &mut runs, &key),
                Err(RecvError::Lagged(_)) => {
                    host.world.send_modify(|count| *count += 1);
                    for key in host.store.keys(Kind::VirtualMachineInstance) {
                        look_at(&host, &mut tasks, &mut runs, key);
                    }
                }
                Err(RecvError::Closed) => return,
            },
            Some(ended) = tasks.join_next_with_id() => {
                let id = match ended {
                    Ok((id, ())) => id,
                    Err(error) => {
                        tracing::error!(error = chain(&error), "a VMI's task failed; it is started again");
                        error.id()
                    }
                };
                let key = runs.iter().find(|(_, (.., run))| *run == id).map(|(key, _)| key.clone());
                if let Some(key) = key {
                    runs.remove(&key);
                    // A younger one of the same name may wait, and one that failed must go on.
                    look_at(&host, &mut tasks, &mut runs, key);
                }
            }
        }
    }
}

fn changed(host: &Arc<Host>, tasks: &mut JoinSet<()>, runs: &mut Runs, key: &Key) {
    match key.kind {
        Kind::VirtualMachineInstance => look_at(host, tasks, runs, key.clone()),
        Kind::VirtualMachine => {}
        Kind::NetworkAttachmentDefinition | Kind::UnderlayNetwork | Kind::ConfigMap | Kind::Secret => {
            host.world.send_modify(|count| *count += 1);
        }
    }
}

/// Wakes the task of a VMI, or starts it.
fn look_at(host: &Arc<Host>, tasks: &mut JoinSet<()>, runs: &mut Runs, key: Key) {
    if let Some((_, wake, _)) = runs.get(&key) {
        wake.send_modify(|count| *count += 1);
        return;
    }
    let Some(value) = host.store.get(&key) else { return };
    let uid = value["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
    let (wake, woken) = watch::channel(0);
    let run = VmiRun { host: Arc::clone(host), key: key.clone(), uid: uid.clone(), wake: woken };
    let span = tracing::info_span!("vmi", namespace = key.namespace, name = key.name);
    let id = tasks.spawn(run.run().instrument(span)).id();
    runs.insert(key, (uid, wake, id));
}

/// Removes the sandboxes, namespaces and control groups that no VMI owns: what a crash, or a removed state, left.
async fn remove_leftovers(host: &Host) {
    let owned: Vec<String> = host
        .store
        .list(Kind::VirtualMachineInstance, None)
        .iter()
        .filter_map(|vmi| vmi["metadata"]["uid"].as_str().map(str::to_owned))
        .collect();
    let mut kept = Vec::new();
    for uid in names(&host.state.join("vms")) {
        let folder = host.vm_folder(&uid);
        let record = crate::sandbox::Record::read(&folder);
        if owned.contains(&uid) {
            kept.extend(record.ok().flatten().map(|record| record.id));
            continue;
        }
        tracing::info!(uid, "removing a sandbox that no VMI owns");
        for error in remove(&folder, &host.ground()).await {
            tracing::warn!("{}", chain(&error));
            kept.extend(record.as_ref().ok().and_then(|r| r.as_ref()).map(|record| record.id.clone()));
        }
    }
    let is_kept = |id: &String| kept.contains(id);
    for id in names(&host.netns).into_iter().filter(|id| !is_kept(id)) {
        if let Err(error) = remove_netns(&host.netns.join(&id)) {
            tracing::warn!("{}", chain(&error));
        }
    }
    let bindings = names(&host.state.join("bindings"));
    for id in bindings.iter().filter_map(|name| name.strip_suffix(".json")).map(str::to_owned) {
        if !is_kept(&id)
            && let Err(error) = holdfast_agent::vmi::record::remove(&host.state, &id)
        {
            tracing::warn!("{}", chain(&error));
        }
    }
}

/// The names in a folder; none where it is not there.
fn names(folder: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}
