//! The volumes of a VMI: each made available as a file or folder that its sandbox shows to the launcher.

mod host_disk;

use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use holdfast_api::kubevirt::{ContainerDiskSource, VirtualMachineInstance, Volume};
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
    /// Files of the host that are bound: open, so that no other file can come to have their identity.
    held: Vec<OwnedFd>,
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
            volumes.binds.push(Bind { source: disk.file, target, writable: false, file: None });
            volumes.images.push(disk.digest);
        }
        if let Some(source) = &volume.host_disk {
            let disk = host_disk::find(&host.host_disk_folders, &volume.name, source)?;
            let folder = Path::new("/var/run/kubevirt-private/vmi-disks").join(&volume.name);
            let target = folder.join(disk.path.file_name().unwrap_or_default());
            volumes.binds.push(Bind { source: disk.path, target, writable: true, file: Some(disk.id) });
            volumes.held.push(disk.held);
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
