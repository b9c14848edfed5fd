//! The parts of an OCI image layout, in a folder or in a tar file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::ImageError;

/// Largest index or manifest that is read.
const MAX_DOCUMENT: u64 = 4 << 20;

/// An image layout.
#[derive(Debug)]
pub enum Blobs {
    /// In a folder.
    Folder(PathBuf),
    /// In a tar file: name of each entry, with its offset and length.
    Archive(PathBuf, BTreeMap<PathBuf, (u64, u64)>),
}

impl Blobs {
    /// A layout in a folder.
    pub fn folder(path: &Path) -> Result<Self, ImageError> {
        if !path.join("oci-layout").is_file() {
            return Err(ImageError::Layout(path.to_owned(), "there is no file `oci-layout` in it".to_owned()));
        }
        Ok(Self::Folder(path.to_owned()))
    }

    /// A layout in a tar file that is not compressed.
    pub fn archive(path: &Path) -> Result<Self, ImageError> {
        let failed = |error| ImageError::Read(path.to_owned(), error);
        let mut entries = BTreeMap::new();
        let no_tar = |_| ImageError::NotTar(path.to_owned());
        // Before it is opened: that of a fifo would wait for a writer, and that of a device may do anything.
        if !path.metadata().map_err(failed)?.is_file() {
            return Err(ImageError::NotTar(path.to_owned()));
        }
        let mut archive = tar::Archive::new(File::open(path).map_err(failed)?);
        for entry in archive.entries_with_seek().map_err(no_tar)? {
            let entry = entry.map_err(no_tar)?;
            if entry.header().entry_type().is_file() {
                let name = entry.path().map_err(no_tar)?;
                let name = name.strip_prefix("./").map_or_else(|_| name.to_path_buf(), Path::to_owned);
                entries.insert(name, (entry.raw_file_position(), entry.size()));
            }
        }
        if !entries.contains_key(Path::new("oci-layout")) {
            return Err(ImageError::Layout(path.to_owned(), "there is no entry `oci-layout` in it".to_owned()));
        }
        Ok(Self::Archive(path.to_owned(), entries))
    }

    /// The index of the layout.
    pub fn index(&self) -> Result<Vec<u8>, ImageError> {
        let missing = || ImageError::Layout(self.path().to_owned(), "there is no `index.json` in it".to_owned());
        let reader = self.open_entry(Path::new("index.json"))?.ok_or_else(missing)?;
        self.read(reader)
    }

    /// A small blob as a whole; its digest is checked by the caller.
    pub fn document(&self, digest: &str) -> Result<Vec<u8>, ImageError> {
        self.read(self.open(digest)?)
    }

    /// A blob as a stream; its digest is checked by the caller.
    pub fn open(&self, digest: &str) -> Result<Box<dyn Read>, ImageError> {
        let missing = || ImageError::MissingBlob(digest.to_owned());
        let (algorithm, hex) = digest.split_once(':').ok_or_else(missing)?;
        let sound = algorithm == "sha256" && hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit());
        if !sound {
            return Err(missing());
        }
        self.open_entry(&Path::new("blobs").join(algorithm).join(hex))?.ok_or_else(missing)
    }

    fn open_entry(&self, name: &Path) -> Result<Option<Box<dyn Read>>, ImageError> {
        let failed = |error| ImageError::Read(self.path().to_owned(), error);
        match self {
            Self::Folder(path) => match File::open(path.join(name)) {
                Ok(file) => Ok(Some(Box::new(file))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(ImageError::Read(path.join(name), error)),
            },
            Self::Archive(path, entries) => {
                let Some((offset, length)) = entries.get(name) else { return Ok(None) };
                let mut file = File::open(path).map_err(failed)?;
                file.seek(SeekFrom::Start(*offset)).map_err(failed)?;
                Ok(Some(Box::new(file.take(*length))))
            }
        }
    }

    fn read(&self, reader: Box<dyn Read>) -> Result<Vec<u8>, ImageError> {
        let mut content = Vec::new();
        let read = reader.take(MAX_DOCUMENT).read_to_end(&mut content);
        read.map_err(|error| ImageError::Read(self.path().to_owned(), error))?;
        Ok(content)
    }

    fn path(&self) -> &Path {
        match self {
            Self::Folder(path) | Self::Archive(path, _) => path,
        }
    }
}
