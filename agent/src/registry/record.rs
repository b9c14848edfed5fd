//! What is written down of an attachment, and how: one file each, complete or not there.
//!
//! Invariants: a file is there, complete, before a device is touched, so that the end of the process leaves no device
//! without it; it is on disk (synced, and its folder too) before the runtime is told of the ADD. In between a power cut may
//! leave a file without its content: the devices went with the power, but for ports of Open vSwitch, which are found by
//! their marks and removed as strays. A record holds everything that converging, CHECK and DEL need, so none of them asks
//! anybody.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use holdfast_agent_api::cni::file_key;
use holdfast_api::lease::Claim;
use holdfast_ipam::disk::is_without_content;
use holdfast_net::model::{Attachment, IfName};
use serde::{Deserialize, Serialize};

use crate::cni::result::CniResult;
use crate::netns::NetnsId;

/// CNI's own name of an attachment. Where our plugin is chained, the interface that it makes has another name
/// than `ifname`, which is its primary's.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Key {
    /// CNI_CONTAINERID.
    pub container_id: String,
    /// CNI_IFNAME.
    pub ifname: IfName,
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.container_id, self.ifname)
    }
}

/// The call of a pod's primary network that an attachment was made behind, and goes with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Chained {
    /// `name` of the primary network's configuration; GC goes by it.
    pub list: String,
    /// CNI_IFNAME of the call.
    pub ifname: IfName,
}

/// An attachment, written down.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Its key.
    pub key: Key,
    /// `name` of the network's configuration; GC goes by it.
    pub network: String,
    /// Segment of its leases.
    pub segment: String,
    /// Name of its pod, as far as the runtime has told it.
    pub pod: String,
    /// UID of its pod, as far as the runtime has told it.
    #[serde(default)]
    pub pod_uid: String,
    /// The call that it was made behind; none where it has a call of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chained: Option<Chained>,
    /// Which namespace it was made in.
    pub netns: NetnsId,
    /// Who holds its addresses; none where it has none.
    pub claim: Option<Claim>,
    /// Whether its leases end with it: those of a plain pod, which has no life beyond its sandbox.
    pub release: bool,
    /// What shall be.
    pub attachment: Attachment,
    /// What ADD answers for it alone, without `prevResult`.
    pub result: CniResult,
}

/// A record could not be written, read or removed.
#[derive(Debug, thiserror::Error)]
#[error("failed to {verb} the record `{}`", .path.display())]
pub struct DiskError {
    verb: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// The folder of records: STATE/attachments.
#[derive(Clone, Debug)]
pub struct Folder {
    root: PathBuf,
}

impl Folder {
    /// Opens the folder, making it where it is missing, and reads what is in it. A file that cannot be read is
    /// logged and left: it may be a newer version's.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn open(root: &Path) -> Result<(Self, Vec<Record>), DiskError> {
        let failed = |verb, path: &Path| {
            let path = path.to_owned();
            move |source| DiskError { verb, path, source }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(root).map_err(failed("create", root))?;
        let mut records = Vec::new();
        for entry in fs::read_dir(root).map_err(failed("list", root))? {
            let path = entry.map_err(failed("list", root))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.starts_with('.') {
                // What a crash left of a record on its way in; no device was touched for it.
                fs::remove_file(&path).map_err(failed("remove", &path))?;
            } else if name.ends_with(".json") {
                let read = fs::read(&path);
                if read.as_ref().is_ok_and(|bytes| is_without_content(bytes)) {
                    // What a power cut left of a record whose ADD was never answered.
                    fs::remove_file(&path).map_err(failed("remove", &path))?;
                    continue;
                }
                match read.and_then(|bytes| Ok(serde_json::from_slice(&bytes)?)) {
                    Ok(record) => records.push(record),
                    Err(error) => {
                        tracing::error!(path = %path.display(), %error, "an attachment's record cannot be read")
                    }
                }
            }
        }
        Ok((Self { root: root.to_owned() }, records))
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.root.join(format!("{}.json", file_key(&key.container_id, key.ifname.as_str())))
    }

    /// Writes a record, in place of an earlier one of its key. A power cut may undo that, or
    /// leave the file without its content: it ends the sandbox as well.
    ///
    /// # Errors
    /// [`DiskError`]; the earlier one is untouched then.
    pub fn write(&self, record: &Record) -> Result<(), DiskError> {
        let path = self.path(&record.key);
        let staged = self.root.join(format!(".{}", uuid::Uuid::new_v4().simple()));
        let write = || {
            let mut file = File::create_new(&staged)?;
            file.write_all(&serde_json::to_vec_pretty(record)?)?;
            fs::rename(&staged, &path)
        };
        write().map_err(|source| {
            let _ = fs::remove_file(&staged);
            DiskError { verb: "write", path: path.clone(), source }
        })
    }

    /// Removes a record; one that is not there is a success. Not synced: after a power cut its namespace is
    /// gone as well, and start-up drops it for that.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn remove(&self, key: &Key) -> Result<(), DiskError> {
        let path = self.path(key);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(DiskError { verb: "remove", path, source }),
            _ => Ok(()),
        }
    }
}
