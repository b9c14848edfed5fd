//! The disks that are on this host: STATE/images/DIGEST/disk, and which reference meant which of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::task::spawn_blocking;
use uuid::Uuid;

use super::blobs::Blobs;
use super::format::{DiskFormat, inspect};
use super::layers::extract;
use super::manifest::{Image, find};
use super::reference::{Location, parse};
use super::registry::Remote;
use super::{Credentials, ImageError};
use crate::store::write_atomically;

/// Beginning of the names of folders in which something is being unpacked.
const WORK: &str = "work-";

/// What a containerDisk volume asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// `image`.
    pub image: String,
    /// `path`.
    pub path: Option<String>,
    /// `imagePullPolicy`, as defaulted.
    pub policy: String,
    /// For the registry, where a pull secret has some.
    pub credentials: Option<Credentials>,
}

/// A disk that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskImage {
    /// The file; read-only, and gone once no VM needs it.
    pub file: PathBuf,
    /// Digest of the image's manifest, without `sha256:`.
    pub digest: String,
    /// What it is.
    pub format: DiskFormat,
    /// Whether it had to be unpacked (and not only found).
    pub fresh: bool,
}

/// What is known of a reference: written when it was last resolved.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Known {
    reference: String,
    digest: String,
}

/// The images of this host; cloning it is cheap.
#[derive(Clone)]
pub struct Images {
    folder: PathBuf,
    /// One lock per reference, so that two VMs do not unpack the same image at the same time.
    locks: Arc<Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>>,
}

