//! The part of an image that is Debian's: what its `system.toml` names, the libraries that this and our programs are
//! linked to, and for each package that something is taken of its copyright file and its record, where scanners look.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::debian::Unpacked;
use super::linked;
use super::merged::{Kind, Merged, USR_LINKS, in_usr};

/// Where libraries lie that are looked up by name.
const LIBRARIES: [&str; 2] = ["/usr/lib/x86_64-linux-gnu", "/usr/lib"];

/// A `system.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct System {
    /// Packages to take from.
    pub packages: Vec<String>,
    /// What to take: paths, with `*` for any part of a name.
    paths: Vec<String>,
    /// Empty folders.
    folders: Vec<String>,
}

/// Reads a `system.toml`.
pub fn read(file: &Path) -> Result<System> {
    let text = fs::read_to_string(file).with_context(|| format!("failed to read {}", file.display()))?;
    toml::from_str(&text).with_context(|| format!("failed to parse {}", file.display()))
}

/// Writes the tree to `root`, which is not there yet. `files` is a folder of more files, `programs` what else runs in it.
pub fn write(system: &System, packages: &[Unpacked], files: &Path, programs: &[PathBuf], root: &Path) -> Result<()> {
    let merged = Merged::new(packages)?;
    let taken = closure(&merged, pick(&merged, &system.paths)?, programs)?;
    let make =
        |folder: &Path| fs::create_dir_all(folder).with_context(|| format!("failed to make {}", folder.display()));
    for folder in &system.folders {
        make(&inside(root, Path::new(folder)))?;
    }
    for (name, target) in USR_LINKS {
        make(&root.join(target))?;
        symlink(target, root.join(name)).with_context(|| format!("failed to link {name}"))?;
    }
    make(&root.join("var"))?;
    symlink("/run", root.join("var/run")).context("failed to link /var/run")?;
    let mut used = BTreeSet::new();
    for path in &taken {
        let Some(entry) = merged.at(path) else { continue };
        used.insert(entry.package.name.as_str());
        let target = inside(root, path);
        make(target.parent().unwrap_or(root))?;
        match &entry.kind {
            Kind::Link(to) => symlink(to, &target),
            Kind::File(source) => fs::copy(source, &target).map(drop),
        }
        .with_context(|| format!("failed to write {}", target.display()))?;
    }
    for package in packages.iter().filter(|package| used.contains(package.name.as_str())) {
        origin(&merged, package, root)?;
    }
    copy(files, root)?;
    let temporary = ["tmp", "var/tmp"].map(|name| root.join(name));
    for folder in temporary.iter().filter(|folder| folder.exists()) {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o1777))?;
    }
    Ok(())
}

/// What the patterns name; each must name something.
fn pick(merged: &Merged<'_>, patterns: &[String]) -> Result<BTreeSet<PathBuf>> {
    let mut picked = BTreeSet::new();
    for pattern in patterns {
        let found = merged.matching(pattern);
        if found.is_empty() {
            bail!("no package holds `{pattern}`");
        }
        picked.extend(found);
    }
    Ok(picked)
}

/// What was picked, what links of it lead to, and all that it and the programs are linked to.
fn closure(merged: &Merged<'_>, picked: BTreeSet<PathBuf>, programs: &[PathBuf]) -> Result<BTreeSet<PathBuf>> {
    let mut taken = BTreeSet::new();
    let mut new: Vec<PathBuf> = picked.into_iter().collect();
    let mut unread = programs.to_vec();
    loop {
        while let Some(path) = new.pop() {
            let Some(file) = merged.follow(&path)? else { bail!("{} leads nowhere", path.display()) };
            if let Some(Kind::File(source)) = merged.at(&file).map(|entry| &entry.kind)
                && taken.insert(file.clone())
            {
                unread.push(source.clone());
            }
            taken.insert(path);
        }
        if unread.is_empty() {
            return Ok(taken);
        }
        let needs = linked::needs(&std::mem::take(&mut unread))?;
        let folders: Vec<PathBuf> = LIBRARIES.map(PathBuf::from).into_iter().chain(needs.folders).collect();
        for name in &needs.libraries {
            let found = folders.iter().map(|folder| folder.join(name)).find(|path| merged.at(path).is_some());
            new.push(found.with_context(|| format!("no package holds the library `{name}`"))?);
        }
        for loader in needs.loaders.iter().map(|loader| in_usr(loader)) {
            if merged.at(&loader).is_none() {
                bail!("no package holds the loader {}", loader.display());
            }
            new.push(loader);
        }
        new.retain(|path| !taken.contains(path));
    }
}

