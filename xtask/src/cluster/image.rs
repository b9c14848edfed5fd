//! Images: the one of the sandboxes, the one of helpers, and the import of others into nodes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::layout::{Node, programs};
use crate::process::Program;

/// The image of the sandboxes.
pub const PAUSE: &str = "localhost/pause:1";
/// The image of pods that ask, answer or wait: busybox, with all its names in /bin.
pub const BUSYBOX: &str = "localhost/test/busybox:1";

/// Longest import of an archive.
const DEADLINE: Duration = Duration::from_secs(300);

/// The archive of the sandboxes' image, written where it is not there yet.
pub fn pause() -> Result<PathBuf> {
    let (program, archive) = (programs().join("pause"), programs().join("pause.tar"));
    if !newer(&archive, &program) {
        let bytes = fs::read(&program).with_context(|| format!("failed to read {}", program.display()))?;
        fs::write(&archive, of_program(PAUSE, "pause", &bytes, &[])?)
            .with_context(|| format!("failed to write {}", archive.display()))?;
    }
    Ok(archive)
}

/// The archive of the helpers' image, written where it is not there yet.
pub fn busybox() -> Result<PathBuf> {
    let (program, archive) = (Path::new("/bin/busybox"), programs().join("busybox.tar"));
    if !newer(&archive, program) {
        let bytes = fs::read(program).context("failed to read busybox; the package busybox-static has it")?;
        let names = Program::new(program).arg("--list").output()?;
        let names: Vec<&str> = names.lines().filter(|name| *name != "busybox").collect();
        fs::write(&archive, of_program(BUSYBOX, "bin/busybox", &bytes, &names)?)
            .with_context(|| format!("failed to write {}", archive.display()))?;
    }
    Ok(archive)
}

/// Digest of the manifest in an archive of one image.
pub fn digest(archive: &Path) -> Result<String> {
    let file = fs::File::open(archive).with_context(|| format!("failed to open {}", archive.display()))?;
    for entry in tar::Archive::new(file).entries()? {
        let entry = entry?;
        if entry.path()?.as_os_str() == "index.json" {
            let index: Value = serde_json::from_reader(entry)?;
            return Ok(index["manifests"][0]["digest"].as_str().unwrap_or_default().to_owned());
        }
    }
    anyhow::bail!("{} has no index.json", archive.display())
}

fn newer(a: &Path, b: &Path) -> bool {
    let time = |path: &Path| fs::metadata(path).and_then(|data| data.modified()).ok();
    matches!((time(a), time(b)), (Some(a), Some(b)) if a >= b)
}

/// An OCI archive of an image that is one static program, which has further names in /bin.
fn of_program(image: &str, name: &str, program: &[u8], names: &[&str]) -> Result<Vec<u8>> {
    let mut layer = tar::Builder::new(Vec::new());
    append(&mut layer, name, program, 0o755)?;
    for other in names {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        layer.append_link(&mut header, format!("bin/{other}"), format!("/{name}"))?;
    }
    let mut archive = tar::Builder::new(Vec::new());
    let mut blob = |bytes: &[u8], kind: &str| -> Result<Value> {
        let digest = hex::encode(Sha256::digest(bytes));
        append(&mut archive, &format!("blobs/sha256/{digest}"), bytes, 0o644)?;
        Ok(json!({ "mediaType": kind, "digest": format!("sha256:{digest}"), "size": bytes.len() }))
    };
    let layer = blob(&layer.into_inner()?, "application/vnd.oci.image.layer.v1.tar")?;
    let config = json!({
        "architecture": architecture(),
        "os": "linux",
        "config": { "Entrypoint": [format!("/{name}")], "Env": ["PATH=/bin"] },
        "rootfs": { "type": "layers", "diff_ids": [layer["digest"]] },
    });
    let config = blob(config.to_string().as_bytes(), "application/vnd.oci.image.config.v1+json")?;
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({ "schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer] });
    let mut manifest = blob(manifest.to_string().as_bytes(), kind)?;
    manifest["annotations"] = json!({ "io.containerd.image.name": image });
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [manifest],
    });
    append(&mut archive, "index.json", index.to_string().as_bytes(), 0o644)?;
    let layout = json!({ "imageLayoutVersion": "1.0.0" });
    append(&mut archive, "oci-layout", layout.to_string().as_bytes(), 0o644)?;
    archive.into_inner().context("failed to finish an archive")
}

