//! A VMI's NICs as bindings: what [`net`](holdfast_net) shall wire in the sandbox. Pure.
//!
//! What a binding can check by itself, [`holdfast_net::binding::validate`] does; here is what only the VMI knows.
//! The guest's MAC is the spec's, else the lease's, else the pod interface's own.

use std::collections::BTreeMap;
use std::path::Path;

use holdfast_api::kubevirt::{CPU, Interface, Network, Port, VirtualMachineInstance};
use holdfast_api::run_strategy::{ABSENT, is_absent};
use holdfast_net::model::{Binding, BindingMethod, ForwardedPort, IfName, MacAddr, PodInterface, Protocol};
use ipnetwork::{Ipv4Network, Ipv6Network};

use holdfast_ipam::nic::is_macvtap;

use super::NicInput;

/// User and group of the launcher, who opens the taps.
pub const LAUNCHER_USER: (u32, u32) = (107, 107);
/// The network between guest and pod behind masquerade, unless the spec says otherwise.
const DEFAULT_VM_NETWORK: &str = "10.0.2.0/24";
const DEFAULT_VM_NETWORK_V6: &str = "fd10:0:2::/120";
/// More queues than this no tap has (MAX_TAP_QUEUES of the kernel).
const MAX_QUEUES: u32 = 256;
/// Longest host name that a guest gets, in bytes (RFC 1035's label).
const MAX_HOSTNAME: usize = 63;

/// An interface of a spec that cannot be wired as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to wire interface `{interface}`: {problem}")]
pub struct NicError {
    /// Its name.
    pub interface: String,
    /// The field, its value, and what would be valid.
    pub problem: String,
}

/// The bindings of a VMI in the order of its spec: of all NICs but those of `state: absent` that `nics` lacks. `pods`
/// holds the interfaces as CNI left them, by name.
///
/// # Errors
/// Names the first interface that cannot be wired; nothing is wired then.
pub fn bindings(
    vmi: &VirtualMachineInstance,
    nics: &[NicInput],
    netns: &Path,
    pods: &BTreeMap<IfName, PodInterface>,
) -> Result<Vec<Binding>, NicError> {
    let devices = &vmi.spec.domain.devices;
    let multiqueue = devices.network_interface_multiqueue.unwrap_or_default();
    let attached = |interface: &Interface| nics.iter().any(|nic| nic.interface == interface.name);
    let wanted = devices.interfaces.iter().filter(|interface| !is_absent(interface) || attached(interface));
    let bind = |interface: &Interface| {
        let fail = |problem: String| NicError { interface: interface.name.clone(), problem };
        let network = vmi.spec.networks.iter().find(|network| network.name == interface.name);
        let network =
            network.ok_or_else(|| fail(format!("spec.networks has no network named `{}`", interface.name)))?;
        let nic = nics.iter().find(|nic| nic.interface == interface.name);
        let nic = nic.ok_or_else(|| fail("the sandbox has no attachment for it".to_owned()))?;
        let pod = pods.get(&nic.pod_interface);
        let pod = pod.ok_or_else(|| fail(format!("the pod interface `{}` was not recorded", nic.pod_interface)))?;
        Ok(Binding {
            nic: interface.name.clone(),
            netns: netns.to_owned(),
            pod_interface: nic.pod_interface.clone(),
            pod: pod.clone(),
            method: method(interface, network).map_err(fail)?,
            guest_mac: guest_mac(interface, nic, pod).map_err(fail)?,
            tap_owner: LAUNCHER_USER,
            // What opens a macvtap for its hypervisor hands it one queue.
            queues: if multiqueue && !is_macvtap(interface) {
                queues(interface, vmi.spec.domain.cpu.as_ref())
            } else {
                1
            },
            link_up: link_up(interface).map_err(fail)?,
            delivery: nic.delivery.clone(),
            hostname: hostname(vmi),
        })
    };
    wanted.map(bind).collect()
}

/// Whether the spec wants a NIC gone.
pub fn is_leaving(vmi: &VirtualMachineInstance, interface: &str) -> bool {
    vmi.spec.domain.devices.interfaces.iter().any(|nic| nic.name == interface && is_absent(nic))
}

/// Whether a network is the pod's own, as opposed to one that Multus adds.
pub fn is_pod_network(network: &Network) -> bool {
    network.pod.is_some()
}

