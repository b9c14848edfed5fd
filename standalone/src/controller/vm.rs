//! One VM: what to do next, until nothing is; then its status.

use std::collections::BTreeSet;
use std::io;
use std::time::{Duration, Instant};

use holdfast_api::defaults::{default_vmi, stable_identities};
use holdfast_api::kubevirt::{VirtualMachine, VirtualMachineInstance, VirtualMachineStateChangeRequest};
use holdfast_api::run_strategy::{
    Action, CONTROLLER_FINALIZER, Change, Failure, Observed, RunStrategy, build_vmi, decide, revision_name, vm_status,
};
use k8s_openapi::jiff::Timestamp;
use rand::Rng;
use uuid::Uuid;

use super::revision;
use crate::host::{Host, chain};
use crate::manifests::{INVALID, is_placeholder, manifest_error};
use crate::sandbox::Record;
use crate::store::{EventKind, Involved, Key, Kind, StoreError};

/// Who says what a cluster's controllers say.
const COMPONENT: &str = "virtualmachine-controller";
/// Most steps in one go: the longest way has four.
const STEPS: usize = 16;

/// Does what is to be done for a VM and writes its status. Returns when to look at it again, if that is known.
pub fn reconcile(host: &Host, key: &Key) -> Result<Option<Instant>, StoreError> {
    let mut failure = None;
    let mut again = None;
    for _ in 0..STEPS {
        let Some(vm) = host.store.read::<VirtualMachine>(&key.namespace, &key.name) else { return Ok(None) };
        let found = host.store.read::<VirtualMachineInstance>(&key.namespace, &key.name);
        let vmi = found.as_ref().filter(|vmi| controls(&vm, vmi));
        if let (Some(stranger), None) = (&found, vmi)
            && RunStrategy::of(&vm.spec).is_ok_and(|strategy| strategy != RunStrategy::Halted)
            && vm.metadata.deletion_timestamp.is_none()
        {
            failure = Some(failed_create(host, &vm, &taken(stranger)));
            break;
        }
        let action = decide(&vm, vmi, Timestamp::now());
        match act(host, &vm, vmi, &action)? {
            Done::Step => {}
            Done::Nothing => break,
            Done::Wait(instant) => {
                again = Some(instant);
                break;
            }
            Done::Failed(message) => {
                failure = Some(failed_create(host, &vm, &message));
                again = Some(Instant::now() + Duration::from_secs(10));
                break;
            }
        }
    }
    write_status(host, key, failure)?;
    Ok(again)
}

enum Done {
    /// Something was changed: decide again.
    Step,
    Nothing,
    Wait(Instant),
    Failed(String),
}

fn act(
    host: &Host,
    vm: &VirtualMachine,
    vmi: Option<&VirtualMachineInstance>,
    action: &Action,
) -> Result<Done, StoreError> {
    match action {
        Action::Nothing => return Ok(Done::Nothing),
        Action::Wait { until } => {
            let wait = until.duration_since(Timestamp::now()).max(k8s_openapi::jiff::SignedDuration::ZERO);
            return Ok(Done::Wait(Instant::now() + wait.unsigned_abs()));
        }
        Action::AddFinalizer if is_placeholder(&vm.metadata) => return Ok(Done::Nothing),
        Action::AddFinalizer => modify(host, vm, |vm| {
            vm.metadata.finalizers.get_or_insert_default().push(CONTROLLER_FINALIZER.to_owned());
        })?,
        Action::CreateVmi { paused } => {
            if let Err(error) = create_vmi(host, vm, *paused) {
                return Ok(Done::Failed(error));
            }
        }
        Action::CountFailure => {
            let (namespace, name) = place(&vm.metadata);
            write_status(host, &Key::new(Kind::VirtualMachine, namespace, name), None)?;
        }
        Action::DeleteVmi { uid, start_again } => delete_vmi(host, vm, uid, *start_again)?,
        Action::ReleaseVmi => {
            if let Some(vmi) = vmi {
                let (namespace, name) = place(&vmi.metadata);
                host.store.modify::<VirtualMachineInstance>(namespace, name, |vmi| release(&mut vmi.metadata))?;
            }
        }
        Action::SetNics(nics) => {
            let (namespace, name) = place(&vm.metadata);
            let uid = vmi.and_then(|vmi| vmi.metadata.uid.clone());
            host.store.modify::<VirtualMachineInstance>(namespace, name, |vmi| {
                if vmi.metadata.uid == uid {
                    nics.clone().put(&mut vmi.spec);
                }
            })?;
        }
        Action::ReleaseVm => modify(host, vm, |vm| release(&mut vm.metadata))?,
        Action::StartHalted => modify(host, vm, |vm| Change::Strategy(RunStrategy::Always).apply(vm))?,
    }
    Ok(Done::Step)
}

type Meta = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

fn release(meta: &mut Meta) {
    if let Some(finalizers) = &mut meta.finalizers {
        finalizers.retain(|finalizer| finalizer != CONTROLLER_FINALIZER);
    }
}

