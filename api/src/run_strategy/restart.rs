//! Which changes of a VM's template need a restart to come into force.

use crate::kubevirt::{VirtualMachineInstanceSpec, VirtualMachineInstanceTemplateSpec};

/// Whether the template now differs from the one that the VMI was made from in anything that a
/// running guest cannot be given: all but the number of sockets, the guest's memory, placement,
/// hotplugged volumes with their disks, and the state and network of its NICs.
pub fn restart_required(
    started: &VirtualMachineInstanceTemplateSpec,
    now: &VirtualMachineInstanceTemplateSpec,
) -> bool {
    let (Some(started), Some(now)) = (&started.spec, &now.spec) else {
        return started.spec != now.spec;
    };
    let (started, now) = (without_live(started), without_live(now));
    started != now
}

/// The spec without what can change while it runs.
fn without_live(spec: &VirtualMachineInstanceSpec) -> VirtualMachineInstanceSpec {
    let mut spec = spec.clone();
    if let Some(cpu) = &mut spec.domain.cpu {
        cpu.sockets = None;
    }
    if let Some(memory) = &mut spec.domain.memory {
        memory.guest = None;
    }
    spec.node_selector.clear();
    spec.affinity = None;
    spec.tolerations.clear();
    let hotplugged: Vec<String> = spec
        .volumes
        .iter()
        .filter(|volume| {
            let claim = volume.persistent_volume_claim.as_ref();
            let data = volume.data_volume.as_ref();
            claim.is_some_and(|source| source.hotpluggable == Some(true))
                || data.is_some_and(|source| source.hotpluggable == Some(true))
        })
        .map(|volume| volume.name.clone())
        .collect();
    spec.volumes.retain(|volume| !hotplugged.contains(&volume.name));
    let devices = &mut spec.domain.devices;
    devices.disks.retain(|disk| !hotplugged.contains(&disk.name));
    for interface in &mut devices.interfaces {
        interface.state = None;
    }
    for network in &mut spec.networks {
        if let Some(multus) = &mut network.multus {
            multus.network_name.clear();
        }
    }
    spec
}
