//! A disk as a container image: an OCI image layout with one layer that holds `disk/<name>`, which is what a
//! containerDisk is.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// User and group that own the disk in the image: those that VMs run as.
const OWNER: u64 = 107;

/// Writes the layout of an image with this disk to `folder`, tagged `latest`.
pub fn write(folder: &Path, disk: &Path) -> Result<()> {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).with_context(|| format!("failed to make {}", blobs.display()))?;
    let blob = |bytes: &[u8], media_type: &str| -> Result<Value> {
        let digest = hex::encode(Sha256::digest(bytes));
        fs::write(blobs.join(&digest), bytes).with_context(|| format!("failed to write blob `{digest}`"))?;
        Ok(json!({
            "mediaType": media_type,
            "digest": format!("sha256:{digest}"),
            "size": bytes.len(),
        }))
    };
    // Not compressed: the disk was built here, and goes no further than this machine.
    let layer = blob(&layer(disk)?, "application/vnd.oci.image.layer.v1.tar")?;
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": [layer["digest"]] },
    });
    let config = blob(config.to_string().as_bytes(), "application/vnd.oci.image.config.v1+json")?;
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": manifest_type,
        "config": config,
        "layers": [layer],
    });
    let mut manifest = blob(manifest.to_string().as_bytes(), manifest_type)?;
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": "latest" });
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [manifest],
    });
    fs::write(folder.join("index.json"), index.to_string()).context("failed to write index.json")?;
    fs::write(folder.join("oci-layout"), json!({ "imageLayoutVersion": "1.0.0" }).to_string())
        .context("failed to write oci-layout")?;
    Ok(())
}

fn layer(disk: &Path) -> Result<Vec<u8>> {
    let data = fs::read(disk).with_context(|| format!("failed to read {}", disk.display()))?;
    let name = disk.file_name().unwrap_or_default().to_string_lossy();
    let mut archive = tar::Builder::new(Vec::with_capacity(data.len() + 4096));
    let header = |kind, mode, size| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(OWNER);
        header.set_gid(OWNER);
        header.set_size(size);
        header
    };
    let mut folder = header(tar::EntryType::Directory, 0o555, 0);
    archive.append_data(&mut folder, "disk/", std::io::empty())?;
    let mut file = header(tar::EntryType::Regular, 0o444, data.len() as u64);
    archive.append_data(&mut file, format!("disk/{name}"), data.as_slice())?;
    Ok(archive.into_inner()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_digest_leads_to_its_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let disk = folder.path().join("disk.qcow2");
        fs::write(&disk, b"a disk").unwrap();
        write(folder.path(), &disk).unwrap();
        let read = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
            let bytes = fs::read(folder.path().join("blobs/sha256").join(digest)).unwrap();
            assert_eq!(hex::encode(Sha256::digest(&bytes)), digest);
            assert_eq!(bytes.len() as u64, descriptor["size"].as_u64().unwrap());
            bytes
        };
        let index: Value = serde_json::from_slice(&fs::read(folder.path().join("index.json")).unwrap()).unwrap();
        let manifest: Value = serde_json::from_slice(&read(&index["manifests"][0])).unwrap();
        read(&manifest["config"]);
        let layer = read(&manifest["layers"][0]);
        let mut archive = tar::Archive::new(layer.as_slice());
        let files: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                (entry.path().unwrap().display().to_string(), entry.header().uid().unwrap(), entry.size())
            })
            .collect();
        assert_eq!(files, [("disk/".to_owned(), 107, 0), ("disk/disk.qcow2".to_owned(), 107, 6)]);
    }
}
