//! `cargo xtask images`: the container images of a cluster, and the test guest's, as files below target/images.
//!
//! What an image is made of stands in `deploy/images/NAME`: a Containerfile, and where it holds more than our
//! programs, a `system.toml` that says what is taken of Debian. Nothing is installed, and no daemon is needed.
//!
//! Invariant: an image's digest depends on its inputs alone (programs, packages, deploy/images, this code), and where
//! they are those of the image that is there, it is not built again.

mod archive;
mod buildah;
mod debian;
mod linked;
mod merged;
mod programs;
mod system;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;
use comfy_table::{Table, presets};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{guest, workspace};
use archive::Size;
use buildah::Buildah;
use programs::Program;

/// The registry of images that are in none yet.
pub const REGISTRY: &str = "localhost/holdfast";
/// Tag of the images of this version.
pub const DEFAULT_TAG: &str = concat!("v", env!("CARGO_PKG_VERSION"));

/// Options of the chore.
#[derive(Args)]
pub struct Arguments {
    /// Push the images to this registry, as REGISTRY/virt-operator and so on
    #[arg(long, value_name = "REGISTRY")]
    push: Option<String>,
    /// Tag of the images
    #[arg(long, default_value = DEFAULT_TAG)]
    tag: String,
    /// Ask Debian for its present packages instead of those of the last time
    #[arg(long)]
    fresh: bool,
}

/// An image of ours.
struct Image {
    name: &'static str,
    programs: &'static [Program],
}

const IMAGES: &[Image] = &[
    Image {
        name: "virt-operator",
        programs: &[Program {
            file: "virt-operator",
            path: "/usr/bin/virt-operator",
            names: &["virt-api", "virt-controller"],
        }],
    },
    Image {
        name: "virt-handler",
        programs: &[
            Program { file: "virt-handler", path: "/usr/bin/virt-handler", names: &[] },
            Program { file: "holdfast", path: "/usr/libexec/holdfast/holdfast", names: &[] },
        ],
    },
    Image {
        name: "virt-launcher",
        programs: &[Program { file: "virt-launcher", path: "/usr/bin/virt-launcher", names: &[] }],
    },
];

/// The test guest's image, which examples name.
pub const GUEST: &str = "testguest";

/// What is known of an image that was built.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Built {
    /// Hash of its inputs.
    key: String,
    /// Digest of its manifest.
    digest: String,
    /// Its size.
    size: Size,
}

/// An image that is there.
pub struct Archive {
    /// Its whole name.
    pub name: String,
    /// The file with it.
    pub file: PathBuf,
    built: Built,
    new: bool,
}

impl Archive {
    /// Digest of its manifest.
    pub fn digest(&self) -> &str {
        &self.built.digest
    }
}

/// Builds all images of the names that deploy/ has, where they are not there yet.
pub fn ensure_all() -> Result<Vec<Archive>> {
    build(&Arguments { push: None, tag: DEFAULT_TAG.to_owned(), fresh: false })
}

fn build(arguments: &Arguments) -> Result<Vec<Archive>> {
    workspace::build_image_programs()?;
    let folder = folder();
    fs::create_dir_all(&folder).with_context(|| format!("failed to make {}", folder.display()))?;
    let archive = |name: &str, (built, new)| Archive {
        name: image(REGISTRY, name, &arguments.tag),
        file: folder.join(format!("{name}.tar")),
        built,
        new,
    };
    let ours = IMAGES.iter().map(|image| Ok(archive(image.name, ensure(image, &folder, arguments)?)));
    let guest = std::iter::once_with(|| Ok(archive(GUEST, ensure_guest(&folder, &arguments.tag)?)));
    ours.chain(guest).collect()
}

/// Where images are.
fn folder() -> PathBuf {
    workspace::target().join("images")
}

