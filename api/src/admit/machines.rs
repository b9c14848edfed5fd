//! VMs: what they get when they are made or changed, and what is refused.

use serde_json::{Value, json};
use uuid::Uuid;

use super::read::{set, typed, with_fields};
use super::{Allowed, Operation, Others, Review};
use crate::addresses::BY_NETWORK;
use crate::config::ClusterConfig;
use crate::defaults::{Identities, default_vm};
use crate::error_status::ErrorStatus;
use crate::instancetype::{CLUSTER_INSTANCETYPE, CLUSTER_PREFERENCE, Sizes, apply, requirements};
use crate::kubevirt::{VirtualMachine, VirtualMachinePreferenceSpec};
use crate::validate::{Age, Causes, asked_of_a_machine, check_machine, conflict, fields_error, vm_rules};

/// Fills in what a VM leaves out. One that is there keeps its firmware's identities, also where a client that
/// replaces the whole object has left them out.
pub(super) fn mutate(
    review: &Review,
    others: &dyn Others,
    config: &ClusterConfig,
    identities: Identities,
) -> Result<Allowed, ErrorStatus> {
    if review.keeps("spec") {
        return Ok(Allowed::default());
    }
    let mut vm: VirtualMachine = typed(review.object)?;
    check_machine(&vm.spec)?;
    if let Some(matcher) = &mut vm.spec.instancetype {
        matcher.kind.get_or_insert_with(|| CLUSTER_INSTANCETYPE.to_owned());
    }
    if let Some(matcher) = &mut vm.spec.preference {
        matcher.kind.get_or_insert_with(|| CLUSTER_PREFERENCE.to_owned());
    }
    if let Some(preference) = Sizes::find(&vm, review.namespace, others).preference {
        prefer_hardware(&mut vm, &preference);
    }
    let firmware = &review.old["spec"]["template"]["spec"]["domain"]["firmware"];
    let mut kept = |what: &str| {
        let old = what.strip_prefix("firmware.").and_then(|field| firmware[field].as_str());
        old.and_then(|text| Uuid::parse_str(text).ok()).unwrap_or_else(|| identities(what))
    };
    default_vm(&mut vm, config, &mut kept);
    Ok(Allowed::changed(review, with_fields(review, &[("spec", json!(vm.spec))])))
}

/// What the guest takes for its hardware must not change from start to start, so that part of a preference is
/// written into the VM.
fn prefer_hardware(vm: &mut VirtualMachine, preference: &VirtualMachinePreferenceSpec) {
    let spec = vm.spec.template.spec.get_or_insert_default();
    if spec.architecture.is_none() {
        spec.architecture.clone_from(&preference.preferred_architecture);
    }
    let machine = preference.machine.as_ref().and_then(|machine| machine.preferred_machine_type.as_ref());
    if let Some(machine) = machine {
        spec.domain.machine.get_or_insert_default().r#type.get_or_insert_with(|| machine.clone());
    }
}

/// The rules for a VM, applied to what its instance type and its preference make of it.
pub(super) fn validate(review: &Review, others: &dyn Others, config: &ClusterConfig) -> Result<Allowed, ErrorStatus> {
    let asks = |object: &Value| BY_NETWORK.map(|annotation| object["metadata"]["annotations"][annotation].clone());
    let keeps_spec = review.keeps("spec");
    if keeps_spec && asks(review.object) == asks(review.old) {
        return Ok(Allowed::default());
    }
    let mut vm: VirtualMachine = typed(review.object)?;
    let mut causes = Causes::default();
    asked_of_a_machine(&vm, &mut causes);
    causes.into_result()?;
    if keeps_spec {
        return Ok(Allowed::default());
    }
    let age = if review.operation == Operation::Create { Age::New } else { Age::Old };
    let sizes = Sizes::find(&vm, review.namespace, others);
    if let Some(spec) = &mut vm.spec.template.spec {
        let mut metadata = vm.spec.template.metadata.clone().unwrap_or_default();
        let mut sized = spec.clone();
        let instancetype = sizes.instancetype.as_ref();
        let preference = sizes.preference.as_ref();
        match apply(instancetype, preference, &mut metadata, &mut sized) {
            Ok(()) => {
                requirements(instancetype, preference, &sized).map_err(|error| error.to_status())?;
                *spec = sized;
                // One that is known has had its say; that of one that is not is only what it could conflict with.
                vm.spec.instancetype = vm.spec.instancetype.filter(|_| instancetype.is_none());
            }
            Err(fields) => return Err(conflict(fields)),
        }
    }
    vm_rules(&vm.spec, "spec", config, age).into_result()?;
    let mut warnings = Vec::new();
    if vm.spec.running.is_some() {
        warnings.push("spec.running is deprecated, please use spec.runStrategy instead.".to_owned());
    }
    Ok(Allowed { object: None, warnings })
}

/// The status of a VM, a replica set or a migration is for whoever has the right to it; it must be readable.
pub(super) fn validate_status(review: &Review) -> Result<Allowed, ErrorStatus> {
    use crate::kubevirt::{
        VirtualMachineInstanceMigrationStatus, VirtualMachineInstanceReplicaSetStatus, VirtualMachineStatus,
    };
    fn check<T: serde::de::DeserializeOwned>(status: &Value) -> Result<(), ErrorStatus> {
        #[derive(serde::Deserialize)]
        struct Holder<T> {
            #[serde(rename = "status")]
            _status: Option<T>,
        }
        let mut holder = json!({});
        set(&mut holder, "status", status.clone());
        let read: Result<Holder<T>, _> = crate::decode::decode_lenient(holder);
        read.map(|_| ()).map_err(|problems| fields_error(&problems))
    }
    let status = &review.object["status"];
    match review.object["kind"].as_str() {
        Some("VirtualMachine") => check::<VirtualMachineStatus>(status)?,
        Some("VirtualMachineInstanceReplicaSet") => check::<VirtualMachineInstanceReplicaSetStatus>(status)?,
        Some("VirtualMachineInstanceMigration") => check::<VirtualMachineInstanceMigrationStatus>(status)?,
        _ => {}
    }
    Ok(Allowed::default())
}
