//! Debian packages as material: apt decides which are needed and checks what it fetches, nothing is installed.
//!
//! Invariant: which packages an image is made of is written down when apt is first asked, and stays so until it is
//! asked anew; so an image that is built again is the same.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sha2::{Digest as _, Sha256};

use crate::process::Program;

/// The packages of an image: names of their files, in apt's order, each with its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock(Vec<Locked>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Locked {
    file: String,
    hash: String,
}

/// A package whose content lies in a folder.
pub struct Unpacked {
    /// Its name.
    pub name: String,
    /// Its control file.
    pub control: String,
    /// What it would install, below this folder.
    pub folder: PathBuf,
}

impl Lock {
    /// As it is written down: a line for each package.
    pub fn text(&self) -> String {
        self.0.iter().map(|locked| format!("{}  {}\n", locked.hash, locked.file)).collect()
    }

    fn parse(text: &str) -> Option<Self> {
        let line = |line: &str| {
            let (hash, file) = line.split_once("  ")?;
            Some(Locked { file: file.to_owned(), hash: hash.to_owned() })
        };
        text.lines().map(line).collect::<Option<_>>().map(Self).filter(|lock| !lock.0.is_empty())
    }
}

/// The packages written down in `file`, or where there are none (or `fresh` ones are wanted) those that apt names now:
/// `names` with all that they depend on, fetched into `cache`.
pub fn lock(file: &Path, names: &[String], cache: &Path, fresh: bool) -> Result<Lock> {
    let known = if fresh { None } else { fs::read_to_string(file).ok().as_deref().and_then(Lock::parse) };
    if let Some(lock) = known.filter(|lock| lock.0.iter().all(|locked| cache.join(&locked.file).exists())) {
        return Ok(lock);
    }
    fs::create_dir_all(cache.join("partial")).with_context(|| format!("failed to make {}", cache.display()))?;
    let files = match resolve(names) {
        Ok(files) if !fresh => files,
        // A fresh machine has no lists of packages, or old ones.
        _ => {
            apt(Path::new("/dev/null")).args(["update"]).output().context("failed to update the lists of packages")?;
            resolve(names)?
        }
    };
    apt(cache)
        .args(["install", "-y", "--download-only"])
        .args(names)
        .output()
        .with_context(|| format!("failed to fetch {}", names.join(" ")))?;
    let locked = |file: String| {
        let path = cache.join(&file);
        let bytes = fs::read(&path).with_context(|| format!("failed to read {}", path.display()))?;
        Ok(Locked { file, hash: hex::encode(Sha256::digest(bytes)) })
    };
    let lock = Lock(files.into_iter().map(locked).collect::<Result<_>>()?);
    fs::write(file, lock.text()).with_context(|| format!("failed to write {}", file.display()))?;
    Ok(lock)
}

/// Unpacks the packages of `lock` below `folder`, each into one of its own.
pub fn unpack(lock: &Lock, cache: &Path, folder: &Path) -> Result<Vec<Unpacked>> {
    fs::create_dir_all(folder).with_context(|| format!("failed to make {}", folder.display()))?;
    let one = |locked: &Locked| {
        let archive = cache.join(&locked.file);
        let dpkg = |option: &str| Program::new("dpkg-deb").arg(option).arg(&archive).deadline(Duration::from_secs(120));
        let unpacked = |what| move || format!("failed to {what} {}", locked.file);
        let name = locked.file.split('_').next().unwrap_or(&locked.file).to_owned();
        let folder = folder.join(&name);
        let control = dpkg("-f").output().with_context(unpacked("read"))?;
        dpkg("-x").arg(&folder).output().with_context(unpacked("unpack"))?;
        Ok(Unpacked { name, control, folder })
    };
    lock.0.iter().map(one).collect()
}

/// The files of all packages that are needed on a machine that has none.
fn resolve(names: &[String]) -> Result<Vec<String>> {
    let text = apt(Path::new("/dev/null"))
        .args(["install", "-y", "--print-uris"])
        .args(names)
        .output()
        .with_context(|| format!("apt does not know all of {}", names.join(" ")))?;
    let files: Vec<String> = text.lines().filter_map(archive_of).map(str::to_owned).collect();
    if files.is_empty() {
        bail!("apt names no file for {}", names.join(" "));
    }
    Ok(files)
}

/// The name of the file in a line of `--print-uris`: `'<address>' <file> <size> <hash>`.
fn archive_of(line: &str) -> Option<&str> {
    line.starts_with('\'').then(|| line.split(' ').nth(1)).flatten().filter(|file| file.ends_with(".deb"))
}

/// apt-get, for a machine without any package, whose cache of packages is `cache`.
fn apt(cache: &Path) -> Program {
    Program::new("apt-get")
        .args(["-q", "-o", "Dir::State::status=/dev/null", "-o", "APT::Install-Recommends=false"])
        // As root, apt would drop to the user `_apt`, who may not write to the cache.
        .args(["-o", "APT::Sandbox::User=root", "-o", "Debug::NoLocking=true", "-o", "Acquire::Retries=3"])
        .args(["-o", &format!("Dir::Cache::archives={}", cache.display())])
        .env("LC_ALL", "C")
        .deadline(Duration::from_secs(600))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_apt_would_fetch() {
        let line =
            "'http://deb.debian.org/debian/pool/q/qemu_7.2%2bdfsg_amd64.deb' qemu_1%3a7.2_amd64.deb 12 SHA256:ab";
        assert_eq!(archive_of(line), Some("qemu_1%3a7.2_amd64.deb"));
        assert_eq!(archive_of("Reading package lists..."), None);
    }

    #[test]
    fn a_lock_is_read_back_whole_or_not_at_all() {
        let lock = Lock(vec![
            Locked { file: "a_1_all.deb".into(), hash: "0a".into() },
            Locked { file: "b_2_amd64.deb".into(), hash: "0b".into() },
        ]);
        assert_eq!(Lock::parse(&lock.text()), Some(lock));
        assert_eq!(Lock::parse(""), None);
        assert_eq!(Lock::parse("half a line"), None);
    }
}