/// The chore.
pub fn run(arguments: &Arguments) -> Result<()> {
    let start = Instant::now();
    let folder = folder();
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(["image", "to fetch", "on a node", "digest", ""]);
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    for Archive { name, built, new, .. } in build(arguments)? {
        let news = if new { "new" } else { "as it was" };
        table.add_row([&name, &mib(built.size.packed), &mib(built.size.unpacked), &built.digest[..19], news]);
    }
    println!("{table}");
    println!("images: {}/*.tar ({:.1} s)", folder.display(), start.elapsed().as_secs_f32());
    if let Some(registry) = &arguments.push {
        let buildah = Buildah::new(&folder)?;
        for name in IMAGES.iter().map(|image| image.name).chain([GUEST]) {
            buildah.push(&folder.join(format!("{name}.tar")), &image(registry, name, &arguments.tag))?;
        }
    }
    Ok(())
}

/// The whole name of an image.
pub fn image(registry: &str, name: &str, tag: &str) -> String {
    format!("{}/{name}:{tag}", registry.trim_end_matches('/'))
}

/// Builds an image unless the one that is there was made of the same inputs. Says whether it is new.
fn ensure(image: &Image, folder: &Path, arguments: &Arguments) -> Result<(Built, bool)> {
    let source = workspace::root().join("deploy/images").join(image.name);
    let debs = folder.join("debs");
    let system_file = source.join("system.toml");
    let system = system_file.exists().then(|| system::read(&system_file)).transpose()?;
    let lock = match &system {
        None => None,
        Some(system) => {
            let file = folder.join(format!("{}.packages", image.name));
            Some(debian::lock(&file, &system.packages, &debs, arguments.fresh)?)
        }
    };
    let epoch = epoch()?;
    let key = key(&source, image.programs, lock.as_ref().map(debian::Lock::text), &arguments.tag, epoch)?;
    keep_or_make(folder, image.name, &key, |layout, scratch| {
        let context = scratch.join("context");
        programs::place(image.programs, &context.join("programs"))?;
        if let (Some(system), Some(lock)) = (&system, &lock) {
            let packages = debian::unpack(lock, &debs, &scratch.join("packages"))?;
            let programs: Vec<PathBuf> = image.programs.iter().map(Program::built).collect();
            system::write(system, &packages, &source.join("files"), &programs, &context.join("system"))?;
        }
        Buildah::new(scratch)?.build(&source.join("Containerfile"), &context, &arguments.tag, epoch, layout)?;
        Ok(crate::images::image(REGISTRY, image.name, &arguments.tag))
    })
}

/// The test guest as an archive.
fn ensure_guest(folder: &Path, tag: &str) -> Result<(Built, bool)> {
    let guest = guest::ensure(false)?;
    let index = fs::read(guest.layout.join("index.json")).context("failed to read the test guest's layout")?;
    let key = hash([index.as_slice(), tag.as_bytes(), include_bytes!("archive.rs")]);
    keep_or_make(folder, GUEST, &key, |layout, _| {
        fs::remove_dir(layout).ok();
        std::os::unix::fs::symlink(&guest.layout, layout).context("failed to link the test guest's layout")?;
        Ok(image(REGISTRY, GUEST, tag))
    })
}

/// The image of this key that is there, else one that `make` makes: it fills the layout that it is given and returns
/// the image's whole name.
fn keep_or_make(
    folder: &Path,
    name: &str,
    key: &str,
    make: impl FnOnce(&Path, &Path) -> Result<String>,
) -> Result<(Built, bool)> {
    let file = folder.join(format!("{name}.tar"));
    let record = folder.join(format!("{name}.json"));
    let known: Option<Built> = fs::read(&record).ok().and_then(|text| serde_json::from_slice(&text).ok());
    if let Some(built) = known.filter(|built| built.key == key && file.exists()) {
        return Ok((built, false));
    }
    let scratch = tempfile::tempdir_in(folder).context("failed to make a scratch folder")?;
    let layout = scratch.path().join("layout");
    let whole_name = make(&layout, scratch.path()).with_context(|| format!("failed to make the image `{name}`"))?;
    archive::write(&layout, &whole_name, &scratch.path().join("archive"), &file)?;
    let (digest, size) = archive::describe(&file)?;
    let built = Built { key: key.to_owned(), digest, size };
    // Last: a crash before it leaves an image that is made again.
    fs::write(&record, serde_json::to_vec(&built)?).with_context(|| format!("failed to write {}", record.display()))?;
    Ok((built, true))
}

