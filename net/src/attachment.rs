//! From an attachment to the desired state of its devices: a veth pair, its host end plugged into the backend; or a
//! macvlan or macvtap on a link of the host, which has no host end.

use std::collections::BTreeSet;

use crate::desired::{DesiredState, Link, LinkKind, Netns, OvsPort, Route, TxChecksum};
use crate::error::ErrorClass;
use crate::mark::{Mark, OwnedTable};
use crate::model::{Attachment, AttachmentId, Backend, Bandwidth, BridgeGateway, IfName, MacAddr, Rate, Vlan};
use crate::security::rules::{elements, tagged};
use crate::table::{Chain, Family, Hook, Match, Rule, Table, Verdict};

/// The smallest MTU of IPv4 (RFC 791), and the largest that a veth takes.
const MTU_RANGE: std::ops::RangeInclusive<u32> = 68..=65535;

/// An attachment that cannot be carried out by any host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttachmentError {
    /// A group address.
    #[error("failed to accept mac `{0}`: a NIC's address is no multicast address")]
    Mac(MacAddr),
    /// Out of range.
    #[error("failed to accept mtu {0}: valid is 68 to 65535")]
    Mtu(u32),
    /// Out of range.
    #[error("failed to accept vlan {0}: valid is 1 to 4094")]
    Vlan(u16),
    /// Out of range.
    #[error("failed to accept a rate of {0} bits per second: valid is 8 to {most}", most = Rate::MOST)]
    Rate(u64),
    /// There is nothing where frames could wait.
    #[error("failed to accept a bandwidth on a macvtap: it has no host end")]
    Unshaped,
    /// A trunk of nothing.
    #[error("failed to accept vlan trunk: it has no tag")]
    EmptyTrunk,
    /// Linux bridges have no such ports.
    #[error("failed to accept vlan tunnel {0} on a Linux bridge: it is a mode of ports of Open vSwitch")]
    Tunnel(u16),
}

impl AttachmentError {
    /// What to do about it.
    pub fn class(&self) -> ErrorClass {
        ErrorClass::Invalid
    }

    /// A word for conditions and events.
    pub fn reason(&self) -> &'static str {
        "InvalidAttachment"
    }
}

/// Name of the host end of an attachment's veth.
pub fn host_ifname(id: &AttachmentId) -> IfName {
    IfName::hashed("hf", &id.to_string(), 13)
}

/// Checks what the types do not.
///
/// # Errors
/// Names the field, its value and what would be valid.
pub fn validate(attachment: &Attachment) -> Result<(), AttachmentError> {
    if attachment.mac.is_multicast() {
        return Err(AttachmentError::Mac(attachment.mac));
    }
    if !MTU_RANGE.contains(&attachment.mtu) {
        return Err(AttachmentError::Mtu(attachment.mtu));
    }
    let Bandwidth { ingress, egress } = attachment.bandwidth;
    if let Some(rate) = ingress.into_iter().chain(egress).find(|rate| !(8..=Rate::MOST).contains(&rate.rate)) {
        return Err(AttachmentError::Rate(rate.rate));
    }
    if matches!(attachment.backend, Backend::Macvtap { .. }) && attachment.bandwidth != Bandwidth::default() {
        return Err(AttachmentError::Unshaped);
    }
    let vlan = match &attachment.backend {
        Backend::LinuxBridge { vlan: Vlan::Tunnel { outer, .. }, .. } => return Err(AttachmentError::Tunnel(*outer)),
        Backend::Ovs { vlan, .. } | Backend::LinuxBridge { vlan, .. } => vlan,
        Backend::Macvtap { .. } => &Vlan::Untagged,
    };
    if matches!(vlan, Vlan::Trunk { tags, .. } if tags.is_empty()) {
        return Err(AttachmentError::EmptyTrunk);
    }
    match vlan.ids().into_iter().find(|tag| !(1..=4094).contains(tag)) {
        Some(tag) => Err(AttachmentError::Vlan(tag)),
        None => Ok(()),
    }
}

