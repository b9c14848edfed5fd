//! Taking one file out of an image's layers, as an overlay of them would show it.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use oci_spec::image::Descriptor;
use sha2::{Digest, Sha256};

use super::ImageError;
use super::blobs::Blobs;

/// Folder of an image in which its disk is.
const DISK_FOLDER: &str = "disk";
/// Size of the pieces that are copied; a piece of zeros becomes a hole.
const PIECE: usize = 64 << 10;

/// Unpacks the disk of an image into `folder` and returns its path in the image and the file. `path` names the
/// disk; without it the one file directly under /disk is meant.
pub fn extract(
    blobs: &Blobs,
    layers: &[Descriptor],
    path: Option<&str>,
    folder: &Path,
) -> Result<(String, PathBuf), ImageError> {
    let wanted = path.map(|path| normal(Path::new(path)));
    let mut files: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
    for (number, layer) in layers.iter().enumerate() {
        let digest = layer.digest().to_string();
        let mut verified = Verified { inner: blobs.open(&digest)?, hash: Sha256::new() };
        let unpacked = unpack(&mut verified, wanted.as_deref(), &folder.join(number.to_string()), &mut files)
            .map_err(|error| ImageError::Unpack(digest.clone(), error));
        // A wrong digest explains every other error.
        let found = verified.finish().map_err(|error| ImageError::Unpack(digest.clone(), error))?;
        if found != digest {
            return Err(ImageError::Digest { expected: digest, found });
        }
        unpacked?;
    }
    let place = wanted.as_deref().map_or_else(|| format!("/{DISK_FOLDER}"), |path| format!("/{}", path.display()));
    match files.len() {
        0 => Err(ImageError::NoDisk(place)),
        1 => files
            .pop_first()
            .map(|(name, file)| (format!("/{}", name.display()), file))
            .ok_or(ImageError::NoDisk(place)),
        _ => Err(ImageError::SeveralDisks(files.keys().map(|name| format!("/{}", name.display())).collect())),
    }
}

/// Reads one layer. Files of lower layers that it replaces or removes go from `files`.
fn unpack(
    reader: &mut impl Read,
    wanted: Option<&Path>,
    prefix: &Path,
    files: &mut BTreeMap<PathBuf, PathBuf>,
) -> io::Result<()> {
    let mut own = BTreeMap::new();
    let mut archive = tar::Archive::new(decompressed(reader)?);
    // The tar reader's own words quote what it reads.
    let no_tar = |error: io::Error| io::Error::new(error.kind(), "it is not a tar archive, or a damaged one");
    for (number, entry) in archive.entries().map_err(no_tar)?.enumerate() {
        let mut entry = entry.map_err(no_tar)?;
        let path = normal(&entry.path().map_err(no_tar)?);
        if let Some(hidden) = whiteout(&path) {
            files.retain(|name, _| !hidden.hides(name));
            continue;
        }
        let kind = entry.header().entry_type();
        if kind.is_dir() {
            continue;
        }
        // A file hides what lower layers have at its place and below it.
        files.retain(|name, _| !name.starts_with(&path));
        let matches = match wanted {
            Some(wanted) => path == wanted,
            None => path.parent() == Some(Path::new(DISK_FOLDER)),
        };
        if !matches {
            continue;
        }
        if !kind.is_file() && !kind.is_gnu_sparse() {
            let message = format!("/{} is no regular file", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        let mut name = prefix.as_os_str().to_owned();
        name.push(format!("-{number}"));
        let target = PathBuf::from(name);
        copy_sparse(&mut entry, &target)?;
        own.insert(path, target);
    }
    files.extend(own);
    Ok(())
}

/// What a whiteout entry removes from the layers below.
enum Whiteout {
    /// One name, and what is below it.
    Name(PathBuf),
    /// Everything in a folder.
    Folder(PathBuf),
}

impl Whiteout {
    fn hides(&self, path: &Path) -> bool {
        match self {
            Self::Name(name) => path.starts_with(name),
            Self::Folder(folder) => path.starts_with(folder) && path != folder,
        }
    }
}

fn whiteout(path: &Path) -> Option<Whiteout> {
    let name = path.file_name()?.to_str()?;
    let folder = path.parent()?;
    match name.strip_prefix(".wh.")? {
        ".wh..opq" => Some(Whiteout::Folder(folder.to_owned())),
        hidden => Some(Whiteout::Name(folder.join(hidden))),
    }
}

/// A path without its root, `.` and `..`: nothing that an archive says leads anywhere else.
fn normal(path: &Path) -> PathBuf {
    path.components().filter(|c| matches!(c, Component::Normal(_))).collect()
}

/// The content of a stream that may be compressed; told by its first bytes, for media types lie.
fn decompressed<'a>(reader: &'a mut impl Read) -> io::Result<Box<dyn Read + 'a>> {
    let mut buffered = BufReader::new(reader);
    let start = buffered.fill_buf()?;
    if start.starts_with(&[0x1f, 0x8b]) {
        Ok(Box::new(flate2::bufread::MultiGzDecoder::new(buffered)))
    } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Ok(Box::new(zstd::Decoder::with_buffer(buffered)?))
    } else {
        Ok(Box::new(buffered))
    }
}

fn copy_sparse(from: &mut impl Read, path: &Path) -> io::Result<()> {
    let mut to = OpenOptions::new().write(true).create(true).truncate(true).mode(0o444).open(path)?;
    let mut piece = vec![0; PIECE];
    let mut length = 0_u64;
    loop {
        let filled = fill(from, &mut piece)?;
        if filled == 0 {
            break;
        }
        length += filled as u64;
        if piece[..filled].iter().all(|byte| *byte == 0) {
            to.seek(SeekFrom::Start(length))?;
        } else {
            to.write_all(&piece[..filled])?;
        }
    }
    to.set_len(length)?;
    to.sync_all()
}

fn fill(from: &mut impl Read, piece: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < piece.len() {
        match from.read(&mut piece[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// A stream that knows the digest of all that was read from it.
struct Verified<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}

impl<R: Read> Verified<R> {
    /// Reads to the end and returns the digest of everything.
    fn finish(mut self) -> io::Result<String> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(format!("sha256:{}", hex::encode(self.hash.finalize())))
    }
}

/// Opens a file for reading, for the caller that looks at what was extracted.
pub fn open(path: &Path) -> Result<File, ImageError> {
    File::open(path).map_err(|error| ImageError::Read(path.to_owned(), error))
}
