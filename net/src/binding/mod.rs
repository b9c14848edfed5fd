//! The ways of binding a VM interface to a pod interface; one file each.

mod bridge;
mod macvtap;
mod masquerade;

use crate::desired::{DesiredState, Link, LinkKind, Netns, Tap};
use crate::error::ErrorClass;
use crate::mark::Mark;
use crate::model::{Binding, BindingMethod, GuestNic, IfName, MacAddr, PodInterface};

/// The lease time that guests are told: 999 days, for the address is the VM's for as long as the VM is there.
pub(crate) const LEASE_SECONDS: u32 = 999 * 24 * 60 * 60;

/// MAX_TAP_QUEUES of the kernel's drivers/net/tun.c.
const MAX_QUEUES: u32 = 256;

/// A binding that cannot be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BindingError {
    /// A group address.
    #[error("failed to bind interface `{nic}`: macAddress `{mac}` is a multicast address")]
    Mac {
        /// The interface.
        nic: String,
        /// The address.
        mac: MacAddr,
    },
    /// No queue.
    #[error("failed to bind interface `{nic}`: it has {queues} queues, valid is 1 to {most}")]
    Queues {
        /// The interface.
        nic: String,
        /// How many.
        queues: u32,
        /// How many it may have.
        most: u32,
    },
    /// Too small a network.
    #[error("failed to bind interface `{nic}`: vmNetworkCIDR `{cidr}` has no room for a gateway and a guest; /30 has")]
    Cidr {
        /// The interface.
        nic: String,
        /// The network.
        cidr: ipnetwork::Ipv4Network,
    },
    /// Too small a network.
    #[error(
        "failed to bind interface `{nic}`: vmIPv6NetworkCIDR `{cidr}` has no room for a gateway and a guest; /126 has"
    )]
    CidrV6 {
        /// The interface.
        nic: String,
        /// The network.
        cidr: ipnetwork::Ipv6Network,
    },
    /// The guest would get the pod's address, and the pod has none.
    #[error("failed to bind interface `{nic}`: pod interface `{pod_interface}` has no address to translate to")]
    NoAddress {
        /// The interface.
        nic: String,
        /// The pod interface.
        pod_interface: IfName,
    },
}

impl BindingError {
    /// What to do about it.
    pub fn class(&self) -> ErrorClass {
        ErrorClass::Invalid
    }

    /// A word for conditions and events.
    pub fn reason(&self) -> &'static str {
        "InvalidBinding"
    }
}

fn networks(v4: ipnetwork::Ipv4Network, v6: ipnetwork::Ipv6Network) -> masquerade::Networks {
    masquerade::Networks { v4, v6 }
}

/// Checks what the types do not.
///
/// # Errors
/// Names the field, its value and what would be valid.
pub fn validate(binding: &Binding) -> Result<(), BindingError> {
    if binding.guest_mac.is_multicast() {
        return Err(BindingError::Mac { nic: binding.nic.clone(), mac: binding.guest_mac });
    }
    if !(1..=MAX_QUEUES).contains(&binding.queues) {
        return Err(BindingError::Queues { nic: binding.nic.clone(), queues: binding.queues, most: MAX_QUEUES });
    }
    match &binding.method {
        BindingMethod::Masquerade { cidr, cidr_v6, .. } => masquerade::validate(binding, networks(*cidr, *cidr_v6)),
        // One queue is what its hypervisor can be handed.
        BindingMethod::Macvtap if binding.queues > 1 => {
            Err(BindingError::Queues { nic: binding.nic.clone(), queues: binding.queues, most: 1 })
        }
        BindingMethod::Bridge | BindingMethod::Macvtap => Ok(()),
    }
}

/// What shall be in the pod's namespace for this binding.
///
/// # Errors
/// Those of [`validate`].
pub fn desired(binding: &Binding) -> Result<DesiredState, BindingError> {
    validate(binding)?;
    Ok(match &binding.method {
        BindingMethod::Masquerade { cidr, cidr_v6, ports } => {
            masquerade::desired(binding, networks(*cidr, *cidr_v6), ports)
        }
        BindingMethod::Bridge => bridge::desired(binding),
        BindingMethod::Macvtap => macvtap::desired(binding),
    })
}

/// What the launcher must know of the NIC that this binding makes.
///
/// # Errors
/// Those of [`validate`].
pub fn guest_nic(binding: &Binding) -> Result<GuestNic, BindingError> {
    validate(binding)?;
    Ok(match &binding.method {
        BindingMethod::Masquerade { cidr, cidr_v6, .. } => masquerade::guest_nic(binding, networks(*cidr, *cidr_v6)),
        BindingMethod::Bridge => bridge::guest_nic(binding),
        BindingMethod::Macvtap => macvtap::guest_nic(binding),
    })
}