/// What shall be for this attachment.
pub fn desired(attachment: &Attachment) -> DesiredState {
    let Attachment { id, netns, backend, mac, mtu, addresses, routes, owner, security, bandwidth } = attachment;
    let mut state = DesiredState::default();
    let mark = Mark::Attachment(id.clone());
    state.claim(Netns::Host, mark.clone());
    let host_name = host_ifname(id);
    let pod_netns = Netns::Path(netns.clone());

    let mut host_end = Link::new(LinkKind::Veth { mark: mark.clone(), peer: (pod_netns.clone(), id.ifname.clone()) });
    host_end.mtu = Some(*mtu);
    host_end.up = Some(true);
    let mut pod_end = Link::new(LinkKind::VethPeer);
    host_end.shaper = bandwidth.ingress.map(|rate| rate.shaper(*mtu));
    pod_end.shaper = bandwidth.egress.map(|rate| rate.shaper(*mtu));
    pod_end.mac = Some(*mac);
    pod_end.mtu = Some(*mtu);
    pod_end.up = Some(true);
    pod_end.addresses = Some(addresses.iter().copied().collect());
    pod_end.routes = Some(routes.iter().map(Route::from).collect());

    let host_end = match backend {
        Backend::Ovs { bridge, vlan } => {
            host_end.tx_checksum = TxChecksum::OffOnUserspaceBridge(bridge.clone());
            pod_end.tx_checksum = TxChecksum::OffOnUserspaceBridge(bridge.clone());
            let port = OvsPort {
                bridge: bridge.clone(),
                vlan: vlan.clone(),
                attachment: id.clone(),
                owner: owner.clone(),
                security: security.clone(),
            };
            state.ovs_ports.insert(host_name.to_string(), port);
            Some(host_end)
        }
        Backend::LinuxBridge { bridge, vlan, gateway } => {
            host_end.master = Some(bridge.clone());
            host_end.vlans = vlan.on_linux_bridge();
            if let Some(security) = security {
                let guard = &mut state.namespace(&Netns::Host).guard;
                guard.extend(elements(&host_name, security));
                guard.extend(vlan.takes_tags().then(|| tagged(&host_name)));
            }
            if let Some(gateway) = gateway {
                add_gateway(&mut state, bridge, gateway);
            }
            Some(host_end)
        }
        Backend::Macvtap { uplink, mode, guest } => {
            state.claim(pod_netns.clone(), mark.clone());
            pod_end.kind = LinkKind::Macvlan { mark, uplink: uplink.clone(), mode: *mode, tap: *guest };
            None
        }
    };

    let pod = state.namespace(&pod_netns);
    // A guest that owns the addresses speaks for itself: the kernel must not, by its own link-local address. Elsewhere
    // the addresses are ours to set, not a router's.
    let quiet = if addresses.is_empty() { ("disable_ipv6", "1") } else { ("accept_ra", "0") };
    pod.sysctls.insert(format!("net/ipv6/conf/{}/{}", id.ifname, quiet.0), quiet.1.to_owned());
    pod.links.insert(id.ifname.clone(), pod_end);
    if let Some(host_end) = host_end {
        let host = state.namespace(&Netns::Host);
        host.sysctls.insert(format!("net/ipv6/conf/{host_name}/disable_ipv6"), "1".to_owned());
        host.links.insert(host_name, host_end);
    }
    state
}

