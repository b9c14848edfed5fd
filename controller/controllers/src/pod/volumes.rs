//! The volumes of a VMI's pod: the launcher's own folders, and one for each of the VMI's volumes that needs one.

use holdfast_api::kubevirt::{ContainerDiskSource, HostDisk, VirtualMachineInstance, Volume as VmiVolume};
use k8s_openapi::api::core::v1::{
    EmptyDirVolumeSource, HostPathVolumeSource, ImageVolumeSource, KeyToPath, LocalObjectReference,
    ProjectedVolumeSource, SecretProjection, Volume, VolumeMount, VolumeProjection,
};

/// The launcher's own folders: name of the volume, and where it is in the container.
const FOLDERS: [(&str, &str); 6] = [
    ("private", "/var/run/kubevirt-private"),
    ("public", "/var/run/kubevirt"),
    ("sockets", "/var/run/kubevirt/sockets"),
    ("ephemeral-disks", "/var/run/kubevirt-ephemeral-disks"),
    ("libvirt-runtime", "/var/run/libvirt"),
    ("tmp", "/tmp"),
];

/// Volumes, where the container has them, and the Secrets that images are pulled with.
#[derive(Debug, Default, PartialEq)]
pub struct PodVolumes {
    pub volumes: Vec<Volume>,
    pub mounts: Vec<VolumeMount>,
    pub pull_secrets: Vec<LocalObjectReference>,
}

impl PodVolumes {
    /// Those of a VMI.
    pub fn of(vmi: &VirtualMachineInstance) -> Self {
        let mut all = Self::default();
        for (name, path) in FOLDERS {
            let empty_dir = Some(EmptyDirVolumeSource::default());
            all.add(Volume { name: name.to_owned(), empty_dir, ..Volume::default() }, path.to_owned(), false);
        }
        for volume in &vmi.spec.volumes {
            if let Some(source) = &volume.container_disk {
                all.container_disk(&volume.name, source);
            }
            if let Some(source) = &volume.host_disk {
                all.host_disk(&volume.name, source);
            }
            all.cloud_init(volume);
        }
        all
    }

    fn add(&mut self, volume: Volume, mount_path: String, read_only: bool) {
        let read_only = read_only.then_some(true);
        let mount = VolumeMount { name: volume.name.clone(), mount_path, read_only, ..VolumeMount::default() };
        self.mounts.push(mount);
        self.volumes.push(volume);
    }

    fn container_disk(&mut self, name: &str, source: &ContainerDiskSource) {
        let image = ImageVolumeSource {
            reference: Some(source.image.clone()),
            pull_policy: source.image_pull_policy.clone().filter(|policy| !policy.is_empty()),
        };
        let volume = Volume { name: pod_volume("disk", name), image: Some(image), ..Volume::default() };
        self.add(volume, format!("/var/run/kubevirt/container-disks/{name}"), true);
        if let Some(secret) = source.image_pull_secret.as_ref().filter(|secret| !secret.is_empty()) {
            let secret = LocalObjectReference { name: secret.clone() };
            if !self.pull_secrets.contains(&secret) {
                self.pull_secrets.push(secret);
            }
        }
    }

    /// The folder of the disk's file; the launcher finds it there under its own name.
    fn host_disk(&mut self, name: &str, source: &HostDisk) {
        let folder =
            source.path.rsplit_once('/').map_or("/", |(folder, _)| if folder.is_empty() { "/" } else { folder });
        let kind = if source.r#type == "DiskOrCreate" { "DirectoryOrCreate" } else { "Directory" };
        let host_path = Some(HostPathVolumeSource { path: folder.to_owned(), type_: Some(kind.to_owned()) });
        let volume = Volume { name: pod_volume("host", name), host_path, ..Volume::default() };
        self.add(volume, format!("/var/run/kubevirt-private/vmi-disks/{name}"), false);
    }

    /// Both Secrets of a cloud-init volume in one folder. The launcher reads lower-case names; the other spelling that
    /// is in use is shown under them. A Secret that is missing is waited for.
    fn cloud_init(&mut self, volume: &VmiVolume) {
        let (user, network) = match (&volume.cloud_init_no_cloud, &volume.cloud_init_config_drive) {
            (Some(source), _) => (&source.secret_ref, &source.network_data_secret_ref),
            (None, Some(source)) => (&source.secret_ref, &source.network_data_secret_ref),
            (None, None) => return,
        };
        let mut sources = Vec::new();
        let mut project = |name: &str, items: Option<KeyToPath>| {
            let optional = items.is_some().then_some(true);
            let items = items.map(|item| vec![item]);
            let secret = SecretProjection { name: name.to_owned(), items, optional };
            sources.push(VolumeProjection { secret: Some(secret), ..VolumeProjection::default() });
        };
        for (reference, key, path) in [(user, "userData", "userdata"), (network, "networkData", "networkdata")] {
            if let Some(reference) = reference {
                project(&reference.name, None);
                let item = KeyToPath { key: key.to_owned(), path: path.to_owned(), mode: None };
                project(&reference.name, Some(item));
            }
        }
        if sources.is_empty() {
            return;
        }
        let projected = Some(ProjectedVolumeSource { sources: Some(sources), default_mode: Some(0o440) });
        let pod_volume = Volume { name: pod_volume("secret", &volume.name), projected, ..Volume::default() };
        self.add(pod_volume, format!("/var/run/kubevirt-private/secret/{}", volume.name), true);
    }
}

/// Name of the pod's volume for a volume of the VMI: a label of at most 63 characters that is none of the launcher's
/// own.
fn pod_volume(kind: &str, name: &str) -> String {
    let full = format!("{kind}-{name}");
    if full.len() <= 63 { full } else { super::template::shortened(&full, name) }
}
