//! What a sandbox shall be: a value that holdfastd makes and the sandbox's first process carries out.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// User and group of everything that runs in a sandbox; the same number as in KubeVirt's pods.
pub const QEMU_ID: u32 = 107;

/// A sandbox and the one program that it is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// Path of the network namespace to join.
    pub netns: PathBuf,
    /// An empty folder on which the sandbox builds its root; nobody outside sees what it mounts there.
    pub root: PathBuf,
    /// Host name inside.
    pub hostname: String,
    /// Files and folders of the host that are visible inside, besides the system's own programs.
    pub binds: Vec<Bind>,
    /// Device nodes besides those that every sandbox has.
    pub devices: Vec<Device>,
    /// `cgroup.procs` files that the process enters.
    pub cgroups: Vec<PathBuf>,
    /// Where its output goes.
    pub log: PathBuf,
    /// Path of the program inside, and its arguments.
    pub command: Vec<String>,
    /// Its whole environment.
    pub environment: Vec<(String, String)>,
}

/// A file or folder of the host inside a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bind {
    /// Path outside.
    pub source: PathBuf,
    /// Absolute path inside.
    pub target: PathBuf,
    /// Whether it can be written inside.
    pub writable: bool,
    /// Which file the source must be, where somebody else could put another one in its place.
    #[serde(default)]
    pub file: Option<FileId>,
}

/// What names a file of the host for as long as somebody has it open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileId {
    /// Number of its file system (`st_dev`).
    pub device: u64,
    /// Its number there (`st_ino`).
    pub inode: u64,
}

/// A character device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// Path below /dev.
    pub name: String,
    /// Major number.
    pub major: u64,
    /// Minor number.
    pub minor: u64,
}

impl Device {
    /// A device by its path below /dev and its numbers.
    pub fn new(name: &str, major: u64, minor: u64) -> Self {
        Self { name: name.to_owned(), major, minor }
    }
}