/// The time that everything in an image is of: the start of 1970, or what the reproducible-builds variable says.
fn epoch() -> Result<u64> {
    let Ok(text) = std::env::var("SOURCE_DATE_EPOCH") else { return Ok(0) };
    text.parse().with_context(|| format!("SOURCE_DATE_EPOCH `{text}` is no number of seconds"))
}

/// A hash of all that an image is made of.
fn key(source: &Path, programs: &[Program], lock: Option<String>, tag: &str, epoch: u64) -> Result<String> {
    let mut parts: Vec<Vec<u8>> = [
        include_str!("archive.rs"),
        include_str!("buildah.rs"),
        include_str!("debian.rs"),
        include_str!("linked.rs"),
        include_str!("merged.rs"),
        include_str!("mod.rs"),
        include_str!("programs.rs"),
        include_str!("system.rs"),
        lock.as_deref().unwrap_or_default(),
        tag,
        &epoch.to_string(),
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec();
    for path in system::files_below(source)? {
        parts.push(path.strip_prefix(source)?.as_os_str().as_encoded_bytes().to_vec());
        parts.push(fs::read(&path).with_context(|| format!("failed to read {}", path.display()))?);
    }
    for program in programs {
        let built = program.built();
        parts.push(fs::read(&built).with_context(|| format!("failed to read {}", built.display()))?);
    }
    Ok(hash(parts.iter().map(Vec::as_slice)))
}

/// One hash of many parts, whose bounds count.
fn hash<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut whole = Sha256::new();
    parts.into_iter().for_each(|part| whole.update(Sha256::digest(part)));
    hex::encode(whole.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_made_once_for_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let made = std::cell::Cell::new(0);
        let ensure = |key: &str| {
            keep_or_make(folder.path(), "x", key, |layout, _| {
                made.set(made.get() + 1);
                fs::create_dir_all(layout.join("blobs/sha256"))?;
                fs::write(layout.join("index.json"), r#"{"manifests": [{"digest": "sha256:0a"}]}"#)?;
                fs::write(layout.join("blobs/sha256/0a"), r#"{"layers": []}"#)?;
                Ok("localhost/x:v1".to_owned())
            })
            .unwrap()
        };
        let (first, new) = ensure("a");
        assert!(new && first.digest == "sha256:0a");
        assert_eq!(ensure("a"), (first, false));
        assert!(ensure("b").1);
        fs::remove_file(folder.path().join("x.tar")).unwrap();
        assert!(ensure("b").1, "a record without its image is none");
        assert_eq!(made.get(), 3);
    }

    #[test]
    fn the_bounds_of_inputs_count() {
        assert_ne!(hash([b"ab".as_slice(), b"c"]), hash([b"a".as_slice(), b"bc"]));
    }

    #[test]
    fn every_image_has_its_sources() {
        for image in IMAGES {
            let source = workspace::root().join("deploy/images").join(image.name);
            assert!(source.join("Containerfile").exists(), "{}", image.name);
            let file = source.join("system.toml");
            let system = file.exists().then(|| system::read(&file).unwrap());
            assert!(system.is_none_or(|system| !system.packages.is_empty()), "{}", image.name);
        }
    }

    #[test]
    fn a_registry_may_end_with_a_slash() {
        assert_eq!(image("localhost:5000/a/", "b", "v1"), "localhost:5000/a/b:v1");
    }
}