/// The copyright file of a package, and its record.
fn origin(merged: &Merged<'_>, package: &Unpacked, root: &Path) -> Result<()> {
    let write = |path: PathBuf, text: &[u8]| {
        fs::create_dir_all(path.parent().unwrap_or(root))
            .and_then(|()| fs::write(&path, text))
            .with_context(|| format!("failed to write {}", path.display()))
    };
    let copyright = Path::new("/usr/share/doc").join(&package.name).join("copyright");
    if let Some(Kind::File(source)) =
        merged.follow(&copyright)?.and_then(|path| merged.at(&path)).map(|entry| &entry.kind)
    {
        let text = fs::read(source).with_context(|| format!("failed to read {}", source.display()))?;
        write(inside(root, &copyright), &text)?;
    }
    write(root.join("var/lib/dpkg/status.d").join(&package.name), package.control.as_bytes())
}

/// Copies a folder's content; nothing where there is no such folder.
fn copy(from: &Path, to: &Path) -> Result<()> {
    for path in files_below(from)? {
        let target = to.join(path.strip_prefix(from)?);
        fs::create_dir_all(target.parent().unwrap_or(to))
            .and_then(|()| fs::copy(&path, &target))
            .with_context(|| format!("failed to write {}", target.display()))?;
    }
    Ok(())
}

/// All files below a folder, sorted; none where there is no such folder.
pub fn files_below(folder: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut files = BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            entries => entries.with_context(|| format!("failed to list {}", folder.display()))?,
        };
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.insert(path);
            }
        }
    }
    Ok(files)
}

fn inside(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A package in `folder` with a copy of this machine's shell, its loader and its libraries.
    fn package(folder: &Path) -> Unpacked {
        let shell = PathBuf::from("/bin/sh");
        let needs = linked::needs(std::slice::from_ref(&shell)).unwrap();
        let libraries = needs.libraries.iter().map(|name| Path::new(LIBRARIES[0]).join(name));
        // Which is a library too: libc itself is linked to it.
        let loader = needs.loaders.iter().map(|path| Path::new(LIBRARIES[0]).join(path.file_name().unwrap()));
        let files: Vec<PathBuf> = needs.loaders.iter().cloned().chain(loader).chain(libraries).chain([shell]).collect();
        for file in &files {
            let target = folder.join(file.strip_prefix("/").unwrap());
            fs::create_dir_all(target.parent().unwrap()).unwrap();
            fs::copy(file, target).unwrap();
        }
        let doc = folder.join("usr/share/doc/shell");
        fs::create_dir_all(&doc).unwrap();
        fs::write(doc.join("copyright"), "free").unwrap();
        fs::write(doc.join("manual"), "long").unwrap();
        Unpacked { name: "shell".to_owned(), control: "Package: shell\n".to_owned(), folder: folder.to_owned() }
    }

    #[test]
    fn a_tree_holds_what_was_named_and_what_that_needs() {
        let folder = tempfile::tempdir().unwrap();
        let packages = [package(&folder.path().join("shell"))];
        let root = folder.path().join("root");
        let system: System =
            toml::from_str("packages = [\"shell\"]\npaths = [\"/usr/bin/sh\"]\nfolders = [\"/tmp\"]").unwrap();
        write(&system, &packages, &folder.path().join("none"), &[], &root).unwrap();
        // Through the links of /bin and /lib64, as the kernel looks it up.
        let loader = linked::needs(&["/bin/sh".into()]).unwrap().loaders.pop_first().unwrap();
        assert!(inside(&root, &loader).exists(), "{}", loader.display());
        assert!(root.join("bin/sh").exists() && root.join("usr/share/doc/shell/copyright").exists());
        assert!(!root.join("usr/share/doc/shell/manual").exists());
        assert_eq!(fs::read_to_string(root.join("var/lib/dpkg/status.d/shell")).unwrap(), "Package: shell\n");
        assert_eq!(fs::metadata(root.join("tmp")).unwrap().permissions().mode() & 0o7777, 0o1777);
    }

    #[test]
    fn what_no_package_holds_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let packages = [package(&folder.path().join("shell"))];
        let merged = Merged::new(&packages).unwrap();
        let error = pick(&merged, &["/usr/bin/nothing".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("/usr/bin/nothing"), "{error}");
    }
}