/// The bridge that is its pods' gateway, with what the host needs to forward for them.
fn add_gateway(state: &mut DesiredState, bridge: &IfName, gateway: &BridgeGateway) {
    let host = state.namespace(&Netns::Host);
    let mut link = Link::new(LinkKind::Bridge { mark: Mark::Shared });
    // Without an address of its own a bridge takes that of a port, and changes it as ports come and go.
    link.mac = Some(MacAddr::hashed(bridge.as_str()));
    link.up = Some(true);
    link.addresses = Some(gateway.addresses.iter().copied().collect());
    host.links.insert(bridge.clone(), link);
    if gateway.addresses.iter().any(|address| address.is_ipv4()) {
        host.sysctls.insert("net/ipv4/ip_forward".to_owned(), "1".to_owned());
    }
    if gateway.addresses.iter().any(|address| address.is_ipv6()) {
        host.sysctls.insert("net/ipv6/conf/all/forwarding".to_owned(), "1".to_owned());
    }
    if gateway.masquerade {
        let prefixes: BTreeSet<_> =
            gateway.addresses.iter().map(|address| Route::on_link(*address).destination).collect();
        let rules = prefixes
            .into_iter()
            .map(|prefix| Rule {
                matches: vec![Match::Source(prefix), Match::NotDestination(prefix)],
                verdict: Verdict::Masquerade,
            })
            .collect();
        let table = Table { chains: vec![Chain { hook: Hook::Postrouting, rules }] };
        host.tables.insert(OwnedTable::of_bridge(Family::Inet, bridge), table);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TunnelProtocol;

    fn attachment(backend: Backend) -> Attachment {
        Attachment {
            id: AttachmentId { container_id: "c".to_owned(), ifname: "eth0".parse().unwrap() },
            netns: "/run/netns/c".into(),
            backend,
            mac: "02:00:00:00:00:01".parse().unwrap(),
            mtu: 1500,
            addresses: Vec::new(),
            routes: Vec::new(),
            owner: "default/pod/net".to_owned(),
            security: None,
            bandwidth: Bandwidth::default(),
        }
    }

    fn on_ovs(vlan: Vlan) -> Attachment {
        attachment(Backend::Ovs { bridge: "br0".to_owned(), vlan })
    }

    #[test]
    fn refuses_what_no_host_can_do() {
        assert_eq!(validate(&on_ovs(Vlan::Access(4094))), Ok(()));
        assert_eq!(validate(&on_ovs(Vlan::Access(4095))), Err(AttachmentError::Vlan(4095)));
        let trunk = |tags, native| on_ovs(Vlan::Trunk { tags, native });
        assert_eq!(validate(&trunk(Vec::new(), Some(1))), Err(AttachmentError::EmptyTrunk));
        assert_eq!(validate(&trunk(vec![1], Some(0))), Err(AttachmentError::Vlan(0)));
        let tunnel = |outer, customers| Vlan::Tunnel { outer, customers, protocol: TunnelProtocol::default() };
        assert_eq!(validate(&on_ovs(tunnel(100, vec![1, 4094]))), Ok(()));
        assert_eq!(validate(&on_ovs(tunnel(100, vec![4095]))), Err(AttachmentError::Vlan(4095)));
        let bridge = "br0".parse().unwrap();
        let on_bridge = attachment(Backend::LinuxBridge { bridge, vlan: tunnel(100, Vec::new()), gateway: None });
        assert_eq!(validate(&on_bridge), Err(AttachmentError::Tunnel(100)));
        let multicast = Attachment { mac: MacAddr([1, 0, 0, 0, 0, 0]), ..on_ovs(Vlan::Untagged) };
        assert_eq!(validate(&multicast), Err(AttachmentError::Mac(multicast.mac)));
        let tiny = Attachment { mtu: 67, ..on_ovs(Vlan::Untagged) };
        assert_eq!(validate(&tiny), Err(AttachmentError::Mtu(67)));
        let egress = Some(Rate { rate: Rate::MOST + 1, burst: None });
        let fast = Attachment { bandwidth: Bandwidth { ingress: None, egress }, ..on_ovs(Vlan::Untagged) };
        assert_eq!(validate(&fast), Err(AttachmentError::Rate(Rate::MOST + 1)));
    }

    #[test]
    fn two_gateways_of_one_bridge_must_agree() {
        let with = |address: &str, container: &str| {
            let gateway = BridgeGateway { addresses: vec![address.parse().unwrap()], masquerade: true };
            let backend = Backend::LinuxBridge {
                bridge: "hf-pod0".parse().unwrap(),
                vlan: Vlan::Untagged,
                gateway: Some(gateway),
            };
            let id = AttachmentId { container_id: container.to_owned(), ifname: "eth0".parse().unwrap() };
            desired(&Attachment { id, netns: container.into(), ..attachment(backend) })
        };
        assert!(with("10.0.0.1/24", "a").merge(with("10.0.0.1/24", "b")).is_ok());
        let error = with("10.0.0.1/24", "a").merge(with("10.0.1.1/24", "b")).unwrap_err();
        assert_eq!(error.object, "link `hf-pod0` in host");
    }
}
