//! cloudInitNoCloud and cloudInitConfigDrive: a small ISO 9660 image from which the guest configures itself.
//!
//! The tool `genisoimage` writes it. The crates that could do it in process either stamp files with the present time
//! and drag a calendar in, or are release candidates. The data may be secret: files are for the launcher's user
//! alone, and no error text carries any of it.

use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use base64::Engine;
use holdfast_api::kubevirt::{VirtualMachineInstance, Volume};
use serde::Serialize;

use super::{Cause, DEADLINE, file_error, image, make_dir, once};
use crate::domain::{DiskImage, Format};
use crate::paths::Paths;
use crate::tool;

/// What a cloud-init volume says, whichever of the two kinds it is of.
pub(super) struct Source<'a> {
    config_drive: bool,
    user: Data<'a>,
    network: Data<'a>,
}

/// One document: as text, in base64, or in a Secret.
struct Data<'a> {
    field: &'static str,
    plain: Option<&'a str>,
    base64: Option<&'a str>,
    /// Name of the file into which the Secret's value was resolved.
    file: &'static str,
    secret: bool,
}

#[derive(Serialize)]
struct ConfigDriveMetadata<'a> {
    instance_id: String,
    local_hostname: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    uuid: Option<&'a str>,
}

impl<'a> Source<'a> {
    /// The source of a volume, if it is a cloud-init volume.
    pub(super) fn of(volume: &'a Volume) -> Option<Self> {
        macro_rules! source {
            ($source:expr, $config_drive:expr) => {
                Source {
                    config_drive: $config_drive,
                    user: Data {
                        field: "userDataBase64",
                        plain: $source.user_data.as_deref(),
                        base64: $source.user_data_base64.as_deref(),
                        file: "userdata",
                        secret: $source.secret_ref.is_some(),
                    },
                    network: Data {
                        field: "networkDataBase64",
                        plain: $source.network_data.as_deref(),
                        base64: $source.network_data_base64.as_deref(),
                        file: "networkdata",
                        secret: $source.network_data_secret_ref.is_some(),
                    },
                }
            };
        }
        let no_cloud = volume.cloud_init_no_cloud.as_ref().map(|source| source!(source, false));
        no_cloud.or_else(|| volume.cloud_init_config_drive.as_ref().map(|source| source!(source, true)))
    }
}

impl Data<'_> {
    /// The document's bytes; none where there is no document.
    fn read(&self, secrets: &Path) -> Result<Option<Vec<u8>>, Cause> {
        if self.secret {
            let path = secrets.join(self.file);
            return std::fs::read(&path).map(Some).map_err(file_error("read", &path));
        }
        if let Some(text) = self.base64.filter(|text| !text.is_empty()) {
            let decoded = base64::engine::general_purpose::STANDARD.decode(text.trim_end());
            let wrong = |_| Cause::Field { field: self.field, message: "is not base64".to_owned() };
            return decoded.map(Some).map_err(wrong);
        }
        Ok(self.plain.filter(|text| !text.is_empty()).map(|text| text.as_bytes().to_vec()))
    }
}

/// The host name of the guest: the spec's, else the first label of the VM's name, at most 63 characters.
fn hostname(vmi: &VirtualMachineInstance) -> &str {
    let name = vmi.metadata.name.as_deref().unwrap_or_default();
    let label = name.split('.').next().unwrap_or_default();
    let label = label.get(..63).unwrap_or(label);
    vmi.spec.hostname.as_deref().filter(|hostname| !hostname.is_empty()).unwrap_or(label)
}

/// The files of the image, each with its path.
pub(super) fn files(
    vmi: &VirtualMachineInstance,
    source: &Source<'_>,
    secrets: &Path,
) -> Result<Vec<(&'static str, Vec<u8>)>, Cause> {
    let namespace = vmi.metadata.namespace.as_deref().unwrap_or("default");
    let hostname = hostname(vmi);
    let user = source.user.read(secrets)?.unwrap_or_default();
    let network = source.network.read(secrets)?;
    let mut files = if source.config_drive {
        let metadata = ConfigDriveMetadata {
            instance_id: format!("{}.{namespace}", vmi.metadata.name.as_deref().unwrap_or_default()),
            local_hostname: hostname,
            uuid: vmi.spec.domain.firmware.as_ref().and_then(|firmware| firmware.uuid.as_deref()),
        };
        let metadata = serde_json::to_vec(&metadata).unwrap_or_default();
        vec![("openstack/latest/user_data", user), ("openstack/latest/meta_data.json", metadata)]
    } else {
        // Guests re-run cloud-init when the instance-id changes, so it must be what they have seen elsewhere.
        let metadata = format!("instance-id: {hostname}.{namespace}\nlocal-hostname: {hostname}\n");
        vec![("user-data", user), ("meta-data", metadata.into_bytes())]
    };
    if let Some(network) = network {
        files
            .push((if source.config_drive { "openstack/latest/network_data.json" } else { "network-config" }, network));
    }
    Ok(files)
}

/// Writes the image; what was written at the first start of the VM is kept.
pub(super) fn prepare(
    vmi: &VirtualMachineInstance,
    volume: &str,
    source: &Source<'_>,
    paths: &Paths,
) -> Result<DiskImage, Cause> {
    let folder = paths.ephemeral.join("cloud-init-data").join(volume);
    let (name, label) = if source.config_drive { ("configdrive.iso", "config-2") } else { ("noCloud.iso", "cidata") };
    let path = folder.join(name);
    once(&path, |path| {
        let staging = folder.join("files");
        for (name, contents) in files(vmi, source, &paths.secret(volume))? {
            write_private(&staging.join(name), &contents)?;
        }
        let mut command = Command::new("genisoimage");
        command.args(["-quiet", "-joliet", "-rock", "-volid", label, "-output"]).arg(path).arg(&staging);
        tool::run(&mut command, DEADLINE)?;
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(path, private).map_err(file_error("protect", path))?;
        std::fs::remove_dir_all(&staging).map_err(file_error("remove", &staging))
    })?;
    Ok(image(volume, path, Format::Raw))
}

fn write_private(path: &Path, contents: &[u8]) -> Result<(), Cause> {
    make_dir(path.parent().unwrap_or(Path::new("/")))?;
    let opened = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    opened.and_then(|mut file| file.write_all(contents)).map_err(file_error("write", path))
}
