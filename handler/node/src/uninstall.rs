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
/// What of the sockets' folder says that something is to be done about one: calls that the agent has not taken yet.
const NOTES: &str = "deleted";
/// The root of the host, as its first process has it.
const HOST: &str = "/proc/1/root";

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

/// Takes the CNI plugin away, for as long as the agent still answers it: from then on no pod comes by. An error is
/// logged.
pub(crate) async fn unchain(options: &NodeOptions) {
    let places = cni::Places::of(options);
    let done = tokio::task::spawn_blocking(move || cni::uninstall(&places)).await;
    let error = match done {
        Ok(Ok(())) => return,
        Ok(Err(error)) => crate::text(&error),
        Err(error) => error.to_string(),
    };
    tracing::error!(error, "failed to take the CNI plugin away");
}

/// Takes away all files but those of the CNI plugin: the folder of sockets and devices, and that of the state. The state
/// stays where there are VMs or pods on our networks, and with it what is still to be done about them. Goes on after
/// an error, which is logged.
pub fn clean(run: &Path, state: &Path) {
    let empty = RECORDS.iter().all(|records| is_empty(&state.join(records)));
    if empty {
        empty_folder(state, None);
    } else {
        tracing::warn!(folder = %state.display(), "left the state: there are VMs or pods on our networks");
    }
    empty_folder(run, (!empty).then_some(NOTES));
    // The folders themselves are mounts of this container; to the host's first process they are ordinary ones.
    for folder in [run, state] {
        let there = Path::new(HOST).join(folder.strip_prefix("/").unwrap_or(folder));
        match fs::remove_dir(&there) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            removed => tell(folder, removed),
        }
    }
    tracing::info!("took away what was installed on this node");
}

/// Removes what is in a folder, but for one entry.
fn empty_folder(folder: &Path, kept: Option<&str>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if kept.is_some_and(|kept| entry.file_name() == kept) {
            continue;
        }
        let path = entry.path();
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        tell(&path, if is_folder { fs::remove_dir_all(&path) } else { fs::remove_file(&path) });
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).into_iter().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn nothing_stays_but_what_is_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let (run, state) = (folder.path().join("run"), folder.path().join("state"));
        for made in ["run/devices", "run/deleted", "state/attachments", "state/bindings", "state/networks"] {
            fs::create_dir_all(folder.path().join(made)).unwrap();
        }
        let files = ["run/cni.sock", "run/devices/kvm", "run/deleted/x", "state/attachments/a", "state/.agent.lock"];
        for file in files {
            fs::write(folder.path().join(file), "").unwrap();
        }
        clean(&run, &state);
        assert_eq!(names(&run), ["deleted"], "a pod is on our networks");
        assert_eq!(names(&state), [".agent.lock", "attachments", "bindings", "networks"]);
        fs::remove_file(state.join("attachments/a")).unwrap();
        clean(&run, &state);
        // Where the folders are mounts of nobody's, they go too.
        assert!(names(&run).is_empty() && names(&state).is_empty());
    }
}