/// Name of the tap of a pod interface: `tap0` for `eth0`, `tap<hash>` for `pod<hash>`.
pub fn tap_name(pod_interface: &IfName) -> IfName {
    named_after("tap", pod_interface, |name| name.strip_prefix("eth").or_else(|| name.strip_prefix("pod")))
}

/// Name of the bridge in the pod between a pod interface and its tap: `k6t-eth0`, `k6t-<hash>` for `pod<hash>`.
pub fn bridge_name(pod_interface: &IfName) -> IfName {
    named_after("k6t-", pod_interface, |name| Some(name.strip_prefix("pod").unwrap_or(name)))
}

/// `prefix` and the short form of the pod interface's name; a hash in its place where that is none or too long.
fn named_after(prefix: &str, pod_interface: &IfName, short: fn(&str) -> Option<&str>) -> IfName {
    short(pod_interface.as_str())
        .filter(|rest| !rest.is_empty())
        .and_then(|rest| format!("{prefix}{rest}").parse().ok())
        .unwrap_or_else(|| IfName::hashed(prefix, pod_interface.as_str(), 11))
}

/// The tap, as a port of the binding's bridge.
fn tap(binding: &Binding) -> Link {
    let (uid, gid) = binding.tap_owner;
    let tap = Tap { uid, gid, multi_queue: binding.queues > 1, vnet_header: true };
    let mut link = Link::new(LinkKind::Tap { mark: Mark::Binding(binding.nic.clone()), tap });
    link.mtu = Some(binding.pod.mtu);
    // The guest sees no carrier by its NIC's link state; this is so that nothing passes either.
    link.up = Some(binding.link_up);
    link.master = Some(bridge_name(&binding.pod_interface));
    link
}

/// A state that claims this binding in its pod.
fn claim(binding: &Binding) -> (DesiredState, Netns) {
    let netns = Netns::Path(binding.netns.clone());
    let mut state = DesiredState::default();
    state.claim(netns.clone(), Mark::Binding(binding.nic.clone()));
    (state, netns)
}

/// A state that claims this binding in its pod, with the tap.
fn begin(binding: &Binding) -> (DesiredState, Netns) {
    let (mut state, netns) = claim(binding);
    let pod = state.namespace(&netns);
    let tap_name = tap_name(&binding.pod_interface);
    pod.sysctls.insert(format!("net/ipv6/conf/{tap_name}/disable_ipv6"), "1".to_owned());
    pod.links.insert(tap_name, tap(binding));
    (state, netns)
}

/// A NIC without addresses and DHCP.
fn bare_nic(binding: &Binding) -> GuestNic {
    GuestNic {
        name: binding.nic.clone(),
        pod_interface: binding.pod_interface.clone(),
        tap: tap_name(&binding.pod_interface),
        mac: binding.guest_mac,
        mtu: binding.pod.mtu,
        queues: binding.queues,
        macvtap: false,
        dhcp_v4: None,
        addresses: Vec::new(),
    }
}

/// The first IPv4 address of a pod interface.
fn ipv4(addresses: &[ipnetwork::IpNetwork]) -> Option<ipnetwork::Ipv4Network> {
    addresses.iter().find_map(|address| match address {
        ipnetwork::IpNetwork::V4(address) => Some(*address),
        ipnetwork::IpNetwork::V6(_) => None,
    })
}

/// The IPv4 ones of some addresses.
fn ipv4_of(addresses: &[std::net::IpAddr]) -> Vec<std::net::Ipv4Addr> {
    addresses
        .iter()
        .filter_map(|address| match address {
            std::net::IpAddr::V4(address) => Some(*address),
            std::net::IpAddr::V6(_) => None,
        })
        .collect()
}

