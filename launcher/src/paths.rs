//! Where things lie inside a VM's sandbox. The defaults are upstream's paths.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// The base folders of a launcher.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct Paths {
    /// Folder of what is shared with the agent: container disks, the final state.
    #[arg(long = "run-dir", default_value = "/var/run/kubevirt", value_name = "DIR")]
    pub run: PathBuf,
    /// Folder of the VM's private files: console and VNC sockets, secrets, host disks.
    #[arg(long = "private-dir", default_value = "/var/run/kubevirt-private", value_name = "DIR")]
    pub private: PathBuf,
    /// Folder of images that live as long as the VM: overlays, empty disks, cloud-init.
    #[arg(long = "ephemeral-dir", default_value = "/var/run/kubevirt-ephemeral-disks", value_name = "DIR")]
    pub ephemeral: PathBuf,
    /// Folder of libvirt's sockets, state and settings. Short, for it holds sockets.
    #[arg(long = "libvirt-dir", default_value = "/var/run/libvirt", value_name = "DIR")]
    pub libvirt: PathBuf,
}

impl Paths {
    /// Console and VNC sockets of the VM with this UID.
    #[must_use]
    pub fn sockets(&self, uid: &str) -> PathBuf {
        self.private.join(uid)
    }

    /// The folder at which the container image of a containerDisk volume is mounted, where it is.
    #[must_use]
    pub fn container_image(&self, volume: &str) -> PathBuf {
        self.run.join("container-disks").join(volume)
    }

    /// The read-only image behind a containerDisk volume, where it was laid out as a file.
    #[must_use]
    pub fn container_disk(&self, volume: &str) -> PathBuf {
        self.run.join("container-disks").join(format!("{volume}.img"))
    }

    /// Folder of the resolved Secrets of a cloud-init volume.
    #[must_use]
    pub fn secret(&self, volume: &str) -> PathBuf {
        self.private.join("secret").join(volume)
    }

    /// The image of a hostDisk volume, under the name that it has on the host: its folder may hold those of others.
    #[must_use]
    pub fn host_disk(&self, volume: &str, file: &OsStr) -> PathBuf {
        self.private.join("vmi-disks").join(volume).join(file)
    }

    /// The record of how the VM ended.
    #[must_use]
    pub fn final_state(&self) -> PathBuf {
        self.run.join("final.json")
    }
}

/// Writes a file so that a crash leaves the old one or the new one: temporary name, fsync, rename, fsync of the folder.
///
/// # Errors
/// Whatever the file system answers.
pub fn replace(path: &Path, contents: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(contents)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    std::fs::File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}
