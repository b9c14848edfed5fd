//! Which changes of a VM's template need a restart to come into force.

use super::nics::{is_absent, is_pluggable};
use crate::kubevirt::{Interface, Network, VirtualMachineInstanceSpec, VirtualMachineInstanceTemplateSpec};

/// Whether the template now differs from the one that the VMI was made from in anything that a
/// running guest cannot be given: all but the number of sockets, the guest's memory, placement,
/// hotplugged volumes with their disks, and those NICs that are plugged and unplugged. `vmi` is
/// the spec of the VMI as it is; with `hot_plug`, NICs join and leave it while it runs.
pub fn restart_required(
    started: &VirtualMachineInstanceTemplateSpec,
    now: &VirtualMachineInstanceTemplateSpec,
    vmi: &VirtualMachineInstanceSpec,
    hot_plug: bool,
) -> bool {
    let (Some(started), Some(now)) = (&started.spec, &now.spec) else {
        return started.spec != now.spec;
    };
    without_live(started) != without_live(now) || nics_need_restart(started, now, vmi, hot_plug)
}

/// Whether a NIC of the guest is not in the template any more or is another there, or one is in the template that cannot
/// join the guest.
fn nics_need_restart(
    started: &VirtualMachineInstanceSpec,
    now: &VirtualMachineInstanceSpec,
    vmi: &VirtualMachineInstanceSpec,
    hot_plug: bool,
) -> bool {
    let present: Vec<&Interface> = vmi.domain.devices.interfaces.iter().filter(|nic| !is_absent(nic)).collect();
    // The one that a VM without NICs gets is in no template.
    let given = |nic: &Interface| {
        let on_pod = vmi.networks.iter().any(|network| network.name == nic.name && network.pod.is_some());
        on_pod && nic_of(started, &nic.name).0.is_none()
    };
    let changed = |nic: &&Interface| {
        let wanted = nic_of(now, &nic.name);
        // What the VMI has besides is what defaults and preferences gave it.
        wanted != nic_of(started, &nic.name) && wanted != nic_of(vmi, &nic.name)
    };
    let gone = |nic: &&Interface| nic_of(now, &nic.name).0.is_none() && !given(nic);
    let interfaces = &now.domain.devices.interfaces;
    let mut missing = interfaces.iter().filter(|nic| !is_absent(nic) && present.iter().all(|p| p.name != nic.name));
    present.iter().any(|nic| gone(nic) || changed(nic))
        || missing.any(|nic| !hot_plug || !is_pluggable(nic, &now.networks, &vmi.domain.devices))
        || (!hot_plug && present.iter().any(|nic| interfaces.iter().any(|w| w.name == nic.name && is_absent(w))))
}

/// A NIC of a spec with its network, without what follows the template while it runs.
fn nic_of(spec: &VirtualMachineInstanceSpec, name: &str) -> (Option<Interface>, Option<Network>) {
    let interface = spec.domain.devices.interfaces.iter().find(|nic| nic.name == name);
    let network = spec.networks.iter().find(|network| network.name == name);
    let mut network = network.cloned();
    if let Some(multus) = network.as_mut().and_then(|network| network.multus.as_mut()) {
        multus.network_name.clear();
    }
    (interface.map(|nic| Interface { state: None, ..nic.clone() }), network)
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
    devices.interfaces.clear();
    spec.networks.clear();
    spec
}
