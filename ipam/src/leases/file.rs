//! Leases as files: `<root>/{ipleases,macleases}/<segment>.<hex>.json`, one object each.
//!
//! Invariants: a file appears complete (written under another name, then linked: `link(2)` fails where the name is taken,
//! so the end of the process leaves the whole lease or none) and changes by rename. That of a VM is synced before anybody
//! is told of its address ([`LeaseStore::keep`]); that of a plain pod, whose sandbox a power cut ends, is not, for that
//! would take the time of an ADD. So a power cut may leave a file without its content, whose address nobody has by then.
//! One process at a time holds the folder's lock. Any other file that cannot be read is a taken address.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::{BoxFuture, FutureExt};
use holdfast_api::lease::Claim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::core::ObjectMeta;
use nix::fcntl::{Flock, FlockArg};
use serde_json::Value;

use super::table::{Key, Table};
use super::{Lease, LeaseError, LeaseKind, LeaseStore};
use crate::disk::{here, is_without_content};

/// How many leases can be written at once.
const WRITERS: usize = 32;

/// A folder of leases.
#[derive(Clone, Debug)]
pub struct FileStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    /// Never held while the disk is waited for: every allocation looks here.
    leases: Mutex<Table>,
    /// Held by who changes or deletes a lease, from the look at it to the end; which one follows from its key.
    writers: [Mutex<()>; WRITERS],
    /// Last resourceVersion that was given out.
    version: AtomicU64,
    /// Held for as long as the store is.
    _lock: Flock<File>,
}

/// Why a folder of leases cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder cannot be made or read.
    #[error("failed to open leases in `{}`", .path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process has it.
    #[error("leases in `{}` are in use by another process", .0.display())]
    Locked(PathBuf),
}

impl FileStore {
    /// Opens the folder `root` (STATE/leases), making it where it is missing.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(root: &Path) -> Result<Self, OpenError> {
        let failed = |path: &Path, source| OpenError::Io { path: path.to_owned(), source };
        for kind in [LeaseKind::Ip, LeaseKind::Mac] {
            let folder = root.join(kind.plural());
            fs::create_dir_all(&folder).map_err(|error| failed(&folder, error))?;
        }
        let path = root.join(".lock");
        let file = File::create(&path).map_err(|error| failed(&path, error))?;
        let lock =
            Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| OpenError::Locked(root.to_owned()))?;
        let mut leases = Table::default();
        for kind in [LeaseKind::Ip, LeaseKind::Mac] {
            load(root, kind, &mut leases).map_err(|error| failed(root, error))?;
        }
        let version = leases.values().filter_map(version).max().unwrap_or_default();
        Ok(Self {
            inner: Arc::new(Inner {
                root: root.to_owned(),
                leases: Mutex::new(leases),
                writers: Default::default(),
                version: version.into(),
                _lock: lock,
            }),
        })
    }
}

fn load(root: &Path, kind: LeaseKind, leases: &mut Table) -> io::Result<()> {
    for entry in fs::read_dir(root.join(kind.plural()))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with('.') {
            // What a crash left of a file on its way in.
            fs::remove_file(&path)?;
        } else if let Some(name) = name.strip_suffix(".json") {
            match fs::read(&path)
                .and_then(|bytes| (!is_without_content(&bytes)).then(|| decode(kind, &bytes)).transpose())
            {
                Ok(Some(lease)) => leases.insert((kind, name.to_owned()), lease),
                Ok(None) => fs::remove_file(&path)?,
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "a lease cannot be read: its address stays taken")
                }
            }
        }
    }
    Ok(())
}

fn decode(kind: LeaseKind, bytes: &[u8]) -> io::Result<Lease> {
    Ok(match kind {
        LeaseKind::Ip => Lease::Ip(serde_json::from_slice(bytes)?),
        LeaseKind::Mac => Lease::Mac(serde_json::from_slice(bytes)?),
    })
}

fn encode(lease: &Lease) -> io::Result<Vec<u8>> {
    let value: Value = match lease {
        Lease::Ip(lease) => serde_json::to_value(lease)?,
        Lease::Mac(lease) => serde_json::to_value(lease)?,
    };
    Ok(serde_json::to_vec_pretty(&value)?)
}

