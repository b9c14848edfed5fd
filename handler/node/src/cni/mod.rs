//! Our CNI plugin on the node: its program, and its place behind the cluster's primary network.
//!
//! Two files, each written under another name, synced and renamed: a runtime that looks at any moment finds all of one
//! or all of the other. The chain follows the primary network as somebody else changes it; without ours, that network
//! works as if we had never been there. Invariant: the program is there before anything names it, and named by nothing
//! when it goes.

mod chain;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::NodeOptions;
use crate::facts::Facts;

pub use chain::{ChainError, FILE, behind};

/// Between looks, in case that an event was lost.
const LOOK: Duration = Duration::from_secs(60);
/// A change is a few events at once.
const SETTLE: Duration = Duration::from_millis(100);
/// Larger than any network's configuration.
const MOST: u64 = 1 << 20;

/// Why our plugin is not in its place.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// A file cannot be read or written.
    #[error("failed to {verb} `{path}`")]
    File {
        /// What was tried.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// There is nothing to stand behind.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

/// Where things are.
#[derive(Clone, Debug)]
pub struct Places {
    /// Our plugin, as it came with the agent.
    pub program: PathBuf,
    /// Where the container runtime looks for plugins.
    pub bin: PathBuf,
    /// Where it looks for its network.
    pub conf: PathBuf,
    /// Where the agent listens to plugins.
    pub socket: PathBuf,
}

impl Places {
    /// Those of a node.
    #[must_use]
    pub fn of(options: &NodeOptions) -> Self {
        Self {
            program: options.cni_plugin.clone(),
            bin: options.cni_bin.clone(),
            conf: options.cni_conf.clone(),
            socket: options.run.join("cni.sock"),
        }
    }
}

fn failed(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> InstallError {
    move |source| InstallError::File { verb, path: path.to_owned(), source }
}

/// Keeps the plugin in its place until `stop`.
pub async fn keep(places: Places, facts: watch::Sender<Facts>, stop: CancellationToken) {
    let (wake, mut woken) = watch::channel(());
    let _watcher = crate::watch_folder(&places.conf, wake);
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
            Ok(()) = woken.changed() => tokio::time::sleep(SETTLE).await,
        }
        woken.mark_unchanged();
        let at = places.clone();
        let done = tokio::task::spawn_blocking(move || install(&at)).await;
        let network = match done {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(crate::text(&error)),
            Err(error) => Err(error.to_string()),
        };
        facts.send_if_modified(|facts| {
            let changed = facts.network.as_ref() != Some(&network);
            if let Err(error) = &network
                && changed
            {
                tracing::warn!(error, "failed to put the CNI plugin in its place");
            }
            facts.network = Some(network);
            changed
        });
    }
}

/// Puts program and chain in their places; writes nothing that is there already.
///
/// # Errors
/// [`InstallError`].
pub fn install(places: &Places) -> Result<(), InstallError> {
    let program = places.bin.join(chain::PLUGIN);
    if !same(&places.program, &program)? {
        let contents = fs::read(&places.program).map_err(failed("read", &places.program))?;
        replace(&program, &contents, 0o755)?;
        tracing::info!(path = %program.display(), "installed the CNI plugin");
    }
    let path = places.conf.join(FILE);
    let wanted = match behind(&networks(&places.conf)?, &places.conf, &places.socket) {
        Ok(wanted) => wanted,
        Err(error) => {
            // Ours would only stand in the way of a network that comes.
            remove(&path)?;
            return Err(error.into());
        }
    };
    match wanted {
        Some(text) if fs::read_to_string(&path).ok().as_ref() == Some(&text) => Ok(()),
        Some(text) => {
            replace(&path, text.as_bytes(), 0o644)?;
            tracing::info!(path = %path.display(), "stands behind the cluster's network");
            Ok(())
        }
        None => remove(&path),
    }
}

/// Takes both away.
///
/// # Errors
/// [`InstallError`], after both were tried.
pub fn uninstall(places: &Places) -> Result<(), InstallError> {
    let chain = remove(&places.conf.join(FILE));
    chain.and(remove(&places.bin.join(chain::PLUGIN)))
}

/// All files of the folder that can be a network's, with their contents.
fn networks(folder: &Path) -> Result<Vec<(String, String)>, InstallError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed("list", folder))?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed("list", folder))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !chain::is_candidate(&name) {
            continue;
        }
        let mut text = String::new();
        // One that goes meanwhile, or is no text, is none.
        let read = File::open(entry.path()).and_then(|file| file.take(MOST).read_to_string(&mut text));
        if read.is_ok() {
            files.push((name, text));
        }
    }
    Ok(files)
}

fn same(a: &Path, b: &Path) -> Result<bool, InstallError> {
    let installed = match fs::read(b) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        read => read.map_err(failed("read", b))?,
    };
    Ok(installed == fs::read(a).map_err(failed("read", a))?)
}

fn replace(path: &Path, contents: &[u8], mode: u32) -> Result<(), InstallError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder).map_err(failed("make", folder))?;
    // No extension that a runtime would read.
    let new = folder.join(format!(".{name}.new"));
    remove(&new)?;
    let write = || {
        let mut file = File::options().write(true).create_new(true).mode(mode).open(&new)?;
        file.write_all(contents)?;
        fs::set_permissions(&new, std::os::unix::fs::PermissionsExt::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(failed("write", path))
}

fn remove(path: &Path) -> Result<(), InstallError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}
