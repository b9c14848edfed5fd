//! The volumes of a VMI: each made available as a file or folder that its sandbox shows to the launcher.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use holdfast_api::kubevirt::{ContainerDiskSource, HostDisk, VirtualMachineInstance, Volume};
use holdfast_api::quantity;
use k8s_openapi::api::core::v1::{LocalObjectReference, Secret};

use super::SetupError;
use crate::host::Host;
use crate::images::{Credentials, DiskImage, Wanted};
use crate::sandbox::{Bind, own, own_folder};
use crate::store::{EventKind, Events, Involved};

/// Key of a registry's credentials in a Secret.
const DOCKER_CONFIG: &str = ".dockerconfigjson";

/// What the volumes of a VMI come to.
#[derive(Debug, Default)]
pub struct Volumes {
    /// What the sandbox shows.
    pub binds: Vec<Bind>,
    /// Digests of the images in use.
    pub images: Vec<String>,
    /// Files to write for the launcher alone: volume, name, content.
    secrets: Vec<(String, &'static str, Vec<u8>)>,
}

/// Finds everything that the volumes need. Nothing of the VMI exists yet when this fails.
pub async fn find(host: &Host, vmi: &VirtualMachineInstance, about: &Involved) -> Result<Volumes, SetupError> {
    let namespace = vmi.metadata.namespace.as_deref().unwrap_or_default();
    let mut volumes = Volumes::default();
    for volume in &vmi.spec.volumes {
        if let Some(source) = &volume.container_disk {
            let disk = image(host, namespace, source, about).await?;
            let target = PathBuf::from(format!("/var/run/kubevirt/container-disks/{}.img", volume.name));
            volumes.binds.push(Bind { source: disk.file, target, writable: false });
            volumes.images.push(disk.digest);
        }
        if let Some(source) = &volume.host_disk {
            let target = PathBuf::from(format!("/var/run/kubevirt-private/vmi-disks/{}/disk.img", volume.name));
            volumes.binds.push(Bind { source: host_disk(&volume.name, source)?, target, writable: true });
        }
        for (key, reference) in cloud_init_secrets(volume) {
            let content = secret_key(host, namespace, &volume.name, reference, key)?;
            volumes.secrets.push((volume.name.clone(), key, content));
        }
    }
    Ok(volumes)
}

impl Volumes {
    /// Writes what only the launcher may read below `private` (its /var/run/kubevirt-private).
    pub fn write_secrets(&self, private: &Path) -> std::io::Result<()> {
        for (volume, name, content) in &self.secrets {
            own_folder(private.join("secret"))?;
            let folder = own_folder(private.join("secret").join(volume))?;
            let path = folder.join(name);
            let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o400).open(&path)?;
            file.write_all(content)?;
            own(&path)?;
        }
        Ok(())
    }
}

async fn image(
    host: &Host,
    namespace: &str,
    source: &ContainerDiskSource,
    about: &Involved,
) -> Result<DiskImage, SetupError> {
    let credentials = match &source.image_pull_secret {
        Some(name) => pull_credentials(host, namespace, name, &source.image)?,
        None => None,
    };
    let latest =
        source.image.rsplit('/').next().is_some_and(|last| !last.contains([':', '@']) || last.ends_with(":latest"));
    let default = if latest { "Always" } else { "IfNotPresent" };
    let wanted = Wanted {
        image: source.image.clone(),
        path: source.path.clone(),
        policy: source.image_pull_policy.clone().unwrap_or_else(|| default.to_owned()),
        credentials,
    };
    let started = std::time::Instant::now();
    let disk = host.images.ensure(&wanted).await.map_err(|error| {
        let message = format!("Failed to pull image \"{}\": {}", source.image, crate::host::chain(&error));
        SetupError::new(error.reason(), message)
    })?;
    if disk.fresh {
        pulled(&host.events, about, &source.image, started.elapsed());
    }
    Ok(disk)
}

fn pulled(events: &Events, about: &Involved, image: &str, took: std::time::Duration) {
    let message = format!("Successfully pulled image \"{image}\" in {:.1} s", took.as_secs_f64());
    events.record(about, EventKind::Normal, "kubelet", "Pulled", &message);
}

