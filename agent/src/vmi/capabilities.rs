//! What libvirt found out about this node's QEMU, once: launchers get it with their orders and need not ask again.

use std::io;
use std::path::Path;

use holdfast_agent_api::launcher::CacheFile;

/// Most that a file of libvirt's cache may hold; they have some 100 KiB.
const MOST: u64 = 1 << 20;

/// The files of libvirt's cache for each of the two ways in which a launcher may run its guest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    emulation: Vec<CacheFile>,
    kvm: Vec<CacheFile>,
}

impl Capabilities {
    /// Reads what `virt-launcher probe` has left in `folder`; nothing where there is nothing.
    ///
    /// # Errors
    /// When what is there cannot be read.
    pub fn read(folder: &Path) -> io::Result<Self> {
        Ok(Self { emulation: cache(&folder.join("emulation/cache"))?, kvm: cache(&folder.join("kvm/cache"))? })
    }

    /// The files for a launcher that emulates its guest's CPU, or does not.
    #[must_use]
    pub fn of(&self, emulation: bool) -> &[CacheFile] {
        if emulation { &self.emulation } else { &self.kvm }
    }
}

fn cache(folder: &Path) -> io::Result<Vec<CacheFile>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.metadata()?.is_file() && entry.metadata()?.len() <= MOST {
            let name = entry.file_name().to_string_lossy().into_owned();
            files.push(CacheFile { name, contents: std::fs::read_to_string(entry.path())? });
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn reads_what_the_probe_left() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Capabilities::read(folder.path()).unwrap(), Capabilities::default());
        std::fs::create_dir_all(folder.path().join("emulation/cache")).unwrap();
        std::fs::write(folder.path().join("emulation/cache/a.xml"), "<qemuCaps/>").unwrap();
        let read = Capabilities::read(folder.path()).unwrap();
        assert_eq!(read.of(true), [CacheFile { name: "a.xml".to_owned(), contents: "<qemuCaps/>".to_owned() }]);
        assert!(read.of(false).is_empty());
    }
}
