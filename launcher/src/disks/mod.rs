//! Prepares the image of each volume before the domain is described.
//!
//! Invariants: what exists is kept, so that a launcher that starts again finds its VM's disks as they were; an image
//! appears under its name only when it is complete (made under another name, then renamed); the format of an image
//! that a guest can write is never guessed.

mod cloud_init;
mod container_disk;
mod empty_disk;
mod host_disk;
mod qcow2;
#[cfg(test)]
mod tests;

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_api::kubevirt::{VirtualMachineInstance, Volume};

use crate::domain::{DiskImage, Format};
use crate::paths::Paths;
use crate::tool::ToolError;

/// Longest that making one image may take; images are sparse, so that it does not depend on their size.
const DEADLINE: Duration = Duration::from_secs(60);

/// Why the image of a volume is not there.
#[derive(Debug, thiserror::Error)]
#[error("failed to prepare volume `{volume}`")]
pub struct DiskError {
    /// Name of the volume in the spec.
    pub volume: String,
    /// What went wrong.
    #[source]
    pub cause: Cause,
}

/// What went wrong with a volume.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// The volume is of a kind that this version does not carry out, or has no source.
    #[error("its source is none of containerDisk, emptyDisk, hostDisk, cloudInitNoCloud, cloudInitConfigDrive")]
    Unsupported,
    /// Its name cannot be part of a path.
    #[error("its name is not a DNS label")]
    Name,
    /// The image that it brings is not one that can be used.
    #[error("its image {0}")]
    Image(String),
    /// A field of its source has a value that cannot be used.
    #[error("{field}: {message}")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// What is wrong, and what would be right. Never the value of a secret.
        message: String,
    },
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
    /// A tool failed.
    #[error(transparent)]
    Tool(#[from] ToolError),
}

impl DiskError {
    /// Whether the spec (or the image that it names) is at fault, so that trying again is of no use.
    #[must_use]
    pub fn is_invalid(&self) -> bool {
        !matches!(self.cause, Cause::File { .. } | Cause::Tool(_))
    }

    /// CamelCase word for a condition.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self.cause {
            Cause::Unsupported | Cause::Name => "VolumeNotSupported",
            Cause::Image(_) => "ImageInvalid",
            Cause::Field { .. } => "VolumeInvalid",
            Cause::File { .. } | Cause::Tool(_) => "VolumePreparationFailed",
        }
    }
}

fn file_error(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Cause {
    move |source| Cause::File { verb, path: path.to_owned(), source }
}

/// Prepares the images of all volumes that a disk of the spec names.
///
/// # Errors
/// The first volume that fails.
pub fn prepare(vmi: &VirtualMachineInstance, paths: &Paths) -> Result<Vec<DiskImage>, DiskError> {
    let disks = &vmi.spec.domain.devices.disks;
    let used = vmi.spec.volumes.iter().filter(|volume| disks.iter().any(|disk| disk.name == volume.name));
    used.map(|volume| one(vmi, volume, paths).map_err(|cause| DiskError { volume: volume.name.clone(), cause }))
        .collect()
}

/// The files of a volume's cloud-init image, each with its path in it; none for a volume of another kind. `secrets` is
/// the folder of the volume's Secrets.
///
/// # Errors
/// What cannot be decoded, or read.
pub fn cloud_init_files(
    vmi: &VirtualMachineInstance,
    volume: &Volume,
    secrets: &Path,
) -> Result<Vec<(&'static str, Vec<u8>)>, Cause> {
    cloud_init::Source::of(volume).map_or(Ok(Vec::new()), |source| cloud_init::files(vmi, &source, secrets))
}

fn one(vmi: &VirtualMachineInstance, volume: &Volume, paths: &Paths) -> Result<DiskImage, Cause> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    if volume.name.is_empty() || volume.name.starts_with('.') || !volume.name.chars().all(plain) {
        return Err(Cause::Name);
    }
    let mut image = if let Some(source) = &volume.container_disk {
        container_disk::prepare(&volume.name, source, paths)?
    } else if let Some(source) = &volume.empty_disk {
        empty_disk::prepare(&volume.name, source, paths)?
    } else if let Some(source) = &volume.host_disk {
        host_disk::prepare(&volume.name, source, paths)?
    } else if let Some(source) = cloud_init::Source::of(volume) {
        cloud_init::prepare(vmi, &volume.name, &source, paths)?
    } else {
        return Err(Cause::Unsupported);
    };
    image.direct_io = direct_io(&image.path);
    Ok(image)
}

fn image(volume: &str, path: PathBuf, format: Format) -> DiskImage {
    DiskImage { volume: volume.to_owned(), path, format, backing: None, direct_io: false }
}

/// Whether a file can be opened past the page cache: some file systems cannot.
fn direct_io(path: &Path) -> bool {
    OpenOptions::new().read(true).custom_flags(nix::libc::O_DIRECT).open(path).is_ok()
}

/// Makes a folder (and those above it) for the launcher's user alone.
fn make_dir(path: &Path) -> Result<(), Cause> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(file_error("make", path))
}

/// Makes `path` by `make` under another name and renames it when it is complete; what exists is kept.
fn once(path: &Path, make: impl FnOnce(&Path) -> Result<(), Cause>) -> Result<(), Cause> {
    if path.try_exists().map_err(file_error("look for", path))? {
        return Ok(());
    }
    make_dir(path.parent().unwrap_or(Path::new("/")))?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(file_error("remove", &temporary)(error));
        }
        _ => {}
    }
    make(&temporary)?;
    let synced = std::fs::File::open(&temporary).and_then(|file| file.sync_all());
    synced.map_err(file_error("sync", &temporary))?;
    std::fs::rename(&temporary, path).map_err(file_error("rename", &temporary))
}