fn pull_credentials(
    host: &Host,
    namespace: &str,
    secret: &str,
    image: &str,
) -> Result<Option<Credentials>, SetupError> {
    let Some(found) = host.store.read::<Secret>(namespace, secret) else {
        let message = format!("Secret `{namespace}/{secret}` (imagePullSecret of image {image}) does not exist");
        return Err(SetupError::new("ErrImagePull", message));
    };
    let Some(config) = found.data.as_ref().and_then(|data| data.get(DOCKER_CONFIG)) else {
        let message = format!(
            "Secret `{namespace}/{secret}` (imagePullSecret of image {image}) has no key {DOCKER_CONFIG}: it must be of \
             type kubernetes.io/dockerconfigjson"
        );
        return Err(SetupError::new("ErrImagePull", message));
    };
    let registry = image.split('/').next().unwrap_or_default();
    Ok(Credentials::find(&config.0, registry))
}

/// The secrets that a cloud-init volume refers to, with the name of the file and key that each is for.
fn cloud_init_secrets(volume: &Volume) -> Vec<(&'static str, &LocalObjectReference)> {
    let mut found = Vec::new();
    if let Some(source) = &volume.cloud_init_no_cloud {
        found.extend(source.secret_ref.as_ref().map(|r| ("userdata", r)));
        found.extend(source.network_data_secret_ref.as_ref().map(|r| ("networkdata", r)));
    }
    if let Some(source) = &volume.cloud_init_config_drive {
        found.extend(source.secret_ref.as_ref().map(|r| ("userdata", r)));
        found.extend(source.network_data_secret_ref.as_ref().map(|r| ("networkdata", r)));
    }
    found
}

fn secret_key(
    host: &Host,
    namespace: &str,
    volume: &str,
    reference: &LocalObjectReference,
    key: &str,
) -> Result<Vec<u8>, SetupError> {
    let name = &reference.name;
    let missing = |what: &str| {
        let message = format!("MountVolume.SetUp failed for volume \"{volume}\" : {what}");
        SetupError::new("FailedMount", message)
    };
    let secret = host.store.read::<Secret>(namespace, name);
    let secret = secret.ok_or_else(|| missing(&format!("secret \"{name}\" not found")))?;
    let data = secret.data.unwrap_or_default();
    // Both spellings are in use.
    let camel = if key == "userdata" { "userData" } else { "networkData" };
    let content = data.get(key).or_else(|| data.get(camel));
    content.map(|bytes| bytes.0.clone()).ok_or_else(|| missing(&format!("secret \"{name}\" has no key \"{key}\"")))
}

/// The file of a hostDisk, made where it may be, and given to the launcher's user.
fn host_disk(volume: &str, disk: &HostDisk) -> Result<PathBuf, SetupError> {
    let failed = |what: String| SetupError::new("FailedMount", format!("hostDisk volume `{volume}`: {what}"));
    let path = PathBuf::from(&disk.path);
    let io = |verb: &str, error: &dyn std::fmt::Display| failed(format!("failed to {verb} `{}`: {error}", disk.path));
    match fs::symlink_metadata(&path) {
        Ok(meta) if meta.is_file() => {}
        Ok(_) => return Err(failed(format!("`{}` is no regular file", disk.path))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && disk.r#type == "DiskOrCreate" => {
            let capacity = disk.capacity.as_ref().map(quantity::parse).transpose().map_err(|e| io("make", &e))?;
            let bytes = capacity.and_then(|c| u64::try_from(c.value()).ok()).filter(|bytes| *bytes > 0);
            let bytes = bytes.ok_or_else(|| failed("`capacity` must be a size such as 1Gi".to_owned()))?;
            make_disk(&path, bytes).map_err(|error| io("make", &error))?;
        }
        Err(error) => return Err(io("find", &error)),
    }
    own(&path).map_err(|error| io("give away", &error))?;
    Ok(path)
}

/// A sparse file of that size: beside its place and renamed, so that no part of one is ever taken for a disk.
fn make_disk(path: &Path, bytes: u64) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let temporary = path.with_extension("holdfast-tmp");
    let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o660).open(&temporary)?;
    file.set_len(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

    use super::*;

    #[test]
    fn a_host_disk_is_found_or_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sub/disk.img");
        let disk = |kind: &str, capacity: Option<&str>| HostDisk {
            path: path.display().to_string(),
            r#type: kind.to_owned(),
            capacity: capacity.map(|text| Quantity(text.to_owned())),
            ..Default::default()
        };
        let error = host_disk("v", &disk("Disk", None)).unwrap_err();
        assert!(error.message.contains("failed to find"), "{error}");
        assert!(host_disk("v", &disk("DiskOrCreate", None)).unwrap_err().message.contains("capacity"));
        host_disk("v", &disk("DiskOrCreate", Some("1Mi"))).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 1 << 20);
        fs::write(&path, "data").unwrap();
        host_disk("v", &disk("DiskOrCreate", Some("1Mi"))).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"data", "what is there stays");
    }
}