fn place(meta: &Meta) -> (&str, &str) {
    (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

fn modify(host: &Host, vm: &VirtualMachine, change: impl FnOnce(&mut VirtualMachine)) -> Result<(), StoreError> {
    let (namespace, name) = place(&vm.metadata);
    host.store.modify(namespace, name, change).map(drop)
}

fn controls(vm: &VirtualMachine, vmi: &VirtualMachineInstance) -> bool {
    let owners = vmi.metadata.owner_references.as_deref().unwrap_or_default();
    owners.iter().any(|owner| owner.controller == Some(true) && Some(&owner.uid) == vm.metadata.uid.as_ref())
}

fn taken(stranger: &VirtualMachineInstance) -> String {
    let (namespace, name) = place(&stranger.metadata);
    format!("failed to create virtual machine instance: {namespace}/{name} exists and is not controlled by this VM")
}

fn create_vmi(host: &Host, vm: &VirtualMachine, paused: bool) -> Result<(), String> {
    let vm_uid = vm.metadata.uid.clone().unwrap_or_default();
    let vmi_uid = Uuid::new_v4();
    let mut vmi = build_vmi(vm, paused);
    vmi.metadata.uid = Some(vmi_uid.to_string());
    default_vmi(&mut vmi, &host.config, &mut stable_identities(vm_uid.parse().unwrap_or(vmi_uid)), Timestamp::now());
    vmi.status.get_or_insert_default().virtual_machine_revision_name = Some(revision_name(vm));
    let written = revision::write(host, &vm_uid, &vmi_uid.to_string(), &vm.spec.template);
    written.map_err(|error: io::Error| format!("failed to keep the VM's revision: {error}"))?;
    host.store.create(&vmi).map_err(|error| chain(&error))?;
    let name = vmi.metadata.name.as_deref().unwrap_or_default();
    let message = format!("Started the virtual machine by creating the new virtual machine instance {name}");
    event(host, vm, EventKind::Normal, "SuccessfulCreate", &message);
    Ok(())
}

fn delete_vmi(host: &Host, vm: &VirtualMachine, uid: &str, start_again: bool) -> Result<(), StoreError> {
    if start_again {
        let start = VirtualMachineStateChangeRequest { action: "Start".to_owned(), ..Default::default() };
        modify(host, vm, |vm| vm.status.get_or_insert_default().state_change_requests = vec![start])?;
    }
    let (namespace, name) = place(&vm.metadata);
    host.store.delete(&Key::new(Kind::VirtualMachineInstance, namespace, name))?;
    let message = format!("Stopped the virtual machine by deleting the virtual machine instance {uid}");
    event(host, vm, EventKind::Normal, "SuccessfulDelete", &message);
    Ok(())
}

fn event(host: &Host, vm: &VirtualMachine, kind: EventKind, reason: &str, message: &str) {
    host.events.record(&Involved::object::<VirtualMachine>(&vm.metadata), kind, COMPONENT, reason, message);
}

fn failed_create(host: &Host, vm: &VirtualMachine, message: &str) -> Failure {
    event(host, vm, EventKind::Warning, "FailedCreate", message);
    Failure { reason: "FailedCreate".to_owned(), message: message.to_owned() }
}

fn write_status(host: &Host, key: &Key, failure: Option<Failure>) -> Result<(), StoreError> {
    let found = host.store.read::<VirtualMachineInstance>(&key.namespace, &key.name);
    host.store
        .modify::<VirtualMachine>(&key.namespace, &key.name, |vm| {
            let vmi = found.as_ref().filter(|vmi| controls(vm, vmi));
            let uid = |meta: &Meta| meta.uid.clone().unwrap_or_default();
            let started = vmi.and_then(|vmi| revision::read(host, &uid(&vm.metadata), &uid(&vmi.metadata)));
            let wrong = manifest_error(&vm.metadata)
                .map(|text| Failure { reason: INVALID.to_owned(), message: text.to_owned() });
            let status = vm_status(&Observed {
                vm,
                vmi,
                started: started.as_ref(),
                hot_plug: true,
                failure: failure.as_ref().or(wrong.as_ref()),
                now: Timestamp::now(),
                jitter: rand::rng().random_range(0.0..1.0),
            });
            vm.status = Some(status);
        })
        .map(drop)
}

/// The image references that VMs and VMIs name, and the digests of the images that sandboxes use.
pub fn images_in_use(host: &Host) -> (BTreeSet<String>, BTreeSet<String>) {
    let mut references = BTreeSet::new();
    for kind in [Kind::VirtualMachine, Kind::VirtualMachineInstance] {
        for object in host.store.list(kind, None) {
            for volumes in ["/spec/template/spec/volumes", "/spec/volumes"] {
                let volumes = object.pointer(volumes).and_then(|v| v.as_array());
                let images = volumes.into_iter().flatten().filter_map(|v| v["containerDisk"]["image"].as_str());
                references.extend(images.map(str::to_owned));
            }
        }
    }
    let folders = std::fs::read_dir(host.state.join("vms")).into_iter().flatten().flatten();
    let records = folders.filter_map(|folder| Record::read(&folder.path()).ok().flatten());
    (references, records.flat_map(|record| record.images).collect())
}