fn method(interface: &Interface, network: &Network) -> Result<BindingMethod, String> {
    if !interface.port_ranges.is_empty() {
        return Err("portRanges is not supported; list the ports in `ports`".to_owned());
    }
    match (&interface.masquerade, &interface.bridge, &interface.binding) {
        (Some(_), None, None) if is_pod_network(network) => {
            let (cidr, cidr_v6) = vm_networks(network)?;
            Ok(BindingMethod::Masquerade { cidr, cidr_v6, ports: ports(&interface.ports)? })
        }
        (Some(_), None, None) => Err(format!("masquerade needs the pod network, and `{}` is another", network.name)),
        (None, Some(_), None) => Ok(BindingMethod::Bridge),
        (None, None, Some(_)) if is_macvtap(interface) => Ok(BindingMethod::Macvtap),
        _ => Err(format!(
            "its binding {} is not supported; use one of masquerade, bridge and `binding: {{name: macvtap}}`",
            binding_name(interface)
        )),
    }
}

fn binding_name(interface: &Interface) -> String {
    let given = [
        ("masquerade", interface.masquerade.is_some()),
        ("bridge", interface.bridge.is_some()),
        ("sriov", interface.sriov.is_some()),
        ("passtBinding", interface.passt_binding.is_some()),
        ("macvtap", interface.macvtap.is_some()),
        ("passt", interface.passt.is_some()),
        ("slirp", interface.slirp.is_some()),
        ("binding", interface.binding.is_some()),
    ];
    let names: Vec<_> = given.iter().filter(|(_, there)| *there).map(|(name, _)| format!("`{name}`")).collect();
    if names.is_empty() { "(none)".to_owned() } else { names.join(" with ") }
}

/// The networks between guest and pod, of IPv4 and of IPv6.
fn vm_networks(network: &Network) -> Result<(Ipv4Network, Ipv6Network), String> {
    let pod = network.pod.as_ref();
    let v4 = pod.and_then(|pod| pod.vm_network_cidr.as_deref());
    let v6 = pod.and_then(|pod| pod.vm_i_pv6_network_cidr.as_deref());
    let v4 = v4.filter(|text| !text.is_empty()).unwrap_or(DEFAULT_VM_NETWORK);
    let v6 = v6.filter(|text| !text.is_empty()).unwrap_or(DEFAULT_VM_NETWORK_V6);
    Ok((
        v4.parse().map_err(|_| format!("vmNetworkCIDR `{v4}` is not an IPv4 prefix such as {DEFAULT_VM_NETWORK}"))?,
        v6.parse()
            .map_err(|_| format!("vmIPv6NetworkCIDR `{v6}` is not an IPv6 prefix such as {DEFAULT_VM_NETWORK_V6}"))?,
    ))
}

fn ports(ports: &[Port]) -> Result<Vec<ForwardedPort>, String> {
    let forward = |port: &Port| {
        let number = u16::try_from(port.port).ok().filter(|number| *number > 0);
        let number = number.ok_or_else(|| format!("port {} is not one of 1 to 65535", port.port))?;
        let protocol = match port.protocol.as_deref().unwrap_or_default() {
            "" | "TCP" => Protocol::Tcp,
            "UDP" => Protocol::Udp,
            other => return Err(format!("protocol `{other}` of port {number} is neither TCP nor UDP")),
        };
        Ok(ForwardedPort { protocol, port: number })
    };
    ports.iter().map(forward).collect()
}

fn guest_mac(interface: &Interface, nic: &NicInput, pod: &PodInterface) -> Result<MacAddr, String> {
    match interface.mac_address.as_deref().filter(|text| !text.is_empty()) {
        Some(text) => text.parse().map_err(|error| format!("macAddress: {error}")),
        None => Ok(nic.mac.unwrap_or(pod.mac)),
    }
}

fn queues(interface: &Interface, cpu: Option<&CPU>) -> u32 {
    let virtio = matches!(interface.model.as_deref(), None | Some("" | "virtio"));
    if virtio { vcpus(cpu).min(MAX_QUEUES) } else { 1 }
}

fn vcpus(cpu: Option<&CPU>) -> u32 {
    let part = |count: Option<i64>| u32::try_from(count.unwrap_or(1).max(1)).unwrap_or(u32::MAX);
    cpu.map_or(1, |cpu| part(cpu.sockets).saturating_mul(part(cpu.cores)).saturating_mul(part(cpu.threads)))
}

fn link_up(interface: &Interface) -> Result<bool, String> {
    match interface.state.as_deref() {
        None | Some("" | "up" | ABSENT) => Ok(true),
        Some("down") => Ok(false),
        Some(other) => Err(format!("state `{other}` is not one of up, down and absent")),
    }
}

/// The guest's host name: the spec's, else the VMI's name; one label.
fn hostname(vmi: &VirtualMachineInstance) -> String {
    let given = vmi.spec.hostname.as_deref().filter(|name| !name.is_empty());
    let name = given.or(vmi.metadata.name.as_deref()).unwrap_or_default();
    let label = name.split('.').next().unwrap_or_default();
    let end = label.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= MAX_HOSTNAME).last();
    label[..end.unwrap_or(0)].trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests;
