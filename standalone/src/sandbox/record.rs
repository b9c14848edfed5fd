//! What is remembered of a sandbox: STATE/vms/UID/sandbox.json.
//!
//! Invariant: written before what it tells of is done, so that a crash leaves a record of everything that may be
//! there. Reading it back is all that an adoption or a clean-up needs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rand::Rng;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::ProcessId;
use crate::store::write_atomically;
use holdfast_ipam::nic::Nic;

const FILE: &str = "sandbox.json";

/// A sandbox record could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Reading failed.
    #[error("failed to read sandbox record `{0}`")]
    Read(PathBuf, #[source] io::Error),
    /// Writing failed.
    #[error("failed to write sandbox record `{0}`")]
    Write(PathBuf, #[source] io::Error),
}

/// A sandbox.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// CNI's container id.
    pub id: String,
    /// Namespace of the VMI.
    pub namespace: String,
    /// Name of the VMI.
    pub name: String,
    /// UID of the VMI.
    pub vmi_uid: String,
    /// Name of the pod that this stands for.
    pub pod_name: String,
    /// UID of that pod.
    pub pod_uid: String,
    /// The networks that were joined or begun, in order.
    #[serde(default)]
    pub attached: Vec<Attached>,
    /// Its NICs.
    #[serde(default)]
    pub nics: Vec<Nic>,
    /// Digests of the images that it uses.
    #[serde(default)]
    pub images: Vec<String>,
    /// The launcher, once it is there.
    #[serde(default)]
    pub launcher: Option<ProcessId>,
}

/// A network that a sandbox joined, with all that leaving it takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attached {
    /// `spec.networks[].name`.
    pub network: String,
    /// CNI_IFNAME.
    pub ifname: String,
    /// The CNI configuration list that was used.
    pub config: Value,
    /// `runtimeConfig` by capability.
    #[serde(default)]
    pub capabilities: Value,
    /// How many plugins of the list have begun their ADD, so that only these are left; all where nothing is said.
    #[serde(default = "all")]
    pub begun: usize,
    /// The last result of ADD; none until it succeeded.
    #[serde(default)]
    pub result: Option<Value>,
}

const fn all() -> usize {
    usize::MAX
}

impl Record {
    /// A new sandbox for a VMI.
    pub fn new(namespace: &str, name: &str, vmi_uid: &str) -> Self {
        let pod_uid = Uuid::new_v4();
        Self {
            id: Uuid::new_v4().simple().to_string(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            vmi_uid: vmi_uid.to_owned(),
            pod_name: format!("virt-launcher-{name}-{}", suffix()),
            pod_uid: pod_uid.to_string(),
            attached: Vec::new(),
            nics: Vec::new(),
            images: Vec::new(),
            launcher: None,
        }
    }

    /// The record in a VM's folder; none where there is none.
    pub fn read(folder: &Path) -> Result<Option<Self>, RecordError> {
        let path = folder.join(FILE);
        match fs::read(&path) {
            Ok(content) => {
                serde_json::from_slice(&content).map(Some).map_err(|error| RecordError::Read(path, error.into()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(RecordError::Read(path, error)),
        }
    }

    /// Writes it into a VM's folder, which exists.
    pub fn write(&self, folder: &Path) -> Result<(), RecordError> {
        let path = folder.join(FILE);
        let written = serde_json::to_vec_pretty(self).map_err(io::Error::from);
        written.and_then(|content| write_atomically(&path, &content)).map_err(|error| RecordError::Write(path, error))
    }
}

/// Five characters as Kubernetes puts them behind generated names.
fn suffix() -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut rng = rand::rng();
    (0..5).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Record::read(folder.path()).unwrap(), None);
        let record = Record::new("default", "a", "uid");
        record.write(folder.path()).unwrap();
        assert_eq!(Record::read(folder.path()).unwrap(), Some(record.clone()));
        assert_eq!(record.pod_name.len(), "virt-launcher-a-".len() + 5);
    }
}
