//! An OCI image layout as one file, which `ctr images import` takes under the image's whole name.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::system::files_below;

/// Size of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Bytes that are fetched.
    pub packed: u64,
    /// Bytes on a node's disk.
    pub unpacked: u64,
}

/// Writes the layout with one image in `folder` to `file`, the image named `name`. The same layout makes the same file.
/// `beside` is a path on the same file system for the time until it is whole.
pub fn write(folder: &Path, name: &str, beside: &Path, file: &Path) -> Result<()> {
    let index_file = folder.join("index.json");
    let mut index: Value = serde_json::from_slice(&fs::read(&index_file)?).context("failed to parse index.json")?;
    let tag = name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
    index["manifests"][0]["annotations"] =
        json!({ "io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag });
    let index = serde_json::to_vec(&index)?;
    let mut archive = tar::Builder::new(File::create(beside).context("failed to make the archive")?);
    for path in files_below(folder)? {
        let bytes = if path == index_file { index.clone() } else { fs::read(&path)? };
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        archive.append_data(&mut header, path.strip_prefix(folder)?, bytes.as_slice())?;
    }
    archive.into_inner().with_context(|| format!("failed to write {}", file.display()))?;
    fs::rename(beside, file).with_context(|| format!("failed to place {}", file.display()))
}

/// The digest of the manifest, and the size, of the image in an archive.
pub fn describe(file: &Path) -> Result<(String, Size)> {
    let read = || format!("failed to read {}", file.display());
    let blob = |digest: &str| -> Result<Vec<u8>> {
        let path = format!("blobs/{}", digest.replace(':', "/"));
        bytes(file, &path)?.with_context(|| format!("{} holds no {path}", file.display()))
    };
    let index: Value = serde_json::from_slice(&bytes(file, "index.json")?.with_context(read)?).with_context(read)?;
    let digest = index["manifests"][0]["digest"].as_str().with_context(read)?.to_owned();
    let manifest: Value = serde_json::from_slice(&blob(&digest)?).with_context(read)?;
    let mut size = Size { packed: 0, unpacked: 0 };
    for layer in manifest["layers"].as_array().with_context(read)? {
        let bytes = blob(layer["digest"].as_str().with_context(read)?)?;
        size.packed += bytes.len() as u64;
        let packed = layer["mediaType"].as_str().is_some_and(|kind| kind.ends_with("+gzip"));
        size.unpacked += if packed {
            std::io::copy(&mut flate2::read::GzDecoder::new(bytes.as_slice()), &mut std::io::sink())
                .with_context(read)?
        } else {
            bytes.len() as u64
        };
    }
    Ok((digest, size))
}

/// A file of the archive; none where it holds no such file.
fn bytes(archive: &Path, name: &str) -> Result<Option<Vec<u8>>> {
    use std::io::Read as _;
    let mut archive = tar::Archive::new(File::open(archive)?);
    for entry in archive.entries()? {
        let mut entry = entry?;
        if entry.path()? == Path::new(name) {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            return Ok(Some(bytes));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_names_its_image_and_is_the_same_again() {
        let folder = tempfile::tempdir().unwrap();
        let layout = folder.path().join("layout");
        fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
        let manifest = json!({ "layers": [{ "digest": "sha256:1a", "mediaType": "tar" }] }).to_string();
        for (name, text) in [
            ("index.json", json!({ "manifests": [{ "digest": "sha256:0a" }] }).to_string()),
            ("oci-layout", "{}".to_owned()),
            ("blobs/sha256/0a", manifest),
            ("blobs/sha256/1a", "layer".to_owned()),
        ] {
            fs::write(layout.join(name), text).unwrap();
        }
        let files = ["a.tar", "b.tar"].map(|name| folder.path().join(name));
        for file in &files {
            write(&layout, "localhost/x/y:v1", &folder.path().join("new"), file).unwrap();
        }
        assert_eq!(fs::read(&files[0]).unwrap(), fs::read(&files[1]).unwrap());
        let index: Value = serde_json::from_slice(&bytes(&files[0], "index.json").unwrap().unwrap()).unwrap();
        let annotations = &index["manifests"][0]["annotations"];
        assert_eq!(annotations["io.containerd.image.name"], "localhost/x/y:v1");
        assert_eq!(annotations["org.opencontainers.image.ref.name"], "v1");
        let (digest, size) = describe(&files[0]).unwrap();
        assert_eq!((digest.as_str(), size), ("sha256:0a", Size { packed: 5, unpacked: 5 }));
    }
}