fn append(archive: &mut tar::Builder<Vec<u8>>, name: &str, bytes: &[u8], mode: u32) -> Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes.len() as u64);
    header.set_mode(mode);
    header.set_mtime(0);
    archive.append_data(&mut header, name, bytes).with_context(|| format!("failed to archive `{name}`"))
}

/// As Go names it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Imports all images of an archive into a node, and removes those that have lost their name to them.
pub fn import(node: &Node<'_>, archive: &Path) -> Result<()> {
    let file = fs::File::open(archive).with_context(|| format!("failed to open {}", archive.display()))?;
    let images = || Ok::<_, anyhow::Error>(node.machine.program("ctr")?.args(["-n", "k8s.io", "images"]));
    let imported = images()?.args(["import", "-"]).stdin(file).deadline(DEADLINE).output();
    imported.with_context(|| format!("failed to import {} into `{}`", archive.display(), node.machine.name))?;
    match nameless(&list(node)?) {
        nameless if nameless.is_empty() => Ok(()),
        nameless => images()?.arg("remove").args(nameless).output().map(drop).context("failed to remove old images"),
    }
}

/// The images that a node has: their digests by their names.
pub fn on(node: &Node<'_>) -> Result<BTreeMap<String, String>> {
    Ok(parse(&list(node)?).map(|(name, digest)| (name.to_owned(), digest.to_owned())).collect())
}

fn list(node: &Node<'_>) -> Result<String> {
    let listed = node.machine.program("ctr")?.args(["-n", "k8s.io", "images", "list"]).output();
    listed.with_context(|| format!("failed to list the images of `{}`", node.machine.name))
}

/// Name and digest in each line of containerd's list, where they are the first word and the third.
fn parse(listed: &str) -> impl Iterator<Item = (&str, &str)> {
    listed.lines().skip(1).filter_map(|line| {
        let mut words = line.split_whitespace();
        Some((words.next()?, words.nth(1)?))
    })
}

/// Those of containerd's images that go by nothing but a digest (the kubelet does not collect them here), while no
/// other has the same content.
fn nameless(listed: &str) -> Vec<&str> {
    let images: Vec<(&str, &str)> = parse(listed).collect();
    let named: Vec<&str> =
        images.iter().filter(|(name, _)| !name.starts_with("sha256:")).map(|(_, digest)| *digest).collect();
    let nameless = |(name, digest): &&(&str, &str)| name.starts_with("sha256:") && !named.contains(digest);
    images.iter().filter(nameless).map(|(name, _)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_images_that_lost_their_name() {
        let listed = "REF TYPE DIGEST SIZE\n\
                      localhost/a:1 type sha256:new 1 MiB\n\
                      sha256:config-old type sha256:old 1 MiB\n\
                      sha256:config-new type sha256:new 1 MiB\n";
        assert_eq!(nameless(listed), ["sha256:config-old"]);
    }

    #[test]
    fn an_image_of_one_program_is_whole() {
        let bytes = of_program("localhost/x:1", "x", b"program", &["y"]).unwrap();
        let mut names = Vec::new();
        let mut index = Value::Null;
        for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
            let entry = entry.unwrap();
            let name = entry.path().unwrap().display().to_string();
            if name == "index.json" {
                index = serde_json::from_reader(entry).unwrap();
            }
            names.push(name);
        }
        assert_eq!(index["manifests"][0]["annotations"]["io.containerd.image.name"], "localhost/x:1");
        let digest = index["manifests"][0]["digest"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
        assert!(names.contains(&format!("blobs/sha256/{digest}")), "{names:?}");
    }
}
