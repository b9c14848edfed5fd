//! From a VMI to a launcher in a sandbox.

use holdfast_api::kubevirt::VirtualMachineInstance;
use holdfast_ipam::nic::Nic;

use super::launch::{Folders, launch};
use super::status::Teller;
use super::{SetupError, network, nics, volumes};
use crate::host::Host;
use crate::sandbox::Record;
use crate::store::Involved;

/// Sets a VMI up. It has no sandbox; one that a failure leaves half made is the caller's to take down.
pub async fn set_up(host: &Host, vmi: &VirtualMachineInstance, teller: &Teller<'_>) -> Result<(), SetupError> {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let uid = text(&vmi.metadata.uid);
    let planned = nics::plan(host, vmi).await?;
    let about = Involved::object::<VirtualMachineInstance>(&vmi.metadata);
    let volumes = volumes::find(host, vmi, &about).await?;

    let folder = host.vm_folder(&uid);
    let folders = Folders::of(&folder);
    let made = |error: std::io::Error| {
        SetupError::new("FailedCreatePodSandBox", format!("failed to make `{}`: {error}", folder.display()))
    };
    let mut record = Record::new(&text(&vmi.metadata.namespace), &text(&vmi.metadata.name), &uid);
    record.nics = planned.iter().map(|planned| planned.nic.clone()).collect();
    record.images.clone_from(&volumes.images);
    std::fs::create_dir_all(&folder).map_err(made)?;
    network::write(&record, &folder)?;
    folders.make(&uid).map_err(made)?;
    volumes.write_secrets(&folders.private).map_err(made)?;
    teller.scheduling(&record);

    announce(host, &record);
    let netns = host.netns.join(&record.id);
    network::join(host, &mut record, &folder, &netns, &planned).await?;
    launch(host, vmi, &mut record, &folder, &netns, &volumes).await?;
    teller.scheduled(&record);
    Ok(())
}

/// Tells the agent which NICs the sandbox's interfaces carry.
pub fn announce(host: &Host, record: &Record) {
    let nics: Vec<Nic> = record.nics.clone();
    host.pods.put(&record.namespace, &record.pod_name, nics);
}
