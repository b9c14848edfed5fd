//! What a VMI was made from, so that a later change of its VM's template is noticed: STATE/revisions/VM-UID.json.

use std::fs;
use std::io;
use std::path::PathBuf;

use holdfast_api::kubevirt::VirtualMachineInstanceTemplateSpec;
use serde::{Deserialize, Serialize};

use crate::host::Host;
use crate::store::{Kind, write_atomically};

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Revision {
    vmi_uid: String,
    template: VirtualMachineInstanceTemplateSpec,
}

fn path(host: &Host, vm_uid: &str) -> PathBuf {
    host.state.join("revisions").join(format!("{vm_uid}.json"))
}

/// Writes down the template of a VMI that is about to be made.
pub fn write(
    host: &Host,
    vm_uid: &str,
    vmi_uid: &str,
    template: &VirtualMachineInstanceTemplateSpec,
) -> io::Result<()> {
    let path = path(host, vm_uid);
    fs::create_dir_all(host.state.join("revisions"))?;
    let content = serde_json::to_vec(&Revision { vmi_uid: vmi_uid.to_owned(), template: template.clone() })?;
    write_atomically(&path, &content)
}

/// The template that the VMI was made from; none where that is not known.
pub fn read(host: &Host, vm_uid: &str, vmi_uid: &str) -> Option<VirtualMachineInstanceTemplateSpec> {
    let revision: Revision = serde_json::from_slice(&fs::read(path(host, vm_uid)).ok()?).ok()?;
    (revision.vmi_uid == vmi_uid).then_some(revision.template)
}

/// Removes what is known of VMs that are gone.
pub fn forget_unowned(host: &Host) {
    let vms = host.store.list(Kind::VirtualMachine, None);
    let owned = |uid: &str| vms.iter().any(|vm| vm["metadata"]["uid"] == uid);
    for entry in fs::read_dir(host.state.join("revisions")).into_iter().flatten().flatten() {
        let path = entry.path();
        if !path.file_stem().and_then(|stem| stem.to_str()).is_some_and(owned) {
            // What stays is tried again with the next VM that goes.
            let _ = fs::remove_file(path);
        }
    }
}
