//! Applying the folder again whenever something in it changes.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use notify::{RecursiveMode, Watcher};
use tokio::sync::{mpsc, watch as signal};
use tokio::time::{sleep, timeout};

use super::{Applier, scan};
use crate::host::stopped;

/// How long the folder must be quiet before it is read.
const QUIET: Duration = Duration::from_millis(100);
/// How long it is waited for that at most.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often the folder is read although nothing was heard: network file systems tell nothing.
const RESCAN: Duration = Duration::from_secs(10);

/// The folder cannot be watched.
#[derive(Debug, thiserror::Error)]
#[error("failed to watch the manifests folder `{0}`")]
pub struct WatchError(PathBuf, #[source] notify::Error);

/// Applies the folder until `stop` says true (or its sender is gone). `force` asks for a look at once.
pub async fn watch(folder: PathBuf, mut applier: Applier, mut stop: signal::Receiver<bool>) -> Result<(), WatchError> {
    let (heard, mut changes) = mpsc::channel(1);
    let mut watcher = notify::recommended_watcher(move |_event| {
        // One waiting word is enough; the folder is read as a whole.
        let _ = heard.try_send(());
    })
    .map_err(|error| WatchError(folder.clone(), error))?;
    watcher.watch(&folder, RecursiveMode::Recursive).map_err(|error| WatchError(folder.clone(), error))?;
    loop {
        let again;
        (applier, again) = apply_once(applier, &folder).await;
        let wait = again.unwrap_or(RESCAN);
        tokio::select! {
            () = stopped(&mut stop) => return Ok(()),
            () = sleep(wait) => {}
            _ = changes.recv() => settle(&mut changes).await,
        }
    }
}

/// Waits until nothing was heard for a moment.
async fn settle(changes: &mut mpsc::Receiver<()>) {
    let started = Instant::now();
    while started.elapsed() < PATIENCE && timeout(QUIET, changes.recv()).await.is_ok() {}
}

async fn apply_once(mut applier: Applier, folder: &Path) -> (Applier, Option<Duration>) {
    // block_in_place: files are read and written, and the applier is not to be lost when this is dropped.
    let again = tokio::task::block_in_place(|| match scan(folder) {
        Ok(scan) => applier.apply(&scan, Instant::now()),
        Err(error) => {
            // Nothing is deleted because a folder went away.
            tracing::warn!(error = &error as &dyn std::error::Error, "the manifests cannot be read");
            None
        }
    });
    (applier, again)
}
