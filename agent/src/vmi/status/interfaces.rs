//! `status.interfaces`: the spec's NICs joined with what the guest agent tells, by MAC, then NICs that only the
//! guest knows.

use std::net::IpAddr;

use holdfast_agent_api::launcher::{GuestInfo, GuestInterface};
use holdfast_api::kubevirt::{Network, VirtualMachineInstance, VirtualMachineInstanceNetworkInterface};

use crate::vmi::{NicReport, VmiReport};

type Interface = VirtualMachineInstanceNetworkInterface;

/// Most interfaces that only the guest agent knows (bridges and tunnels of a guest that runs containers).
const MOST_GUEST_ONLY: usize = 10;

/// All interfaces: that of the pod's own network first, then in the order of the spec.
pub fn join(vmi: &VirtualMachineInstance, report: &VmiReport) -> Vec<Interface> {
    let network = |nic: &NicReport| vmi.spec.networks.iter().find(|network| network.name == nic.name);
    let is_primary = |nic: &&NicReport| network(nic).is_some_and(is_primary);
    let (primary, secondary): (Vec<_>, Vec<_>) = report.nics.iter().partition(is_primary);
    let guest = report.guest.as_ref();
    let known = primary.into_iter().chain(secondary).map(|nic| {
        let from_multus = network(nic).is_some_and(|network| network.multus.is_some());
        let in_domain = report.domain.nics.as_ref().is_none_or(|names| names.contains(&nic.name));
        interface(nic, in_domain, from_multus, guest.and_then(|guest| by_mac(guest, nic)))
    });
    let stranger = |there: &&GuestInterface| !report.nics.iter().any(|nic| is_of(there, nic));
    let strangers = guest.map(|guest| guest.interfaces.iter().filter(stranger)).into_iter().flatten();
    known.chain(strangers.take(MOST_GUEST_ONLY).map(guest_only)).collect()
}

fn is_primary(network: &Network) -> bool {
    network.pod.is_some() || network.multus.as_ref().is_some_and(|multus| multus.default == Some(true))
}

fn by_mac<'a>(guest: &'a GuestInfo, nic: &NicReport) -> Option<&'a GuestInterface> {
    guest.interfaces.iter().find(|there| is_of(there, nic))
}

fn is_of(there: &GuestInterface, nic: &NicReport) -> bool {
    there.mac.parse() == Ok(nic.mac)
}

fn interface(nic: &NicReport, in_domain: bool, from_multus: bool, guest: Option<&GuestInterface>) -> Interface {
    let sources = [("domain", in_domain), ("guest-agent", guest.is_some()), ("multus-status", from_multus)].into_iter();
    let sources: Vec<_> = sources.filter(|(_, there)| *there).map(|(name, _)| name).collect();
    let addresses = addresses(nic, guest);
    Interface {
        info_source: Some(sources.join(", ")),
        interface_name: guest.map(|there| there.name.clone()),
        ip_address: addresses.first().cloned(),
        ip_addresses: addresses,
        link_state: Some(if nic.link_up { "up" } else { "down" }.to_owned()),
        mac: Some(nic.mac.to_string()),
        name: Some(nic.name.clone()),
        pod_interface_name: Some(nic.pod_interface.to_string()),
        queue_count: i32::try_from(nic.queues).ok(),
    }
}

/// Where the VM is reached by this NIC. Behind NAT that is the pod, whatever the guest thinks; else the guest's own
/// word, once there is one, decides on what it has, and the address that it was given comes first.
fn addresses(nic: &NicReport, guest: Option<&GuestInterface>) -> Vec<String> {
    let given: Vec<String> = nic.addresses.iter().map(|address| address.ip().to_string()).collect();
    match guest {
        _ if nic.masquerade => given,
        None => given,
        Some(there) => {
            let (first, rest): (Vec<_>, Vec<_>) =
                canonical(&there.addresses).partition(|address| given.contains(address));
            first.into_iter().chain(rest).collect()
        }
    }
}

fn canonical(addresses: &[String]) -> impl Iterator<Item = String> {
    addresses.iter().map(|text| text.parse::<IpAddr>().map_or_else(|_| text.clone(), |address| address.to_string()))
}

fn guest_only(there: &GuestInterface) -> Interface {
    let addresses: Vec<_> = canonical(&there.addresses).collect();
    Interface {
        info_source: Some("guest-agent".to_owned()),
        interface_name: Some(there.name.clone()),
        ip_address: addresses.first().cloned(),
        ip_addresses: addresses,
        mac: (!there.mac.is_empty()).then(|| there.mac.to_lowercase()),
        ..Interface::default()
    }
}
