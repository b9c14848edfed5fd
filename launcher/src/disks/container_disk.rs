//! containerDisk: a read-only image that came with a container image, under an overlay that lives with the VM.

use std::process::Command;

use super::{Cause, DEADLINE, image, once, qcow2};
use crate::domain::{Backing, DiskImage, Format};
use crate::paths::Paths;
use crate::tool;

/// Probes the image and makes the overlay, whose format and backing format are always named, never probed again.
pub(super) fn prepare(volume: &str, paths: &Paths) -> Result<DiskImage, Cause> {
    let base = paths.container_disk(volume);
    let format = qcow2::probe(&base)?;
    let overlay = paths.ephemeral.join("disk-data").join(volume).join("disk.qcow2");
    once(&overlay, |path| {
        let mut command = Command::new("qemu-img");
        command.args(["create", "-q", "-f", "qcow2", "-F", format.name(), "-b"]).arg(&base).arg(path);
        Ok(tool::run(&mut command, DEADLINE)?)
    })?;
    Ok(DiskImage { backing: Some(Backing { path: base, format }), ..image(volume, overlay, Format::Qcow2) })
}
