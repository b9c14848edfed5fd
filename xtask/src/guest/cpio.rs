//! A tree of files as a cpio archive in the "newc" format (the kernel's
//! Documentation/driver-api/early-userspace/buffer-format.rst): what an initramfs is.
//!
//! Made in memory, so that device nodes and owners need no privilege. Folders are made as files need them.

use std::collections::BTreeMap;
use std::io::{self, Write};

/// Files by path, relative to the root of the guest.
#[derive(Default)]
pub struct Tree {
    entries: BTreeMap<String, Entry>,
}

struct Entry {
    mode: u32,
    device: (u32, u32),
    data: Vec<u8>,
}

const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_000;
const CHARACTER_DEVICE: u32 = 0o020_600;

impl Tree {
    /// Adds a folder.
    pub fn folder(&mut self, path: &str) {
        self.add(path, FOLDER, (0, 0), Vec::new());
    }

    /// Adds a file with these permissions.
    pub fn file(&mut self, path: &str, permissions: u32, data: Vec<u8>) {
        self.add(path, FILE | permissions, (0, 0), data);
    }

    /// Adds the node of a character device.
    pub fn device(&mut self, path: &str, major: u32, minor: u32) {
        self.add(path, CHARACTER_DEVICE, (major, minor), Vec::new());
    }

    fn add(&mut self, path: &str, mode: u32, device: (u32, u32), data: Vec<u8>) {
        let path = path.trim_matches('/');
        for (end, _) in path.match_indices('/') {
            let folder = Entry { mode: FOLDER, device: (0, 0), data: Vec::new() };
            self.entries.entry(path[..end].to_owned()).or_insert(folder);
        }
        self.entries.insert(path.to_owned(), Entry { mode, device, data });
    }

    /// Writes the archive. The order is that of the paths, so a folder comes before what is in it.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        for (number, (path, entry)) in self.entries.iter().enumerate() {
            // Inode numbers tell hard links apart from files: one each.
            write_entry(out, number + 1, path, entry)?;
        }
        write_entry(out, 0, "TRAILER!!!", &Entry { mode: 0, device: (0, 0), data: Vec::new() })
    }
}

fn write_entry(out: &mut impl Write, inode: usize, path: &str, entry: &Entry) -> io::Result<()> {
    let (major, minor) = entry.device;
    let header = [
        inode,
        entry.mode as usize,
        0, // owner
        0, // group
        1, // links
        0, // time of change: always the same, for the same bytes each time
        entry.data.len(),
        0,
        0, // device that holds the file
        major as usize,
        minor as usize,
        path.len() + 1,
        0, // checksum, unused in this format
    ];
    let mut bytes = Vec::with_capacity(128 + entry.data.len());
    bytes.extend_from_slice(b"070701");
    for field in header {
        write!(bytes, "{field:08x}")?;
    }
    bytes.extend_from_slice(path.as_bytes());
    bytes.push(0);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes.extend_from_slice(&entry.data);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    out.write_all(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_the_documented_layout() {
        let mut tree = Tree::default();
        tree.file("/a/b", 0o644, b"12345".to_vec());
        let mut bytes = Vec::new();
        tree.write(&mut bytes).unwrap();
        assert_eq!(bytes.len() % 4, 0);
        // The folder: 110 bytes of header, "a", its end, no padding, no data.
        assert_eq!(&bytes[..14], b"07070100000001");
        assert_eq!(&bytes[14..22], b"000041ed");
        assert_eq!(&bytes[110..112], b"a\0");
        // The file: header, "a/b", its end, padding to 4, data, padding to 4.
        let file = &bytes[112..];
        assert_eq!(&file[14..22], b"000081a4");
        assert_eq!(&file[54..62], b"00000005");
        assert_eq!(&file[110..116], b"a/b\0\0\0");
        assert_eq!(&file[116..124], b"12345\0\0\0");
        assert!(bytes.windows(10).any(|window| window == b"TRAILER!!!"));
    }
}
