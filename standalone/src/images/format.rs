//! What kind of disk a file is, and whether a VM may be given it.

use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::ImageError;
use super::layers::open;

/// A disk format that VMs can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskFormat {
    /// The disk's bytes as they are.
    Raw,
    /// QEMU's own.
    Qcow2,
}

/// Formats that are told apart only to be refused by name.
const REFUSED: [(&[u8], &str); 5] =
    [(b"KDMV", "VMDK"), (b"conectix", "VHD"), (b"vhdxfile", "VHDX"), (b"<<< ", "VDI"), (&[0x1f, 0x8b], "a gzip file")];

/// Looks at a disk. A qcow2 that leads to other files is refused: it would read whatever file of the sandbox it
/// names.
pub fn inspect(name: &str, path: &Path) -> Result<DiskFormat, ImageError> {
    let refuse = |reason: &str| ImageError::Disk { name: name.to_owned(), reason: reason.to_owned() };
    let mut header = Vec::new();
    open(path)?.take(104).read_to_end(&mut header).map_err(|error| ImageError::Read(path.to_owned(), error))?;
    if header.is_empty() {
        return Err(refuse("it is empty"));
    }
    if let Some((_, format)) = REFUSED.iter().find(|(magic, _)| header.starts_with(magic)) {
        return Err(refuse(&format!("it is {format}; qcow2 and raw can be used")));
    }
    if !header.starts_with(b"QFI\xfb") {
        return Ok(DiskFormat::Raw);
    }
    // Offsets of the qcow2 header: version 4, backing file 8, incompatible features 72 (from version 3 on).
    let number =
        |at: usize, len: usize| header.get(at..at + len).map(|b| b.iter().fold(0_u64, |n, b| n << 8 | u64::from(*b)));
    let (Some(version), Some(backing)) = (number(4, 4), number(8, 8)) else {
        return Err(refuse("its qcow2 header is cut off"));
    };
    if backing != 0 {
        return Err(refuse("it is a qcow2 overlay over another file; give a qcow2 without a backing file"));
    }
    if version >= 3 && number(72, 8).is_some_and(|features| features & 4 != 0) {
        return Err(refuse("it is a qcow2 whose data is in another file"));
    }
    Ok(DiskFormat::Qcow2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_are_told_apart_and_those_that_lead_elsewhere_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d");
        let check = |content: &[u8]| {
            std::fs::write(&path, content).unwrap();
            inspect("/disk/d", &path)
        };
        let mut qcow2 = [0_u8; 104];
        qcow2[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
        assert_eq!(check(&qcow2).unwrap(), DiskFormat::Qcow2);
        assert_eq!(check(&[0; 512]).unwrap(), DiskFormat::Raw);
        qcow2[79] = 4;
        assert!(check(&qcow2).unwrap_err().to_string().contains("another file"));
        qcow2[15] = 104;
        assert!(check(&qcow2).unwrap_err().to_string().contains("backing file"));
        assert!(check(b"KDMV....").unwrap_err().to_string().contains("VMDK"));
        assert!(check(b"").unwrap_err().to_string().contains("empty"));
        assert!(check(b"QFI\xfb\0\0").unwrap_err().to_string().contains("cut off"));
    }
}
