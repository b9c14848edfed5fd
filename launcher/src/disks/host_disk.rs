//! hostDisk: a raw image on the host, which outlives the VM.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::path::Path;

use holdfast_api::kubevirt::HostDisk;
use holdfast_api::quantity;

use super::{Cause, file_error, image};
use crate::domain::{DiskImage, Format};
use crate::paths::Paths;

/// Takes the image that is there, or makes a sparse one where the volume asks for that.
pub(super) fn prepare(volume: &str, source: &HostDisk, paths: &Paths) -> Result<DiskImage, Cause> {
    let file = Path::new(&source.path).file_name().ok_or_else(|| Cause::Field {
        field: "hostDisk.path",
        message: format!("`{}` does not end in the name of a file", source.path),
    })?;
    let path = paths.host_disk(volume, file);
    let opened = OpenOptions::new().read(true).write(true).open(&path);
    match opened {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound && source.r#type == "DiskOrCreate" => {
            let capacity = source.capacity.as_ref().map(quantity::parse).transpose();
            let capacity = capacity.ok().flatten().and_then(|capacity| u64::try_from(capacity.value()).ok());
            let bytes = capacity.filter(|bytes| *bytes > 0).ok_or_else(|| Cause::Field {
                field: "hostDisk.capacity",
                message: "is needed to make the disk; valid is a size such as 1Gi".to_owned(),
            })?;
            let file =
                OpenOptions::new().write(true).create_new(true).open(&path).map_err(file_error("make", &path))?;
            file.set_len(bytes).and_then(|()| file.sync_all()).map_err(file_error("grow", &path))?;
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(Cause::Image(format!("`{}` is not there", source.path)));
        }
        Err(error) => return Err(file_error("open", &path)(error)),
    }
    Ok(image(volume, path, Format::Raw))
}