/// The IPv4 default gateway and the other IPv4 routes of a pod interface.
fn ipv4_routes(pod: &PodInterface) -> (Option<std::net::Ipv4Addr>, Vec<crate::model::StaticRoute>) {
    let (default, others): (Vec<_>, Vec<_>) = pod
        .routes
        .iter()
        .filter(|route| route.destination.is_ipv4())
        .cloned()
        .partition(|route| route.destination.prefix() == 0);
    let gateway = default.into_iter().find_map(|route| match route.gateway {
        Some(std::net::IpAddr::V4(gateway)) => Some(gateway),
        Some(std::net::IpAddr::V6(_)) | None => None,
    });
    (gateway, others)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Delivery, StaticRoute};

    fn bound(method: BindingMethod) -> Binding {
        Binding {
            nic: "default".to_owned(),
            netns: "/run/netns/c".into(),
            pod_interface: "eth0".parse().unwrap(),
            pod: PodInterface {
                mac: "02:00:00:00:00:01".parse().unwrap(),
                mtu: 1450,
                addresses: vec!["2001:db8::5/64".parse().unwrap(), "10.7.0.5/24".parse().unwrap()],
                routes: vec![
                    StaticRoute {
                        destination: "0.0.0.0/0".parse().unwrap(),
                        gateway: Some("10.7.0.1".parse().unwrap()),
                    },
                    StaticRoute { destination: "192.0.2.0/24".parse().unwrap(), gateway: None },
                ],
            },
            method,
            guest_mac: "02:00:00:00:00:09".parse().unwrap(),
            tap_owner: (107, 107),
            queues: 1,
            link_up: true,
            delivery: None,
            hostname: "guest".to_owned(),
        }
    }

    fn masqueraded(cidr: &str, cidr_v6: &str) -> BindingMethod {
        let (cidr, cidr_v6) = (cidr.parse().unwrap(), cidr_v6.parse().unwrap());
        BindingMethod::Masquerade { cidr, cidr_v6, ports: Vec::new() }
    }

    fn masquerade() -> BindingMethod {
        masqueraded("10.0.2.0/24", "fd10:0:2::/120")
    }

    #[test]
    fn a_masqueraded_guest_has_an_address_of_its_own_inside_and_the_pods_outside() {
        let nic = guest_nic(&bound(masquerade())).unwrap();
        let lease = nic.dhcp_v4.unwrap();
        assert_eq!(lease.address.to_string(), "10.0.2.2/24");
        assert_eq!((lease.server.to_string(), lease.router), ("10.0.2.1".to_owned(), Some(lease.server)));
        assert_eq!(nic.addresses, bound(masquerade()).pod.addresses);
        assert_eq!((nic.tap.as_str(), nic.mtu, nic.queues), ("tap0", 1450, 1));
    }

    #[test]
    fn a_bridged_guest_inherits_what_the_pod_interface_had() {
        let lease = guest_nic(&bound(BindingMethod::Bridge)).unwrap().dhcp_v4.unwrap();
        assert_eq!(lease.address.to_string(), "10.7.0.5/24");
        assert_eq!(lease.router.map(|router| router.to_string()), Some("10.7.0.1".to_owned()));
        assert_eq!(lease.routes.len(), 1);
        assert_eq!(lease.hostname.as_deref(), Some("guest"));
    }

    #[test]
    fn a_bridged_guest_gets_what_its_network_delivers() {
        let mut binding = bound(BindingMethod::Bridge);
        let delivery = Delivery {
            addresses: vec!["10.8.0.9/30".parse().unwrap()],
            dns: vec!["10.8.0.10".parse().unwrap(), "2001:db8::1".parse().unwrap()],
            dhcp_v4: true,
            ..Delivery::default()
        };
        binding.delivery = Some(delivery.clone());
        let nic = guest_nic(&binding).unwrap();
        let lease = nic.dhcp_v4.unwrap();
        // No gateway, yet a server needs an identifier that is not the guest's.
        assert_eq!((lease.router, lease.server.to_string()), (None, "10.8.0.10".to_owned()));
        assert_eq!(lease.dns.len(), 1);
        assert_eq!(nic.addresses, delivery.addresses);
        binding.delivery = Some(Delivery { dhcp_v4: false, ..delivery });
        assert_eq!(guest_nic(&binding).unwrap().dhcp_v4, None);
    }

    #[test]
    fn refuses_what_cannot_be_bound() {
        let reason = |binding: &Binding| desired(binding).unwrap_err().to_string();
        let small = masqueraded("10.0.2.0/31", "fd10:0:2::/120");
        assert!(reason(&bound(small)).contains("vmNetworkCIDR `10.0.2.0/31`"));
        let small = masqueraded("10.0.2.0/24", "fd10:0:2::/127");
        assert!(reason(&bound(small)).contains("vmIPv6NetworkCIDR `fd10:0:2::/127`"));
        let mut binding = bound(masquerade());
        binding.pod.addresses.pop();
        assert_eq!(guest_nic(&binding).unwrap().dhcp_v4, None, "only IPv6 is left");
        binding.pod.addresses.clear();
        assert!(reason(&binding).contains("pod interface `eth0` has no address"));
        let none = Binding { queues: 0, ..bound(BindingMethod::Bridge) };
        assert!(reason(&none).contains("0 queues, valid is 1 to 256"));
        let multicast = Binding { guest_mac: MacAddr::BROADCAST, ..bound(BindingMethod::Bridge) };
        assert!(reason(&multicast).contains("multicast"));
    }

    #[test]
    fn names_taps_and_bridges_after_the_pod_interface() {
        for (pod, tap, bridge) in [
            ("eth0", "tap0", "k6t-eth0"),
            ("pod16477688c0e", "tap16477688c0e", "k6t-16477688c0e"),
            ("net1", "tap1d9b45ae0e6", "k6t-net1"),
        ] {
            let pod: IfName = pod.parse().unwrap();
            assert_eq!(bridge_name(&pod).as_str(), bridge);
            assert_eq!(tap_name(&pod).as_str().len(), tap.len());
        }
        assert_eq!(tap_name(&"eth0".parse().unwrap()).as_str(), "tap0");
        assert_eq!(bridge_name(&"a-name-of-15-by".parse().unwrap()).as_str().len(), 15);
    }
}
