//! emptyDisk: a blank image of a given size that lives with the VM.

use std::process::Command;

use holdfast_api::kubevirt::EmptyDiskSource;
use holdfast_api::quantity;

use super::{Cause, DEADLINE, image, once};
use crate::domain::{DiskImage, Format};
use crate::paths::Paths;
use crate::tool;

/// Makes the blank image.
pub(super) fn prepare(volume: &str, source: &EmptyDiskSource, paths: &Paths) -> Result<DiskImage, Cause> {
    let wrong = |message: String| Cause::Field { field: "emptyDisk.capacity", message };
    let capacity = &source.capacity;
    let bytes = quantity::parse(capacity).map_err(|error| wrong(format!("`{}`: {error}", capacity.0)))?.value();
    if bytes <= 0 {
        return Err(wrong(format!("`{}`: valid is a size above 0, such as 1Gi", capacity.0)));
    }
    let path = paths.ephemeral.join("empty-disks").join(format!("{volume}.qcow2"));
    once(&path, |path| {
        let mut command = Command::new("qemu-img");
        command.args(["create", "-q", "-f", "qcow2"]).arg(path).arg(bytes.to_string());
        Ok(tool::run(&mut command, DEADLINE)?)
    })?;
    Ok(image(volume, path, Format::Qcow2))
}