fn version(lease: &Lease) -> Option<u64> {
    lease.metadata().resource_version.as_ref()?.parse().ok()
}

fn metadata_mut(lease: &mut Lease) -> &mut ObjectMeta {
    match lease {
        Lease::Ip(lease) => &mut lease.metadata,
        Lease::Mac(lease) => &mut lease.metadata,
    }
}

impl Inner {
    /// Keeps others from writing this lease.
    fn writer(&self, key: &Key) -> MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let which = usize::try_from(hasher.finish() % WRITERS as u64).unwrap_or_default();
        // It guards no data that a panic could have left half done.
        self.writers[which].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leases(&self) -> MutexGuard<'_, Table> {
        // Each critical section leaves it whole, so a panic elsewhere does not spoil it.
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_version(&self) -> String {
        (self.version.fetch_add(1, Ordering::Relaxed) + 1).to_string()
    }

    fn folder(&self, kind: LeaseKind) -> PathBuf {
        self.root.join(kind.plural())
    }

    fn path(&self, lease: &Lease) -> PathBuf {
        self.folder(lease.kind()).join(format!("{}.json", lease.name()))
    }

    /// Writes `lease` under a name of its own.
    fn stage(&self, lease: &Lease) -> io::Result<(PathBuf, File)> {
        let path = self.folder(lease.kind()).join(format!(".{}", uuid::Uuid::new_v4().simple()));
        let mut file = File::create_new(&path)?;
        if let Err(error) = encode(lease).and_then(|bytes| file.write_all(&bytes)) {
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        Ok((path, file))
    }

    /// Puts `lease` in the place of what is there. Synced before and after where a power cut does not end its claim: in its
    /// place is one that somebody was told of.
    fn replace(&self, lease: &Lease) -> io::Result<()> {
        let (staged, file) = self.stage(lease)?;
        if lasts(lease) {
            file.sync_all()?;
        }
        fs::rename(staged, self.path(lease))?;
        if lasts(lease) { self.sync_folder(lease.kind()) } else { Ok(()) }
    }

    fn keep(&self, leases: &[Lease]) -> Result<(), LeaseError> {
        let mut kinds = BTreeSet::new();
        for lease in leases {
            kinds.insert(lease.kind());
            let synced = File::open(self.path(lease)).and_then(|file| file.sync_all());
            synced.map_err(|error| failed("keep", lease, error))?;
        }
        for kind in kinds {
            // The one file system's journal was written for the files: this finds it done.
            self.sync_folder(kind).map_err(|error| LeaseError::Store {
                verb: "keep",
                kind,
                name: "all".to_owned(),
                source: Box::new(error),
            })?;
        }
        Ok(())
    }

    fn sync_folder(&self, kind: LeaseKind) -> io::Result<()> {
        File::open(self.folder(kind))?.sync_all()
    }

    fn create(&self, mut lease: Lease) -> Result<Lease, LeaseError> {
        let key = (lease.kind(), lease.name().to_owned());
        // Most candidates of a full pool are known to be taken: no need to ask the disk.
        if let Some(present) = self.leases().get(&key) {
            return Err(LeaseError::Exists(Box::new(present.clone())));
        }
        let metadata = metadata_mut(&mut lease);
        metadata.uid = Some(uuid::Uuid::new_v4().to_string());
        metadata.resource_version = Some(self.next_version());
        metadata.creation_timestamp =
            Some(Time(Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default()));
        let (staged, _) = self.stage(&lease).map_err(|error| failed("create", &lease, error))?;
        let linked = {
            // Under the lock, so that whoever finds the name taken finds the lease in memory as well.
            let mut leases = self.leases();
            let linked = fs::hard_link(&staged, self.path(&lease));
            match (&linked, leases.get(&key)) {
                (Ok(()), _) => leases.insert(key, lease.clone()),
                (Err(_), Some(present)) => {
                    let _ = fs::remove_file(&staged);
                    return Err(LeaseError::Exists(Box::new(present.clone())));
                }
                (Err(_), None) => {}
            }
            linked
        };
        let _ = fs::remove_file(&staged);
        linked.map_err(|error| failed("create", &lease, error))?;
        Ok(lease)
    }

    fn update_status(&self, mut lease: Lease) -> Result<Lease, LeaseError> {
        let key = (lease.kind(), lease.name().to_owned());
        let _writer = self.writer(&key);
        let present = self.leases().get(&key).filter(|present| same(present, &lease)).cloned();
        // The status alone is written: metadata and spec are those that are stored.
        let mut stored = present.ok_or_else(|| changed(&lease))?;
        match (&mut stored, &mut lease) {
            (Lease::Ip(stored), Lease::Ip(lease)) => stored.status = lease.status.take(),
            (Lease::Mac(stored), Lease::Mac(lease)) => stored.status = lease.status.take(),
            _ => return Err(changed(&lease)),
        }
        metadata_mut(&mut stored).resource_version = Some(self.next_version());
        self.replace(&stored).map_err(|error| failed("update", &stored, error))?;
        self.leases().insert(key, stored.clone());
        Ok(stored)
    }

    fn delete(&self, lease: &Lease) -> Result<(), LeaseError> {
        let key = (lease.kind(), lease.name().to_owned());
        let _writer = self.writer(&key);
        match self.leases().get(&key) {
            None => return Ok(()),
            Some(present) if !same(present, lease) => return Err(changed(lease)),
            Some(_) => {}
        }
        let sync = || if lasts(lease) { self.sync_folder(lease.kind()) } else { Ok(()) };
        let removed = fs::remove_file(self.path(lease)).and_then(|()| sync());
        removed.map_err(|error| failed("delete", lease, error))?;
        self.leases().remove(&key);
        Ok(())
    }
}

/// Whether a lease's claim outlives a power cut. A plain pod does not: started anew it is another sandbox, and asks anew.
fn lasts(lease: &Lease) -> bool {
    lease.claim().kind != "Pod"
}

fn same(present: &Lease, lease: &Lease) -> bool {
    present.uid() == lease.uid() && present.metadata().resource_version == lease.metadata().resource_version
}

fn changed(lease: &Lease) -> LeaseError {
    LeaseError::Changed { kind: lease.kind(), name: lease.name().to_owned() }
}

fn failed(verb: &'static str, lease: &Lease, source: io::Error) -> LeaseError {
    LeaseError::Store { verb, kind: lease.kind(), name: lease.name().to_owned(), source: Box::new(source) }
}

impl LeaseStore for FileStore {
    fn create(&self, lease: Lease) -> BoxFuture<'_, Result<Lease, LeaseError>> {
        async move { here(|| self.inner.create(lease)) }.boxed()
    }