impl Images {
    /// Opens the cache in a folder, which is made where it is missing; what a crash left half done goes.
    pub fn open(folder: &Path) -> Result<Self, ImageError> {
        let failed = |error| ImageError::Cache(folder.to_owned(), error);
        fs::create_dir_all(folder.join("refs")).map_err(failed)?;
        for entry in fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_name().to_string_lossy().starts_with(WORK) {
                fs::remove_dir_all(entry.path()).map_err(failed)?;
            }
        }
        Ok(Self { folder: folder.to_owned(), locks: Arc::default() })
    }

    /// Makes the disk of an image be there.
    pub async fn ensure(&self, wanted: &Wanted) -> Result<DiskImage, ImageError> {
        let location = parse(&wanted.image)?;
        let lock = Arc::clone(
            self.locks.lock().unwrap_or_else(PoisonError::into_inner).entry(wanted.image.clone()).or_default(),
        );
        let _held = lock.lock().await;
        match location {
            Location::Folder(path, tag) => self.local(wanted, tag, move || Blobs::folder(&path)).await,
            Location::Archive(path, tag) => self.local(wanted, tag, move || Blobs::archive(&path)).await,
            Location::Registry(reference) => self.remote(wanted, &reference).await,
        }
    }

    /// A layout of this host is looked at each time: what is there counts, whatever the policy.
    async fn local(
        &self,
        wanted: &Wanted,
        tag: Option<String>,
        open: impl FnOnce() -> Result<Blobs, ImageError> + Send + 'static,
    ) -> Result<DiskImage, ImageError> {
        let (images, wanted) = (self.clone(), wanted.clone());
        blocking(move || {
            let blobs = open()?;
            let image = find(&blobs, tag.as_deref())?;
            images.unpack(&wanted, &blobs, &image)
        })
        .await
    }

    async fn remote(&self, wanted: &Wanted, reference: &oci_client::Reference) -> Result<DiskImage, ImageError> {
        if wanted.policy != "Always"
            && let Some(known) = self.known(&wanted.image)
            && let Some(disk) = self.cached(&known.digest, wanted.path.as_deref())?
        {
            return Ok(disk);
        }
        if wanted.policy == "Never" {
            return Err(ImageError::NeverPull(wanted.image.clone()));
        }
        let remote = Remote::resolve(reference, wanted.credentials.as_ref()).await?;
        let digest = remote.digest.trim_start_matches("sha256:").to_owned();
        if let Some(disk) = self.cached(&digest, wanted.path.as_deref())? {
            self.remember(&wanted.image, &digest)?;
            return Ok(disk);
        }
        let work = Work::new(&self.folder)?;
        remote.fetch(&work.0).await?;
        let (images, wanted) = (self.clone(), wanted.clone());
        blocking(move || {
            let blobs = Blobs::folder(&work.0)?;
            let image = find(&blobs, None)?;
            images.unpack(&wanted, &blobs, &image)
        })
        .await
    }

    fn unpack(&self, wanted: &Wanted, blobs: &Blobs, image: &Image) -> Result<DiskImage, ImageError> {
        let path = wanted.path.as_deref();
        let digest = image.digest.trim_start_matches("sha256:").to_owned();
        if let Some(disk) = self.cached(&digest, path)? {
            self.remember(&wanted.image, &digest)?;
            return Ok(disk);
        }
        let work = Work::new(&self.folder)?;
        let (name, file) = extract(blobs, image.manifest.layers(), path, &work.0)?;
        let format = inspect(&name, &file)?;
        let target = self.file(&digest, path);
        let failed = |error| ImageError::Cache(self.folder.clone(), error);
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        fs::rename(&file, &target).map_err(failed)?;
        self.remember(&wanted.image, &digest)?;
        Ok(DiskImage { file: target, digest, format, fresh: true })
    }

    fn cached(&self, digest: &str, path: Option<&str>) -> Result<Option<DiskImage>, ImageError> {
        let file = self.file(digest, path);
        if !file.is_file() {
            return Ok(None);
        }
        let format = inspect("disk", &file)?;
        Ok(Some(DiskImage { file, digest: digest.to_owned(), format, fresh: false }))
    }

    fn file(&self, digest: &str, path: Option<&str>) -> PathBuf {
        let name = path.map_or_else(|| "disk".to_owned(), |path| format!("disk-{}", &hash(path)[..16]));
        self.folder.join(digest).join(name)
    }

    fn reference_file(&self, reference: &str) -> PathBuf {
        self.folder.join("refs").join(format!("{}.json", hash(reference)))
    }

    fn known(&self, reference: &str) -> Option<Known> {
        serde_json::from_slice(&fs::read(self.reference_file(reference)).ok()?).ok()
    }

    fn remember(&self, reference: &str, digest: &str) -> Result<(), ImageError> {
        let path = self.reference_file(reference);
        let known = Known { reference: reference.to_owned(), digest: digest.to_owned() };
        let written = serde_json::to_vec(&known).map_err(io::Error::from);
        written.and_then(|content| write_atomically(&path, &content)).map_err(|error| ImageError::Cache(path, error))
    }

    /// Removes each image that is neither in `references` (the images that manifests name) nor in `digests` (those
    /// that sandboxes use), and is not being unpacked.
    pub fn retain(&self, references: &BTreeSet<String>, digests: &BTreeSet<String>) -> Result<(), ImageError> {
        let failed = |error| ImageError::Cache(self.folder.clone(), error);
        let mut kept = digests.clone();
        for entry in fs::read_dir(self.folder.join("refs")).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let known: Option<Known> = fs::read(&path).ok().and_then(|content| serde_json::from_slice(&content).ok());
            match known {
                Some(known) if references.contains(&known.reference) => drop(kept.insert(known.digest)),
                _ => fs::remove_file(&path).map_err(failed)?,
            }
        }
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name != "refs" && !name.starts_with(WORK) && !kept.contains(&name) {
                fs::remove_dir_all(entry.path()).map_err(failed)?;
            }
        }
        Ok(())
    }
}

/// A folder for unpacking that goes when it is not needed any more.
struct Work(PathBuf);

impl Work {
    fn new(folder: &Path) -> Result<Self, ImageError> {
        let path = folder.join(format!("{WORK}{}", Uuid::new_v4().simple()));
        fs::create_dir_all(&path).map_err(|error| ImageError::Cache(path.clone(), error))?;
        Ok(Self(path))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // What stays is removed at the next start.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn hash(text: &str) -> String {
    hex::encode(Sha256::digest(text))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    match spawn_blocking(work).await {
        Ok(result) => result,
        Err(panic) => Err(ImageError::Cache(PathBuf::new(), io::Error::other(panic))),
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
