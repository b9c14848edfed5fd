//! Taking a sandbox down. Goes on after an error, so that one thing that cannot be removed keeps nothing else.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{Cgroups, NetnsError, Process, Record, RecordError, remove_netns};
use crate::cni::{CniError, Runtime};

/// Longest that the kernel may take to end a killed process.
const KILL_DEADLINE: Duration = Duration::from_secs(10);
/// Longest that a control group may stay busy after its last process ended.
const CGROUP_DEADLINE: Duration = Duration::from_secs(5);

/// What kept a sandbox from being removed as a whole; what is left is removed by the next attempt.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// Its process did not end.
    #[error("failed to end the launcher of sandbox `{0}`")]
    Process(String, #[source] io::Error),
    /// A network could not be left.
    #[error("failed to leave network `{0}`")]
    Network(String, #[source] CniError),
    /// The record cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The namespace is still there.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// A control group is still there.
    #[error("failed to remove the control group of sandbox `{0}`")]
    Cgroup(String, #[source] io::Error),
    /// What is known of its bindings is still there.
    #[error("failed to forget the bindings of sandbox `{0}`")]
    Bindings(String, #[source] holdfast_agent::vmi::record::RecordError),
    /// The folder is still there.
    #[error("failed to remove folder `{0}`")]
    Folder(PathBuf, #[source] io::Error),
}

/// Where sandboxes leave traces, besides their folders.
pub struct Ground<'a> {
    /// The state folder.
    pub state: &'a Path,
    /// Folder of named network namespaces.
    pub netns: &'a Path,
    /// Control groups.
    pub cgroups: &'a Cgroups,
    /// Executes CNI plugins.
    pub cni: &'a Runtime,
}

/// Ends what runs in a VM's sandbox and removes it: process, networks (last joined first), namespace, control
/// groups, bindings, and at last the folder with its record. Nothing there is a success. Returns all that failed.
pub async fn remove(folder: &Path, ground: &Ground<'_>) -> Vec<RemoveError> {
    let mut errors = Vec::new();
    let record = match Record::read(folder) {
        Ok(record) => record,
        // Without the record it is not known what to leave: keep everything for a person to look at.
        Err(error) => return vec![error.into()],
    };
    if let Some(record) = &record {
        if let Err(error) = end_launcher(record).await {
            // A launcher that runs keeps its network.
            return vec![RemoveError::Process(record.id.clone(), error)];
        }
        let netns = ground.netns.join(&record.id);
        for attached in record.attached.iter().rev() {
            if let Err(error) = ground.cni.del(record, attached, &netns).await {
                errors.push(RemoveError::Network(attached.network.clone(), error));
            }
        }
        if let Err(error) = remove_netns(&netns) {
            errors.push(error.into());
        }
        if let Err(error) = remove_cgroup(ground.cgroups, &record.vmi_uid).await {
            errors.push(RemoveError::Cgroup(record.id.clone(), error));
        }
        if let Err(error) = holdfast_agent::vmi::record::remove(ground.state, &record.id) {
            errors.push(RemoveError::Bindings(record.id.clone(), error));
        }
    }
    if errors.is_empty() {
        match fs::remove_dir_all(folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                errors.push(RemoveError::Folder(folder.to_owned(), error));
            }
            _ => {}
        }
    }
    errors
}

async fn end_launcher(record: &Record) -> io::Result<()> {
    let Some(id) = record.launcher else { return Ok(()) };
    let Some(process) = Process::find(id)? else { return Ok(()) };
    process.kill()?;
    timeout(KILL_DEADLINE, process.ended()).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// The kernel counts a process out of its group a little after its end is known: EBUSY passes.
async fn remove_cgroup(cgroups: &Cgroups, id: &str) -> io::Result<()> {
    let attempts = async {
        loop {
            match cgroups.remove(id) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => sleep(Duration::from_millis(20)).await,
                other => return other,
            }
        }
    };
    let result = timeout(CGROUP_DEADLINE, attempts).await;
    cgroups.remove_parents();
    result.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
