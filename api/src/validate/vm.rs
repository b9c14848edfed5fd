//! Rules on a VM besides those on its template.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause;

use super::{Causes, Reason};
use crate::error_status::ErrorStatus;
use crate::kubevirt::{DataVolumeTemplateSpec, VirtualMachineInstanceSpec, VirtualMachineSpec, Volume};
use crate::run_strategy::{RunStrategy, StrategyError};

/// Rules on a whole VM, with the place of its spec.
pub(super) const RULES: &[fn(&str, &VirtualMachineSpec, &mut Causes)] =
    &[template, run_strategy, data_volume_templates, instancetype_conflicts];

fn template(at: &str, vm: &VirtualMachineSpec, causes: &mut Causes) {
    if vm.template.spec.is_none() {
        causes.required(format!("{at}.template"), "missing virtual machine template.");
    }
}

fn run_strategy(at: &str, vm: &VirtualMachineSpec, causes: &mut Causes) {
    let Err(error) = RunStrategy::of(vm) else { return };
    let message = error.to_string();
    match error {
        StrategyError::Missing => causes.required(at, message),
        StrategyError::Both => causes.invalid(format!("{at}.running"), message),
        StrategyError::Unknown(_) => causes.invalid(format!("{at}.runStrategy"), message),
    }
}

fn data_volume_templates(at: &str, vm: &VirtualMachineSpec, causes: &mut Causes) {
    let volumes = vm.template.spec.as_ref().map(|spec| spec.volumes.as_slice()).unwrap_or_default();
    for (index, template) in vm.data_volume_templates.iter().enumerate() {
        check_data_volume(&format!("{at}.dataVolumeTemplate[{index}]"), template, volumes, causes);
    }
}

fn check_data_volume(at: &str, template: &DataVolumeTemplateSpec, volumes: &[Volume], causes: &mut Causes) {
    let name = template.metadata.as_ref().and_then(|metadata| metadata.name.as_deref()).unwrap_or_default();
    if name.is_empty() {
        let field = format!("{at}.name");
        let message = format!("'name' field must not be empty for DataVolumeTemplate entry {field}.");
        causes.required(field, message);
        return;
    }
    let spec = &template.spec;
    let populated = spec.pvc.as_ref().is_some_and(|pvc| pvc.data_source.is_some() || pvc.data_source_ref.is_some())
        || spec.storage.as_ref().is_some_and(|s| s.data_source.is_some() || s.data_source_ref.is_some());
    if spec.source.is_none() && spec.source_ref.is_none() && !populated {
        let message = "Data volume should have either Source, SourceRef, or be externally populated";
        causes.invalid(format!("{at}.source.sourceRef"), message);
        return;
    }
    let referenced = volumes.iter().any(|volume| {
        let data = volume.data_volume.as_ref().map(|source| source.name.as_str());
        let claim = volume.persistent_volume_claim.as_ref().map(|source| source.claim_name.as_str());
        data == Some(name) || claim == Some(name)
    });
    if !referenced {
        let message = format!("DataVolumeTemplate entry {at} must be referenced in the VMI template's 'volumes' list");
        causes.required(at, message);
    }
}

/// An instance type decides about CPU and memory, so a VM that has one may not.
fn instancetype_conflicts(at: &str, vm: &VirtualMachineSpec, causes: &mut Causes) {
    let (Some(_), Some(spec)) = (&vm.instancetype, &vm.template.spec) else { return };
    let set: Vec<String> = conflicts(spec).into_iter().map(|field| format!("{at}.template.spec.{field}")).collect();
    add_conflict(set, causes);
}

fn add_conflict(fields: Vec<String>, causes: &mut Causes) {
    let message = format!("VM field(s) {} conflicts with selected instance type", fields.join(", "));
    for field in fields {
        causes.invalid(field, message.clone());
    }
}

/// The refusal of fields that a VM and its instance type both set.
pub(crate) fn conflict(fields: Vec<String>) -> ErrorStatus {
    let mut causes = Causes::default();
    add_conflict(fields, &mut causes);
    causes.into_error()
}

/// The fields of an instance's spec that are set, and that any instance type sets too.
pub(crate) fn conflicts(spec: &VirtualMachineInstanceSpec) -> Vec<String> {
    let domain = &spec.domain;
    let cpu = domain.cpu.as_ref();
    let resource = |section: &str, name: &str| {
        domain.resources.as_ref().is_some_and(|resources| {
            let map = if section == "limits" { &resources.limits } else { &resources.requests };
            map.contains_key(name)
        })
    };
    let fields = [
        (cpu.is_some_and(|cpu| cpu.sockets.is_some()), "cpu.sockets"),
        (cpu.is_some_and(|cpu| cpu.cores.is_some()), "cpu.cores"),
        (cpu.is_some_and(|cpu| cpu.threads.is_some()), "cpu.threads"),
        (cpu.is_some_and(|cpu| cpu.model.is_some()), "cpu.model"),
        (cpu.is_some_and(|cpu| cpu.dedicated_cpu_placement.is_some()), "cpu.dedicatedCpuPlacement"),
        (cpu.is_some_and(|cpu| cpu.isolate_emulator_thread.is_some()), "cpu.isolateEmulatorThread"),
        (cpu.is_some_and(|cpu| cpu.numa.is_some()), "cpu.numa"),
        (cpu.is_some_and(|cpu| cpu.realtime.is_some()), "cpu.realtime"),
        (domain.memory.as_ref().is_some_and(|memory| memory.guest.is_some()), "memory.guest"),
        (resource("requests", "cpu"), "resources.requests.cpu"),
        (resource("requests", "memory"), "resources.requests.memory"),
        (resource("limits", "cpu"), "resources.limits.cpu"),
        (resource("limits", "memory"), "resources.limits.memory"),
    ];
    fields.into_iter().filter(|(set, _)| *set).map(|(_, field)| format!("domain.{field}")).collect()
}

/// Refuses to infer an instance type or a preference from what cannot say it.
pub(crate) fn check_inference(vm: &VirtualMachineSpec) -> Result<(), ErrorStatus> {
    let instancetype = vm.instancetype.as_ref();
    let preference = vm.preference.as_ref();
    let matchers = [
        ("instancetype", instancetype.map(|m| (&m.infer_from_volume, &m.name))),
        ("preference", preference.map(|m| (&m.infer_from_volume, &m.name))),
    ];
    for (field, matcher) in matchers {
        let Some((Some(volume), name)) = matcher else { continue };
        if name.as_deref().is_some_and(|name| !name.is_empty()) {
            return Err(name_beside_inference(field));
        }
        let volumes = vm.template.spec.as_ref().map(|spec| spec.volumes.as_slice()).unwrap_or_default();
        let why = match volumes.iter().find(|candidate| candidate.name == *volume) {
            None => format!("unable to find volume {volume} to infer defaults"),
            Some(found) if found.persistent_volume_claim.is_none() && found.data_volume.is_none() => {
                format!("unable to infer defaults from volume {volume} as type is not supported")
            }
            Some(_) => continue,
        };
        return Err(ErrorStatus::unreadable(why));
    }
    Ok(())
}

fn name_beside_inference(field: &str) -> ErrorStatus {
    let message = "Name already set, should be cleared before setting inferFromVolume";
    ErrorStatus::invalid(vec![StatusCause {
        field: Some(format!("spec.{field}.name")),
        message: Some(message.to_owned()),
        reason: Some(Reason::NotSupported.as_str().to_owned()),
    }])
}
