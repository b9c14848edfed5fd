//! Unpacked packages as the one tree that they would be on a machine, without a copy of it.
//!
//! Paths are those of a machine whose /bin, /lib and /sbin are links into /usr, whichever of both a package uses.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::debian::Unpacked;

/// Top-level links of such a machine, and where they lead.
pub const USR_LINKS: [(&str, &str); 4] =
    [("bin", "usr/bin"), ("lib", "usr/lib"), ("lib64", "usr/lib64"), ("sbin", "usr/sbin")];

/// More links than this on the way to a file are a loop.
const LINKS: usize = 16;

/// The tree: each path with what is there. Keys are absolute and normal.
pub struct Merged<'a> {
    entries: BTreeMap<PathBuf, Entry<'a>>,
}

/// What is at a path.
pub struct Entry<'a> {
    /// The package that it is of.
    pub package: &'a Unpacked,
    /// What it is.
    pub kind: Kind,
}

/// A file or a link; folders are not kept: they follow from what is in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file, and where it lies unpacked.
    File(PathBuf),
    /// A link to this target, made absolute.
    Link(PathBuf),
}

impl<'a> Merged<'a> {
    /// The tree of these packages.
    pub fn new(packages: &'a [Unpacked]) -> Result<Self> {
        let mut entries = BTreeMap::new();
        for package in packages {
            let mut folders = vec![package.folder.clone()];
            while let Some(folder) = folders.pop() {
                let listed = fs::read_dir(&folder).with_context(|| format!("failed to list {}", folder.display()))?;
                for entry in listed {
                    let (source, kind) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))?;
                    if kind.is_dir() {
                        folders.push(source);
                        continue;
                    }
                    let path = in_usr(&Path::new("/").join(source.strip_prefix(&package.folder)?));
                    let kind = if kind.is_symlink() {
                        let target = fs::read_link(&source)?;
                        let parent = path.parent().unwrap_or(Path::new("/"));
                        Kind::Link(in_usr(&normal(&parent.join(target))))
                    } else {
                        Kind::File(source)
                    };
                    entries.insert(path, Entry { package, kind });
                }
            }
        }
        Ok(Self { entries })
    }

    /// What is exactly at this path.
    pub fn at(&self, path: &Path) -> Option<&Entry<'a>> {
        self.entries.get(path)
    }

    /// Where a path leads: itself or, where links are on the way, the path behind them.
    pub fn follow(&self, path: &Path) -> Result<Option<PathBuf>> {
        let mut path = in_usr(path);
        for _ in 0..LINKS {
            if matches!(self.entries.get(&path), Some(Entry { kind: Kind::File(_), .. })) {
                return Ok(Some(path));
            }
            let link = path.ancestors().find_map(|part| match self.entries.get(part) {
                Some(Entry { kind: Kind::Link(target), .. }) => Some((part.to_owned(), target.clone())),
                _ => None,
            });
            let Some((part, target)) = link else { return Ok(None) };
            path = normal(&target.join(path.strip_prefix(&part)?));
        }
        bail!("too many links on the way to {}", path.display())
    }

    /// Paths that match `pattern`: the path itself, all in the folder of that name, or with `*` for any part of a name.
    pub fn matching(&self, pattern: &str) -> Vec<PathBuf> {
        let pattern = Path::new(pattern);
        self.entries.keys().filter(|path| matches(pattern, path)).cloned().collect()
    }
}

/// Whether the pattern's names match the first names of a path.
fn matches(pattern: &Path, path: &Path) -> bool {
    let mut names = path.components();
    pattern.components().all(|wanted| {
        names.next().is_some_and(|name| {
            let (wanted, name) = (wanted.as_os_str().to_string_lossy(), name.as_os_str().to_string_lossy());
            match wanted.split_once('*') {
                None => wanted == name,
                Some((start, end)) => {
                    name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end)
                }
            }
        })
    })
}

/// The path with its first name replaced where that is one of [`USR_LINKS`].
pub fn in_usr(path: &Path) -> PathBuf {
    let moved = USR_LINKS.iter().find_map(|(name, target)| {
        let rest = path.strip_prefix(Path::new("/").join(name)).ok()?;
        Some(Path::new("/").join(target).join(rest))
    });
    // `join` of an empty rest would leave a slash at the end.
    moved.map_or_else(|| path.to_owned(), |path| path.components().collect())
}

/// The path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::ParentDir => {
                clean.pop();
            }
            Component::Normal(name) => clean.push(name),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_move_to_usr() {
        assert_eq!(in_usr(Path::new("/lib/x/y.so")), Path::new("/usr/lib/x/y.so"));
        assert_eq!(in_usr(Path::new("/lib64")), Path::new("/usr/lib64"));
        assert_eq!(in_usr(Path::new("/libexec/x")), Path::new("/libexec/x"));
        assert_eq!(normal(Path::new("/a/b/../../c/./d")), Path::new("/c/d"));
    }

    #[test]
    fn patterns_match_names_and_what_is_below() {
        let matches = |pattern: &str, path: &str| matches(Path::new(pattern), Path::new(path));
        assert!(matches("/a/b*.xml", "/a/bc.xml") && matches("/a", "/a/b/c") && matches("/a/b", "/a/b"));
        assert!(!matches("/a/b*.xml", "/a/c.xml") && !matches("/a/b", "/a/bc") && !matches("/a/b/c", "/a/b"));
        assert!(!matches("/a/xx*xx", "/a/xxx"), "one part of a name does not match twice");
    }

    #[test]
    fn links_are_followed_through_folders_and_packages() {
        let folder = tempfile::tempdir().unwrap();
        let package =
            |name: &str| Unpacked { name: name.to_owned(), control: String::new(), folder: folder.path().join(name) };
        let packages = [package("one"), package("two")];
        let (one, two) = (&packages[0].folder, &packages[1].folder);
        fs::create_dir_all(one.join("lib/x")).unwrap();
        fs::write(one.join("lib/x/a.so.1.2"), "").unwrap();
        std::os::unix::fs::symlink("a.so.1.2", one.join("lib/x/a.so.1")).unwrap();
        fs::create_dir_all(two.join("usr/share/doc")).unwrap();
        std::os::unix::fs::symlink("../../lib/x", two.join("usr/share/doc/two")).unwrap();
        std::os::unix::fs::symlink("loop", two.join("usr/share/loop")).unwrap();
        let merged = Merged::new(&packages).unwrap();
        let behind = Some(PathBuf::from("/usr/lib/x/a.so.1.2"));
        assert_eq!(merged.follow(Path::new("/lib/x/a.so.1")).unwrap(), behind);
        assert_eq!(merged.follow(Path::new("/usr/share/doc/two/a.so.1")).unwrap(), behind);
        assert_eq!(merged.follow(Path::new("/usr/share/doc/two/b")).unwrap(), None);
        assert!(merged.follow(Path::new("/usr/share/loop")).is_err());
    }
}
