//! The NICs of a VM that runs: what its template asks for now, as far as a running guest can be given it.
//!
//! A NIC that the template gets is plugged, one whose `state` becomes `absent` is unplugged, and `up` and `down` switch
//! its link. What is not here needs a restart ([`restart_required`](super::restart_required)).

use crate::kubevirt::{
    Devices, Interface, Network, VirtualMachine, VirtualMachineInstance, VirtualMachineInstanceSpec,
};
use crate::status::is_final;

/// The state of a NIC that is to go.
pub const ABSENT: &str = "absent";

/// What a VMI's spec says of its NICs.
#[derive(Debug, Clone, PartialEq)]
pub struct Nics {
    /// `spec.domain.devices.interfaces`.
    pub interfaces: Vec<Interface>,
    /// `spec.networks`.
    pub networks: Vec<Network>,
}

impl Nics {
    /// Those of a spec.
    pub fn of(spec: &VirtualMachineInstanceSpec) -> Self {
        Self { interfaces: spec.domain.devices.interfaces.clone(), networks: spec.networks.clone() }
    }

    /// Writes them into a spec.
    pub fn put(self, spec: &mut VirtualMachineInstanceSpec) {
        spec.domain.devices.interfaces = self.interfaces;
        spec.networks = self.networks;
    }

    /// Takes NICs away by name, each with its network.
    #[must_use]
    pub fn without(mut self, gone: impl Fn(&Interface) -> bool) -> Self {
        let names: Vec<String> = self.interfaces.iter().filter(|nic| gone(nic)).map(|nic| nic.name.clone()).collect();
        self.interfaces.retain(|nic| !names.contains(&nic.name));
        self.networks.retain(|network| !names.contains(&network.name));
        self
    }
}

impl Nics {
    /// Of these only which links are up: for where NICs join and leave a guest by a restart.
    #[must_use]
    pub fn links_only(mut self, spec: &VirtualMachineInstanceSpec) -> Self {
        let present = &spec.domain.devices.interfaces;
        self.interfaces.retain(|nic| present.iter().any(|there| there.name == nic.name));
        for nic in self.interfaces.iter_mut().filter(|nic| is_absent(nic)) {
            nic.state = present.iter().find(|there| there.name == nic.name).and_then(|there| there.state.clone());
        }
        Self { networks: spec.networks.clone(), ..self }
    }
}

/// Whether a NIC is to go.
pub fn is_absent(interface: &Interface) -> bool {
    interface.state.as_deref() == Some(ABSENT)
}

/// Whether a NIC can join a guest that runs: on a bridge of a network besides the pod's, as a device that a port of the
/// machine takes while it runs.
pub(super) fn is_pluggable(interface: &Interface, networks: &[Network], devices: &Devices) -> bool {
    let network = networks.iter().find(|network| network.name == interface.name);
    let multus = network.and_then(|network| network.multus.as_ref());
    let hot = matches!(interface.model.as_deref(), None | Some("" | "virtio" | "e1000e" | "igb"))
        && devices.use_virtio_transitional != Some(true);
    interface.bridge.is_some()
        && multus.is_some_and(|multus| multus.default != Some(true))
        && hot
        && devices.disable_hotplug != Some(true)
}

/// The NICs that the VMI shall have, where they are others than it has. One that is on its way out is left alone until
/// it is gone, also where the template wants it back.
pub fn live_nics(vm: &VirtualMachine, vmi: &VirtualMachineInstance) -> Option<Nics> {
    let template = vm.spec.template.spec.as_ref()?;
    if is_final(vmi) || vmi.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let mut nics = Nics::of(&vmi.spec);
    for wanted in &template.domain.devices.interfaces {
        let present = nics.interfaces.iter_mut().find(|nic| nic.name == wanted.name);
        match present {
            Some(present) if !is_absent(present) => present.state.clone_from(&wanted.state),
            Some(_) => {}
            None if is_absent(wanted) => {}
            None if is_pluggable(wanted, &template.networks, &vmi.spec.domain.devices) => {
                nics.networks.extend(template.networks.iter().filter(|network| network.name == wanted.name).cloned());
                nics.interfaces.push(wanted.clone());
            }
            None => {}
        }
    }
    (nics != Nics::of(&vmi.spec)).then_some(nics)
}

/// Whether a VM still has a network, of which it holds addresses: by its template, or by a VMI that runs with it. One
/// without networks has what a default gives it.
pub fn has_network(vm: &VirtualMachine, vmi: Option<&VirtualMachineInstance>, network: &str) -> bool {
    let is_among = |networks: &[Network]| networks.iter().any(|entry| entry.name == network);
    let template = vm.spec.template.spec.as_ref().map(|spec| spec.networks.as_slice()).unwrap_or_default();
    template.is_empty() || is_among(template) || vmi.is_some_and(|vmi| is_among(&vmi.spec.networks))
}
