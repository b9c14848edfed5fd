//! Tells qcow2 from raw, and a qcow2 image that stands alone from one that names other files.
//!
//! An image comes from anyone. One whose header names a backing file or an external data file would have the
//! hypervisor open that path on our side and show it to the guest, so such an image is refused before anything
//! opens it. Header layout: QEMU's docs/interop/qcow2.txt.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::{Cause, file_error};
use crate::domain::Format;

const MAGIC: [u8; 4] = *b"QFI\xfb";
/// Offsets in the header: 8 bytes each.
const BACKING_FILE_OFFSET: usize = 8;
const INCOMPATIBLE_FEATURES: usize = 72;
/// Incompatible feature bit 2: the data lies in another file.
const EXTERNAL_DATA: u64 = 1 << 2;

/// Reads the format of an image.
pub(super) fn probe(path: &Path) -> Result<Format, Cause> {
    let mut header = Vec::new();
    let file = File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Cause::Image(format!("is not there (`{}`)", path.display())),
        _ => file_error("open", path)(error),
    })?;
    file.take(104).read_to_end(&mut header).map_err(file_error("read", path))?;
    format(&header).map_err(Cause::Image)
}

fn format(header: &[u8]) -> Result<Format, String> {
    if header.is_empty() {
        return Err("is empty".to_owned());
    }
    if !header.starts_with(&MAGIC) {
        return Ok(Format::Raw);
    }
    let number = |offset: usize| {
        let bytes = header.get(offset..offset + 8)?.try_into().ok()?;
        Some(u64::from_be_bytes(bytes))
    };
    let version = header.get(4..8).map(|bytes| bytes.iter().fold(0u32, |sum, byte| sum << 8 | u32::from(*byte)));
    let truncated = || "is a truncated qcow2 image".to_owned();
    if number(BACKING_FILE_OFFSET).ok_or_else(truncated)? != 0 {
        return Err("is a qcow2 image with a backing file; only an image that stands alone is valid".to_owned());
    }
    match version {
        Some(2) => Ok(Format::Qcow2),
        Some(3) if number(INCOMPATIBLE_FEATURES).ok_or_else(truncated)? & EXTERNAL_DATA != 0 => {
            Err("is a qcow2 image with an external data file; only an image that stands alone is valid".to_owned())
        }
        Some(3) => Ok(Format::Qcow2),
        other => Err(format!("is a qcow2 image of version {}; valid are 2 and 3", other.unwrap_or(0))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(version: u32, backing: u64, features: u64) -> Vec<u8> {
        let mut header = vec![0u8; 104];
        header[..4].copy_from_slice(&MAGIC);
        header[4..8].copy_from_slice(&version.to_be_bytes());
        header[8..16].copy_from_slice(&backing.to_be_bytes());
        header[72..80].copy_from_slice(&features.to_be_bytes());
        header
    }

    #[test]
    fn tells_the_formats() {
        assert_eq!(format(&header(2, 0, 0)), Ok(Format::Qcow2));
        assert_eq!(format(&header(3, 0, 1)), Ok(Format::Qcow2));
        assert_eq!(format(b"\xeb\x63\x90"), Ok(Format::Raw));
    }

    #[test]
    fn refuses_what_names_other_files() {
        assert!(format(&header(3, 0x1c0, 0)).unwrap_err().contains("backing file"));
        assert!(format(&header(2, 0x1c0, 0)).unwrap_err().contains("backing file"));
        assert!(format(&header(3, 0, EXTERNAL_DATA)).unwrap_err().contains("external data file"));
        assert!(format(&header(4, 0, 0)).unwrap_err().contains("version 4"));
        assert!(format(&header(3, 0, 0)[..40]).unwrap_err().contains("truncated"));
        assert!(format(b"").is_err());
    }

    #[test]
    fn agrees_with_qemu_img() {
        let folder = tempfile::tempdir().unwrap();
        let make = |arguments: &[&str]| {
            let done = std::process::Command::new("qemu-img").args(arguments).current_dir(folder.path()).output();
            let done = done.unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        };
        make(&["create", "-f", "qcow2", "alone", "1M"]);
        make(&["create", "-f", "qcow2", "-F", "qcow2", "-b", "alone", "above"]);
        make(&["create", "-f", "qcow2", "-o", "data_file=data,data_file_raw=on", "outside", "1M"]);
        assert!(matches!(probe(&folder.path().join("alone")), Ok(Format::Qcow2)));
        let refused = |name| probe(&folder.path().join(name)).unwrap_err().to_string();
        assert!(refused("above").contains("backing file"));
        assert!(refused("outside").contains("external data file"));
        assert!(refused("missing").contains("is not there"));
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
            let _ = format(&bytes);
            let mut image = MAGIC.to_vec();
            image.extend(bytes);
            let _ = format(&image);
        }
    }
}
