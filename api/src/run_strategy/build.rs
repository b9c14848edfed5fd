//! The VMI that a VM is run as.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use uuid::Uuid;

use super::{CONTROLLER_FINALIZER, GENERATION_ANNOTATION, MIGRATION_TARGET_ANNOTATION, Nics, RunStrategy, is_absent};
use crate::addresses::{self, BY_NETWORK};
use crate::kubevirt::{Firmware, Input, VirtualMachine, VirtualMachineInstance, VirtualMachineInstanceSpec};

/// The namespace in which KubeVirt hashes a VM's name to the firmware UUID of a VM that has none.
const FIRMWARE_NAMESPACE: Uuid = Uuid::from_u128(0x6a1a_24a1_4061_4607_8bf4_a396_3d0c_5895);

/// Makes the VMI of a VM, as it is created: without uid and status, not yet defaulted.
///
/// It is a copy of the template under the VM's name, owned by the VM and held by the controller's
/// finalizer; NICs of `state: absent` are left out. A template without a firmware UUID gets the one that its name has always stood for,
/// so that a VM from before UUIDs were stored keeps its identity.
pub fn build_vmi(vm: &VirtualMachine, paused: bool) -> VirtualMachineInstance {
    let name = vm.metadata.name.clone().unwrap_or_default();
    let template = vm.spec.template.metadata.clone().unwrap_or_default();
    let mut annotations = template.annotations.unwrap_or_default();
    let generation = vm.metadata.generation.unwrap_or_default();
    annotations.insert(GENERATION_ANNOTATION.to_owned(), generation.to_string());
    for annotation in BY_NETWORK {
        if let Some(asked) = addresses::asked_by(vm, annotation) {
            annotations.insert(annotation.to_owned(), asked);
        }
    }
    if RunStrategy::of(&vm.spec) == Ok(RunStrategy::WaitAsReceiver) {
        annotations.insert(MIGRATION_TARGET_ANNOTATION.to_owned(), "true".to_owned());
    }
    let mut finalizers = template.finalizers.unwrap_or_default();
    finalizers.push(CONTROLLER_FINALIZER.to_owned());
    let mut spec = vm.spec.template.spec.clone().unwrap_or_default();
    Nics::of(&spec).without(is_absent).put(&mut spec);
    if paused {
        spec.start_strategy = Some("Paused".to_owned());
    }
    add_input_device(&mut spec);
    let firmware = spec.domain.firmware.get_or_insert_with(Firmware::default);
    if firmware.uuid.is_none() {
        firmware.uuid = Some(legacy_firmware_uuid(&name).to_string());
    }
    VirtualMachineInstance {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: vm.metadata.namespace.clone(),
            labels: template.labels,
            annotations: Some(annotations),
            finalizers: Some(finalizers),
            owner_references: Some(vec![OwnerReference {
                api_version: "kubevirt.io/v1".to_owned(),
                kind: "VirtualMachine".to_owned(),
                name,
                uid: vm.metadata.uid.clone().unwrap_or_default(),
                controller: Some(true),
                block_owner_deletion: Some(true),
            }]),
            ..ObjectMeta::default()
        },
        spec,
        status: None,
    }
}

/// The firmware UUID that a VM's name stands for where its template has none.
pub fn legacy_firmware_uuid(name: &str) -> Uuid {
    Uuid::new_v5(&FIRMWARE_NAMESPACE, name.as_bytes())
}

/// The name of the revision that holds the VM's spec as it was when the VMI was made; the VMI's
/// `status.virtualMachineRevisionName`.
pub fn revision_name(vm: &VirtualMachine) -> String {
    format!(
        "revision-start-vm-{}-{}",
        vm.metadata.uid.as_deref().unwrap_or_default(),
        vm.metadata.generation.unwrap_or_default()
    )
}

/// `autoattachInputDevice` gives a guest without input devices a tablet.
fn add_input_device(spec: &mut VirtualMachineInstanceSpec) {
    let devices = &mut spec.domain.devices;
    if devices.autoattach_input_device == Some(true) && devices.inputs.is_empty() {
        devices.inputs.push(Input {
            bus: Some("usb".to_owned()),
            name: "default-0".to_owned(),
            r#type: "tablet".to_owned(),
        });
    }
}
