//! Taking away from the node what we put there, when the whole installation goes.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use holdfast_kubernetes::config::Settings;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{NodeOptions, cni};

/// What of the agent's state says that a VM may still be there.
const RECORDS: [&str; 2] = ["attachments", "bindings"];

/// Waits for `stop`, and tells whether the installation is going at that moment: its KubeVirt object was seen and is
/// gone or being deleted. One that was never seen says nothing.
pub async fn follow(mut settings: watch::Receiver<Arc<Settings>>, stop: CancellationToken) -> bool {
    let mut seen = false;
    loop {
        seen |= settings.borrow_and_update().kubevirt.metadata.uid.is_some();
        tokio::select! {
            () = stop.cancelled() => break,
            changed = settings.changed() => if changed.is_err() {
                stop.cancelled().await;
                break;
            },
        }
    }
    let metadata = &settings.borrow().kubevirt.metadata;
    seen && (metadata.uid.is_none() || metadata.deletion_timestamp.is_some())
}

/// Takes away all of it but what is on the Node object. Goes on after an error, which is logged.
pub async fn run(options: &NodeOptions) {
    let options = options.clone();
    let done = tokio::task::spawn_blocking(move || {
        if let Err(error) = cni::uninstall(&cni::Places::of(&options)) {
            tracing::error!(error = crate::text(&error), "failed to take the CNI plugin away");
        }
        tell(&options.run.join("devices"), fs::remove_dir_all(options.run.join("devices")));
        let empty = RECORDS.iter().all(|records| is_empty(&options.state.join(records)));
        if empty {
            // The folder itself is a mount of this container.
            for entry in fs::read_dir(&options.state).into_iter().flatten().flatten() {
                let path = entry.path();
                let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
                tell(&path, removed);
            }
        } else {
            tracing::warn!(folder = %options.state.display(), "left the state: there are VMs or pods on our networks");
        }
        tracing::info!("took away what was installed on this node");
    });
    if let Err(error) = done.await {
        tracing::error!(%error, "failed to take away what was installed");
    }
}

fn tell(path: &Path, removed: io::Result<()>) {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::error!(%error, path = %path.display(), "failed to remove");
        }
        _ => {}
    }
}

fn is_empty(folder: &Path) -> bool {
    match fs::read_dir(folder) {
        Err(error) => error.kind() == io::ErrorKind::NotFound,
        Ok(mut entries) => entries.next().is_none(),
    }
}
