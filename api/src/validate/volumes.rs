//! Rules on volumes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Causes, Context, Rule};
use crate::kubevirt::{HostDisk, Volume};

pub(super) const RULES: &[Rule] =
    &[unique_names, one_source, host_disks, cloud_inits, source_names, data_volumes, downward_metrics];

/// The most user or network data that a VM carries itself, in bytes.
const MAX_CLOUD_INIT: usize = 2048;

/// Calls `rule` for each volume with its path and itself.
fn each(context: &Context, mut rule: impl FnMut(String, &Volume)) {
    for (index, volume) in context.spec.volumes.iter().enumerate() {
        rule(context.path(format_args!("volumes[{index}]")), volume);
    }
}

fn unique_names(context: &Context, causes: &mut Causes) {
    let volumes = &context.spec.volumes;
    for (index, volume) in volumes.iter().enumerate() {
        if let Some(other) = volumes[..index].iter().position(|other| other.name == volume.name) {
            let (at, other) = (format!("volumes[{index}]"), format!("volumes[{other}]"));
            let (at, other) = (context.path(at), context.path(other));
            causes.invalid(format!("{at}.name"), format!("{at} and {other} must not have the same Name."));
        }
    }
}

fn one_source(context: &Context, causes: &mut Causes) {
    each(context, |at, volume| {
        // Each source is one field of the volume besides its name.
        let Volume {
            name: _,
            cloud_init_config_drive,
            cloud_init_no_cloud,
            config_map,
            container_disk,
            container_path,
            data_volume,
            downward_api,
            downward_metrics,
            empty_disk,
            ephemeral,
            host_disk,
            memory_dump,
            persistent_volume_claim,
            secret,
            service_account,
            sysprep,
        } = volume;
        let set = [
            cloud_init_config_drive.is_some(),
            cloud_init_no_cloud.is_some(),
            config_map.is_some(),
            container_disk.is_some(),
            container_path.is_some(),
            data_volume.is_some(),
            downward_api.is_some(),
            downward_metrics.is_some(),
            empty_disk.is_some(),
            ephemeral.is_some(),
            host_disk.is_some(),
            memory_dump.is_some(),
            persistent_volume_claim.is_some(),
            secret.is_some(),
            service_account.is_some(),
            sysprep.is_some(),
        ];
        if set.into_iter().filter(|set| *set).count() != 1 {
            let message = format!("{at} must have exactly one source type set");
            causes.invalid(at, message);
        }
    });
}

fn host_disks(context: &Context, causes: &mut Causes) {
    each(context, |at, volume| {
        let Some(disk) = &volume.host_disk else { return };
        if !context.config.has("HostDisk") {
            causes.invalid(at, "HostDisk feature gate is not enabled");
            return;
        }
        check_host_disk(&format!("{at}.hostDisk"), disk, causes);
    });
}

fn check_host_disk(at: &str, disk: &HostDisk, causes: &mut Causes) {
    if disk.path.is_empty() {
        causes.required(format!("{at}.path"), format!("{at}.path is required for hostDisk volume"));
    }
    match (disk.r#type.as_str(), &disk.capacity) {
        ("Disk", None) | ("DiskOrCreate", Some(_)) => {}
        ("Disk", Some(_)) => {
            let message = format!("{at}.capacity is allowed to pass only with {at}.type equal to 'DiskOrCreate'");
            causes.invalid(format!("{at}.capacity"), message);
        }
        ("DiskOrCreate", None) => {
            let message = format!("{at}.capacity is required for {at}.type 'DiskOrCreate'");
            causes.required(format!("{at}.capacity"), message);
        }
        (other, _) => {
            let message = format!("{at}.type has invalid value '{other}', allowed are 'Disk' or 'DiskOrCreate'");
            causes.invalid(format!("{at}.type"), message);
        }
    }
}

fn cloud_inits(context: &Context, causes: &mut Causes) {
    each(context, |at, volume| {
        if let Some(source) = &volume.cloud_init_no_cloud {
            let user = (&source.user_data, &source.user_data_base64, source.secret_ref.is_some());
            let network = (&source.network_data, &source.network_data_base64, source.network_data_secret_ref.is_some());
            check_cloud_init(&at, "cloudInitNoCloud", user, network, causes);
        }
        if let Some(source) = &volume.cloud_init_config_drive {
            let user = (&source.user_data, &source.user_data_base64, source.secret_ref.is_some());
            let network = (&source.network_data, &source.network_data_base64, source.network_data_secret_ref.is_some());
            check_cloud_init(&at, "cloudInitConfigDrive", user, network, causes);
        }
    });
}

/// Plain text, base64 and whether a Secret is named.
type Data<'a> = (&'a Option<String>, &'a Option<String>, bool);

fn check_cloud_init(at: &str, source: &str, user: Data, network: Data, causes: &mut Causes) {
    let at = format!("{at}.{source}");
    let count = |(plain, encoded, secret): Data| {
        usize::from(plain.is_some()) + usize::from(encoded.is_some()) + usize::from(secret)
    };
    if count(user) + count(network) == 0 {
        let message = format!("{at} must have at least one userdatasource or one networkdatasource set.");
        causes.invalid(at, message);
        return;
    }
    for (data, word, field, advice) in [
        (user, "userdata", "userDataBase64", "UserDataSecretRef"),
        (network, "networkdata", "networkDataBase64", "NetworkDataSecretRef"),
    ] {
        if count(data) > 1 {
            causes.invalid(at.clone(), format!("{at} must have only one {word} source set."));
            continue;
        }
        let length = match (data.0, data.1) {
            (Some(plain), _) => plain.len(),
            (None, Some(encoded)) => match STANDARD.decode(encoded) {
                Ok(decoded) => decoded.len(),
                Err(_) => {
                    let path = format!("{at}.{field}");
                    let message = format!("{path}.{source}.{field} is not a valid base64 value.");
                    causes.invalid(path, message);
                    continue;
                }
            },
            (None, None) => 0,
        };
        if length > MAX_CLOUD_INIT {
            let message =
                format!("{at} {word} exceeds {MAX_CLOUD_INIT} byte limit. Should use {advice} for larger data.");
            causes.invalid(at.clone(), message);
        }
    }
}

fn source_names(context: &Context, causes: &mut Causes) {
    each(context, |at, volume| {
        let config_map = volume.config_map.as_ref().map(|source| ("configMap.name", &source.name));
        let secret = volume.secret.as_ref().map(|source| ("secret.secretName", &source.secret_name));
        let account = volume
            .service_account
            .as_ref()
            .map(|source| ("serviceAccount.serviceAccountName", &source.service_account_name));
        for (field, name) in [config_map, secret, account].into_iter().flatten() {
            if name.as_deref().unwrap_or_default().is_empty() {
                let field = format!("{at}.{field}");
                let message = format!("{field} is a required field");
                causes.invalid(field, message);
            }
        }
    });
}

fn data_volumes(context: &Context, causes: &mut Causes) {
    each(context, |at, volume| {
        if volume.data_volume.as_ref().is_some_and(|source| source.name.is_empty()) {
            causes.required(format!("{at}.name"), "DataVolume 'name' must be set");
        }
    });
}

fn downward_metrics(context: &Context, causes: &mut Causes) {
    each(context, |at, volume| {
        if volume.downward_metrics.is_some() && !context.config.has("DownwardMetrics") {
            let message = "downwardMetrics disks are not allowed: DownwardMetrics feature gate is not enabled.";
            causes.invalid(at, message);
        }
    });
}
