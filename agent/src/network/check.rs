//! The values of an UnderlayNetwork's spec that its types leave open.

use holdfast_api::underlay::{Subnet, UnderlayNetworkSpec, Vlan};

use super::NetworkError;

/// Smallest MTU: what an IPv4 host must take (RFC 791).
const MIN_MTU: u32 = 68;

/// Refuses what cannot be carried out, with its path.
pub(super) fn spec(spec: &UnderlayNetworkSpec) -> Result<(), NetworkError> {
    if let Some(mtu) = spec.mtu.filter(|mtu| !(MIN_MTU..=65535).contains(mtu)) {
        return Err(NetworkError::value("mtu", mtu, "from 68 to 65535"));
    }
    if let Some(vlan) = &spec.vlan {
        check_vlan(vlan)?;
    }
    for (key, asked) in [("dhcp.v6", spec.dhcp.v6), ("dhcp.ra", spec.dhcp.ra)] {
        if asked {
            return Err(NetworkError::unsupported(key, "is not served yet: guests learn IPv6 addresses by cloud-init"));
        }
    }
    spec.subnets.iter().enumerate().try_for_each(|(index, subnet)| check_subnet(index, subnet))
}

fn check_vlan(vlan: &Vlan) -> Result<(), NetworkError> {
    let ids = vlan.access.iter().map(|id| ("vlan.access", id));
    let ids = ids
        .chain(vlan.trunk.iter().map(|id| ("vlan.trunk", id)))
        .chain(vlan.native.iter().map(|id| ("vlan.native", id)));
    if let Some((key, id)) = ids.clone().find(|(_, id)| !(1..=4094).contains(*id)) {
        return Err(NetworkError::value(key, id, "from 1 to 4094"));
    }
    if vlan.access.is_some() && (vlan.native.is_some() || !vlan.trunk.is_empty()) {
        return Err(NetworkError::unsupported("vlan.access", "cannot stand beside `trunk` and `native`"));
    }
    if vlan.access.is_none() && vlan.trunk.is_empty() {
        return Err(NetworkError::unsupported("vlan", "needs `access` or `trunk`"));
    }
    Ok(())
}

fn check_subnet(index: usize, subnet: &Subnet) -> Result<(), NetworkError> {
    let key = |rest: &str| format!("subnets[{index}].{rest}");
    if let Some(gateway) = subnet.gateway.filter(|gateway| !subnet.cidr.contains(*gateway)) {
        return Err(NetworkError::value(&key("gateway"), gateway, &format!("an address of {}", subnet.cidr)));
    }
    for (position, range) in subnet.ranges.iter().enumerate() {
        let inside = subnet.cidr.contains(range.start) && subnet.cidr.contains(range.end) && range.start <= range.end;
        if !inside {
            let value = format!("{}-{}", range.start, range.end);
            return Err(NetworkError::value(
                &key(&format!("ranges[{position}]")),
                value,
                &format!("within {} and in order", subnet.cidr),
            ));
        }
    }
    for (position, route) in subnet.routes.iter().enumerate() {
        if route.dst.is_ipv4() != subnet.cidr.is_ipv4() {
            return Err(NetworkError::value(
                &key(&format!("routes[{position}].dst")),
                route.dst,
                "of the subnet's family",
            ));
        }
        if let Some(gw) = route.gw.filter(|gw| !subnet.cidr.contains(*gw)) {
            return Err(NetworkError::value(
                &key(&format!("routes[{position}].gw")),
                gw,
                &format!("an address of {}", subnet.cidr),
            ));
        }
    }
    Ok(())
}