    fn get<'a>(&'a self, kind: LeaseKind, name: &'a str) -> BoxFuture<'a, Result<Option<Lease>, LeaseError>> {
        let lease = self.inner.leases().get(&(kind, name.to_owned())).cloned();
        std::future::ready(Ok(lease)).boxed()
    }

    fn list(&self, kind: LeaseKind) -> BoxFuture<'_, Result<Vec<Lease>, LeaseError>> {
        let leases = self.inner.leases().values().filter(|lease| lease.kind() == kind).cloned().collect();
        std::future::ready(Ok(leases)).boxed()
    }

    fn held<'a>(
        &'a self,
        kind: LeaseKind,
        segment: &'a str,
        claim: &'a Claim,
    ) -> BoxFuture<'a, Result<Vec<Lease>, LeaseError>> {
        let mine = |lease: &&Lease| lease.kind() == kind && lease.segment() == segment;
        let leases = self.inner.leases().of(claim).filter(mine).cloned().collect();
        std::future::ready(Ok(leases)).boxed()
    }

    fn keep(&self, leases: Vec<Lease>) -> BoxFuture<'_, Result<(), LeaseError>> {
        async move { here(|| self.inner.keep(&leases)) }.boxed()
    }

    fn update_status(&self, lease: Lease) -> BoxFuture<'_, Result<Lease, LeaseError>> {
        async move { here(|| self.inner.update_status(lease)) }.boxed()
    }

    fn delete(&self, lease: Lease) -> BoxFuture<'_, Result<(), LeaseError>> {
        async move { here(|| self.inner.delete(&lease)) }.boxed()
    }
}
