//! Instance types: the size of a machine.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::topology::Topology;
use crate::kubevirt::{VirtualMachineInstanceSpec, VirtualMachineInstancetypeSpec, VirtualMachinePreferenceSpec};
use crate::quantity::{self, Parsed};
use crate::validate;

/// See [`super::conflicts`].
pub(super) fn conflicts(
    instancetype: &VirtualMachineInstancetypeSpec,
    metadata: &ObjectMeta,
    spec: &VirtualMachineInstanceSpec,
) -> Vec<String> {
    let mut found = validate::conflicts(spec);
    let domain = &spec.domain;
    let devices = &domain.devices;
    let both = [
        (instancetype.io_threads_policy.is_some() && domain.io_threads_policy.is_some(), "domain.ioThreadsPolicy"),
        (instancetype.io_threads.is_some() && domain.io_threads.is_some(), "domain.ioThreads"),
        (instancetype.launch_security.is_some() && domain.launch_security.is_some(), "domain.launchSecurity"),
        (!instancetype.gpus.is_empty() && !devices.gpus.is_empty(), "domain.devices.gpus"),
        (!instancetype.host_devices.is_empty() && !devices.host_devices.is_empty(), "domain.devices.hostDevices"),
        (instancetype.scheduler_name.is_some() && spec.scheduler_name.is_some(), "schedulerName"),
    ];
    found.extend(both.into_iter().filter(|(set, _)| *set).map(|(_, field)| field.to_owned()));
    let labels = instancetype.node_selector.keys().filter(|key| spec.node_selector.contains_key(*key));
    found.extend(labels.map(|key| format!("nodeSelector.{key}")));
    let mut found: Vec<String> = found.into_iter().map(|field| format!("spec.template.spec.{field}")).collect();
    let given = metadata.annotations.as_ref();
    let other = |(key, value): &(&String, &String)| {
        given.and_then(|given| given.get(*key)).is_some_and(|given| given != *value)
    };
    let annotations = instancetype.annotations.iter().filter(other);
    found.extend(annotations.map(|(key, _)| format!("spec.template.metadata.annotations.{key}")));
    found
}

/// Sets what an instance type says; there are no conflicts. CPUs that cannot be spread as the preference wants are
/// sockets: [`super::requirements`] refuses such a machine.
pub(super) fn apply(
    instancetype: &VirtualMachineInstancetypeSpec,
    preference: Option<&VirtualMachinePreferenceSpec>,
    metadata: &mut ObjectMeta,
    spec: &mut VirtualMachineInstanceSpec,
) {
    let sockets = Topology { sockets: instancetype.cpu.guest, cores: 1, threads: 1 };
    set_cpu(instancetype, Topology::of(instancetype.cpu.guest, preference).unwrap_or(sockets), spec);
    set_memory(instancetype, spec);
    let domain = &mut spec.domain;
    or(&mut domain.io_threads_policy, instancetype.io_threads_policy.as_ref());
    or(&mut domain.io_threads, instancetype.io_threads.as_ref());
    or(&mut domain.launch_security, instancetype.launch_security.as_ref());
    or(&mut spec.scheduler_name, instancetype.scheduler_name.as_ref());
    domain.devices.gpus.extend(instancetype.gpus.iter().cloned());
    domain.devices.host_devices.extend(instancetype.host_devices.iter().cloned());
    spec.node_selector.extend(instancetype.node_selector.clone());
    super::preference::annotate(metadata, &instancetype.annotations);
}

fn set_cpu(instancetype: &VirtualMachineInstancetypeSpec, topology: Topology, spec: &mut VirtualMachineInstanceSpec) {
    let given = &instancetype.cpu;
    let cpu = spec.domain.cpu.get_or_insert_default();
    cpu.sockets = Some(topology.sockets);
    cpu.cores = Some(topology.cores);
    cpu.threads = Some(topology.threads);
    or(&mut cpu.max_sockets, given.max_sockets.as_ref());
    or(&mut cpu.model, given.model.as_ref());
    or(&mut cpu.dedicated_cpu_placement, given.dedicated_cpu_placement.as_ref());
    or(&mut cpu.isolate_emulator_thread, given.isolate_emulator_thread.as_ref());
    or(&mut cpu.numa, given.numa.as_ref());
    or(&mut cpu.realtime, given.realtime.as_ref());
}

fn set_memory(instancetype: &VirtualMachineInstancetypeSpec, spec: &mut VirtualMachineInstanceSpec) {
    let given = &instancetype.memory;
    let memory = spec.domain.memory.get_or_insert_default();
    memory.guest = Some(given.guest.clone());
    or(&mut memory.max_guest, given.max_guest.as_ref());
    or(&mut memory.hugepages, given.hugepages.as_ref());
    let percent = i64::from(given.overcommit_percent.unwrap_or_default());
    if percent > 0
        && let Ok(guest) = quantity::parse(&given.guest)
    {
        let requested = guest.value() / 100 * (100 - percent);
        let requests = &mut spec.domain.resources.get_or_insert_default().requests;
        requests.insert("memory".to_owned(), Parsed::bytes(requested).canonical());
    }
}

/// Sets what is not set, where there is something to set it to.
pub(super) fn or<T: Clone>(field: &mut Option<T>, value: Option<&T>) {
    if field.is_none() {
        *field = value.cloned();
    }
}
