//! Which UnderlayNetworks are refused, and in which words.
//!
//! Pure: whether a bridge or an uplink is there is found out on the node.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause;

use super::bandwidth::unshaped;
use super::subnets::{overlap, subnets};
use super::{Backend, Datapath, UnderlayNetwork, UnderlayNetworkSpec, Vlan};
use crate::lease::{MAX_SEGMENT, is_segment};
use crate::names::{INTERFACE_NAME, is_interface_name};

/// Everything that is wrong with an UnderlayNetwork: what is [`unserved`], and [`problems_of`] the rest.
pub fn problems(network: &UnderlayNetwork) -> Vec<StatusCause> {
    let mut found = Found { at: "spec".to_owned(), causes: Vec::new() };
    for (field, message) in unserved(&network.spec) {
        found.add(field, message.to_owned());
    }
    found.causes.extend(problems_of(network.metadata.name.as_deref().unwrap_or_default(), &network.spec, "spec"));
    found.causes
}

/// What this version does not carry out of a network that is right otherwise: the fields, and what is valid.
pub fn unserved(spec: &UnderlayNetworkSpec) -> impl Iterator<Item = (&'static str, &'static str)> {
    let macvtap = spec.backend == Backend::Macvtap;
    let ipv6 = "is not served yet: guests learn IPv6 addresses by cloud-init";
    [
        (spec.dhcp.v6, "dhcp.v6", ipv6),
        (spec.dhcp.ra, "dhcp.ra", ipv6),
        (
            macvtap && spec.port_security != Some(false),
            "portSecurity",
            "is not served on the backend `macvtap`, whose guests are on the wire with nothing between: set it to `false`",
        ),
        (
            macvtap && spec.dhcp.v4 && spec.subnets.iter().any(|subnet| subnet.cidr.is_ipv4()),
            "dhcp.v4",
            "is not served on the backend `macvtap`: set it to `false`; guests learn addresses by cloud-init, or by a \
             DHCP server of the segment",
        ),
        (
            macvtap && spec.vlan.is_some(),
            "vlan",
            "is not served on the backend `macvtap`: give an uplink that is in the VLAN, such as `eth1.100`",
        ),
        (spec.bandwidth.is_some() && unshaped(spec.backend).is_some(), "bandwidth", unshaped(spec.backend).unwrap_or_default()),
        (!macvtap && spec.mode.is_some(), "mode", "is for the backend `macvtap` only"),
        (
            spec.backend == Backend::LinuxBridge && spec.vlan.as_ref().is_some_and(|vlan| vlan.tunnel.is_some()),
            "vlan.tunnel",
            "is served on the backend `ovs` only: ports of a Linux bridge cannot put a tag around others",
        ),
    ]
    .into_iter()
    .filter_map(|(asked, field, message)| asked.then_some((field, message)))
}

/// Everything that is wrong with a network whose segment is `name` where it gives none: the field (below `at`, which is
/// empty for an inline configuration), its value, and what would be valid. Empty for a network that can be used.
pub fn problems_of(name: &str, spec: &UnderlayNetworkSpec, at: &str) -> Vec<StatusCause> {
    let mut found = Found { at: at.to_owned(), causes: Vec::new() };
    links(spec, &mut found);
    segment(name, spec, &mut found);
    if let Some(vlan) = &spec.vlan {
        vlans(vlan, &mut found);
    }
    node_settings("", spec, spec.mtu, spec.datapath, &mut found);
    for (index, node) in spec.nodes.iter().enumerate() {
        node_settings(&format!("nodes[{index}]."), spec, node.mtu, node.datapath.unwrap_or_default(), &mut found);
    }
    for (index, subnet) in spec.subnets.iter().enumerate() {
        subnets(&format!("subnets[{index}]"), subnet, &mut found);
        for (other, earlier) in spec.subnets[..index].iter().enumerate() {
            if overlap(subnet.cidr, earlier.cidr) {
                found.add(
                    format!("subnets[{index}].cidr"),
                    format!("`{}` overlaps with `{}` of subnets[{other}]", subnet.cidr, earlier.cidr),
                );
            }
        }
    }
    super::pairs::pairs(spec, &mut found);
    super::bandwidth::bandwidth(spec, &mut found);
    found.causes
}

/// The smallest MTU that IPv6 works with (RFC 8200).
const MTU_OF_IPV6: u32 = 1280;

/// What was found so far, and where the spec is.
pub(super) struct Found {
    at: String,
    pub(super) causes: Vec<StatusCause>,
}

impl Found {
    /// `field` is relative to the spec.
    pub(super) fn add(&mut self, field: impl AsRef<str>, message: String) {
        let field = field.as_ref();
        let field = if self.at.is_empty() { field.to_owned() } else { format!("{}.{field}", self.at) };
        self.put(field, message);
    }

    fn put(&mut self, field: String, message: String) {
        self.causes.push(StatusCause {
            field: Some(field),
            message: Some(message),
            reason: Some("FieldValueInvalid".to_owned()),
        });
    }
}

/// MTU and data path, of all nodes or of those of an entry of `nodes`.
fn node_settings(at: &str, spec: &UnderlayNetworkSpec, mtu: Option<u32>, datapath: Datapath, found: &mut Found) {
    if let Some(mtu) = mtu
        && !(68..=65535).contains(&mtu)
    {
        found.add(format!("{at}mtu"), format!("`{mtu}` is not from 68 to 65535"));
    } else if let Some(mtu) = mtu.filter(|mtu| *mtu < MTU_OF_IPV6)
        && let Some(subnet) = spec.subnets.iter().find(|subnet| subnet.cidr.is_ipv6())
    {
        let message = format!("`{mtu}` is too small for IPv6 (`{}`): from {MTU_OF_IPV6} on is valid", subnet.cidr);
        found.add(format!("{at}mtu"), message);
    }
    if datapath == Datapath::Netdev && spec.backend != Backend::Ovs {
        found.add(format!("{at}datapath"), "`netdev` is for the backend `ovs` only".to_owned());
    }
}

fn segment(name: &str, spec: &UnderlayNetworkSpec, found: &mut Found) {
    let segment = spec.segment(name);
    if is_segment(segment) {
        return;
    }
    let valid =
        format!("a DNS subdomain of at most {MAX_SEGMENT} characters does (lower-case letters, digits, `-` and `.`)");
    // Without a segment of its own the network's name is the segment, and that is not part of the spec; an inline
    // configuration's follows from its bridge.
    match &spec.segment {
        Some(_) => found.add("segment", format!("`{segment}` names no segment: {valid}")),
        None if !found.at.is_empty() => {
            found.put("metadata.name".to_owned(), format!("`{segment}` names no segment: {valid}"));
        }
        None if segment.is_empty() => {
            found.add("segment", "is needed, as there is not one bridge for all nodes to name it after".to_owned());
        }
        None => {
            found.add("segment", format!("is needed, as `{segment}`, after the bridge, names no segment: {valid}"));
        }
    }
}

/// A name of a link is one, and each node has the link that the backend needs.
fn links(spec: &UnderlayNetworkSpec, found: &mut Found) {
    let mut named = vec![(String::new(), &spec.bridge, &spec.uplink)];
    for (index, node) in spec.nodes.iter().enumerate() {
        named.push((format!("nodes[{index}]."), &node.bridge, &node.uplink));
    }
    for (at, bridge, uplink) in &named {
        for (field, name) in [("bridge", bridge), ("uplink", uplink)] {
            if let Some(name) = name
                && !is_interface_name(name)
            {
                found.add(format!("{at}{field}"), format!("`{name}` is not {INTERFACE_NAME}"));
            }
        }
    }
    let (field, article, backend) = match spec.backend {
        Backend::Ovs => ("bridge", "a", "ovs"),
        Backend::LinuxBridge => ("bridge", "a", "linux-bridge"),
        Backend::Macvtap => ("uplink", "an", "macvtap"),
    };
    let has = |(_, bridge, uplink): &(String, &Option<String>, &Option<String>)| match spec.backend {
        Backend::Ovs | Backend::LinuxBridge => bridge.is_some(),
        Backend::Macvtap => uplink.is_some(),
    };
    // Without one for all nodes, each of the entries must have its own, and there must be some.
    if !has(&named[0]) && (named.len() == 1 || !named[1..].iter().all(has)) {
        found.add(field, format!("the backend `{backend}` needs {article} {field}, here or in each entry of `nodes`"));
    }
}

fn vlans(vlan: &Vlan, found: &mut Found) {
    let ids = [("access", vlan.access), ("native", vlan.native), ("tunnel", vlan.tunnel)]
        .into_iter()
        .filter_map(|(field, id)| Some((field, id?)))
        .chain(vlan.trunk.iter().map(|id| ("trunk", *id)));
    for (field, id) in ids.filter(|(_, id)| !(1..=4094).contains(id)) {
        found.add(format!("vlan.{field}"), format!("`{id}` is no VLAN id: 1 to 4094 are"));
    }
    if vlan.tunnel.is_some() {
        for (field, given) in [("access", vlan.access), ("native", vlan.native)] {
            if let Some(id) = given {
                found.add(format!("vlan.{field}"), format!("`{id}`: {field} and tunnel exclude each other"));
            }
        }
        return;
    }
    if vlan.tunnel_protocol.is_some() {
        found.add("vlan.tunnelProtocol", "is of a tunnel: give `tunnel`, the VLAN of its own tag".to_owned());
    }
    match (vlan.access, vlan.trunk.is_empty()) {
        (Some(_), false) => found.add("vlan", "access and trunk exclude each other".to_owned()),
        (None, true) => found.add("vlan", "either access, trunk or tunnel is needed".to_owned()),
        _ => {}
    }
    if vlan.native.is_some() && vlan.trunk.is_empty() {
        found.add("vlan.native", "there is a native VLAN only with a trunk".to_owned());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn found(name: &str, spec: Value) -> Vec<(String, String)> {
        let network = UnderlayNetwork::new(name, serde_json::from_value(spec).unwrap());
        problems(&network).into_iter().map(|cause| (cause.field.unwrap(), cause.message.unwrap())).collect()
    }

    fn subnet(more: Value) -> Value {
        let mut subnet = json!({"cidr": "192.0.2.0/24", "gateway": "192.0.2.1"});
        subnet.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"backend": "ovs", "bridge": "br0", "subnets": [subnet]})
    }

    #[test]
    fn what_can_be_used_has_no_problems() {
        for spec in [
            json!({"backend": "ovs", "bridge": "br0"}),
            json!({"backend": "ovs", "nodes": [{"nodeSelector": {}, "bridge": "br1"}]}),
            json!({"backend": "macvtap", "uplink": "eth1", "mode": "private", "portSecurity": false}),
            json!({"backend": "ovs", "bridge": "br0", "vlan": {"trunk": [1, 4094], "native": 1}}),
            subnet(json!({"ranges": [{"start": "192.0.2.9", "end": "192.0.2.9"}], "exclude": ["192.0.2.10"],
                "routes": [{"dst": "198.51.100.0/24"}], "dns": {"servers": ["203.0.113.53"]}})),
        ] {
            assert_eq!(found("lab.net", spec), []);
        }
    }

    #[test]
    fn each_problem_names_its_field_and_value() {
        for (spec, field, words) in [
            (json!({"backend": "ovs", "bridge": "br0", "segment": "A"}), "spec.segment", "`A` names no segment"),
            (json!({"backend": "ovs"}), "spec.bridge", "`ovs` needs a bridge"),
            (json!({"backend": "macvtap", "bridge": "br0"}), "spec.uplink", "`macvtap` needs an uplink"),
            (json!({"backend": "macvtap", "uplink": "eth1"}), "spec.portSecurity", "set it to `false`"),
            (
                json!({"backend": "macvtap", "uplink": "eth1", "portSecurity": false,
                    "subnets": [{"cidr": "192.0.2.0/24"}]}),
                "spec.dhcp.v4",
                "cloud-init",
            ),
            (
                json!({"backend": "macvtap", "uplink": "eth1", "portSecurity": false, "vlan": {"access": 5}}),
                "spec.vlan",
                "eth1.100",
            ),
            (json!({"backend": "ovs", "bridge": "br0", "mode": "private"}), "spec.mode", "`macvtap` only"),
            (json!({"backend": "ovs", "bridge": "b", "dhcp": {"ra": true}}), "spec.dhcp.ra", "cloud-init"),
            (
                json!({"backend": "ovs", "nodes": [{"nodeSelector": {}, "uplink": "e"}]}),
                "spec.bridge",
                "each entry of `nodes`",
            ),
            (json!({"backend": "ovs", "bridge": "a/b"}), "spec.bridge", "`a/b` is not an interface name"),
            (json!({"backend": "ovs", "bridge": "b", "vlan": {"access": 4095}}), "spec.vlan.access", "`4095`"),
            (json!({"backend": "ovs", "bridge": "b", "vlan": {"access": 1, "trunk": [2]}}), "spec.vlan", "exclude"),
            (json!({"backend": "ovs", "bridge": "b", "vlan": {}}), "spec.vlan", "is needed"),
            (
                json!({"backend": "linux-bridge", "bridge": "b", "vlan": {"tunnel": 100}}),
                "spec.vlan.tunnel",
                "`ovs` only",
            ),
            (
                json!({"backend": "ovs", "bridge": "b", "vlan": {"tunnel": 100, "native": 7}}),
                "spec.vlan.native",
                "`7`: native and tunnel exclude each other",
            ),
            (json!({"backend": "ovs", "bridge": "b", "vlan": {"tunnel": 4095}}), "spec.vlan.tunnel", "`4095`"),
            (
                json!({"backend": "ovs", "bridge": "b", "vlan": {"access": 5, "tunnelProtocol": "802.1q"}}),
                "spec.vlan.tunnelProtocol",
                "give `tunnel`",
            ),
            (json!({"backend": "ovs", "bridge": "b", "vlan": {"access": 1, "native": 2}}), "spec.vlan.native", "trunk"),
            (json!({"backend": "ovs", "bridge": "b", "mtu": 10}), "spec.mtu", "`10`"),
            (
                json!({"backend": "ovs", "bridge": "b", "nodes": [{"nodeSelector": {}, "mtu": 10}]}),
                "spec.nodes[0].mtu",
                "`10`",
            ),
            (
                json!({"backend": "linux-bridge", "bridge": "b", "nodes": [{"nodeSelector": {}, "datapath": "netdev"}]}),
                "spec.nodes[0].datapath",
                "`ovs`",
            ),
            (json!({"backend": "linux-bridge", "bridge": "b", "datapath": "netdev"}), "spec.datapath", "`ovs`"),
            (subnet(json!({"cidr": "192.0.2.7/24"})), "spec.subnets[0].cidr", "`192.0.2.0/24` has none"),
            (subnet(json!({"gateway": "192.0.3.1"})), "spec.subnets[0].gateway", "`192.0.3.1` is not in"),
            (
                subnet(json!({"ranges": [{"start": "192.0.2.9", "end": "192.0.2.8"}]})),
                "spec.subnets[0].ranges[0].end",
                "below the start `192.0.2.9`",
            ),
            (
                subnet(json!({"ranges": [{"start": "2001:db8::1", "end": "192.0.2.8"}]})),
                "spec.subnets[0].ranges[0].start",
                "`2001:db8::1` is not in",
            ),
            (subnet(json!({"exclude": ["10.0.0.1"]})), "spec.subnets[0].exclude[0]", "nothing in common"),
            (
                subnet(json!({"routes": [{"dst": "10.0.0.0/8", "gw": "10.0.0.1"}]})),
                "spec.subnets[0].routes[0].gw",
                "`10.0.0.1`",
            ),
            (subnet(json!({"routes": [{"dst": "2001:db8::/32"}]})), "spec.subnets[0].routes[0].dst", "family"),
            (
                subnet(json!({"gateway": null, "routes": [{"dst": "10.0.0.0/8"}]})),
                "spec.subnets[0].routes[0].gw",
                "next hop",
            ),
            (subnet(json!({"exclude": ["192.0.2.0/24"]})), "spec.subnets[0]", "no address"),
            (
                json!({"backend": "ovs", "bridge": "b", "mtu": 1279, "subnets": [{"cidr": "2001:db8::/64"}]}),
                "spec.mtu",
                "`1279` is too small for IPv6 (`2001:db8::/64`)",
            ),
            (
                subnet(json!({"dns": {"search": ["lab.example.", "no domain"]}})),
                "spec.subnets[0].dns.search[1]",
                "`no domain` is no DNS name",
            ),
            (
                subnet(json!({"routes": [{"dst": "10.0.0.0/8", "gw": "192.0.2.255"}]})),
                "spec.subnets[0].routes[0].gw",
                "`192.0.2.255` is the broadcast address of `192.0.2.0/24`",
            ),
        ] {
            let found = found("lab", spec);
            assert!(found.iter().any(|(at, message)| at == field && message.contains(words)), "{field}: {found:?}");
        }
        for (gateway, words) in [
            ("192.0.2.0", "`192.0.2.0` is the network address of `192.0.2.0/24`, which no host has"),
            (
                "192.0.2.255",
                "is the broadcast address of `192.0.2.0/24`, which no host has: `192.0.2.1` to `192.0.2.254`",
            ),
        ] {
            let found = found("lab", subnet(json!({"gateway": gateway})));
            assert_eq!(found[0].0, "spec.subnets[0].gateway");
            assert!(found[0].1.contains(words), "{found:?}");
        }
        let two =
            json!({"backend": "ovs", "bridge": "b", "subnets": [{"cidr": "10.0.0.0/8"}, {"cidr": "10.1.0.0/16"}]});
        assert_eq!(found("lab", two)[0].0, "spec.subnets[1].cidr");
        for (cidr, words) in [
            ("224.0.1.0/24", "multicast"),
            ("ff02::/64", "multicast"),
            ("127.0.0.0/24", "loopback"),
            ("::1/128", "loopback"),
            ("0.0.0.0/0", "`0.0.0.0/8`"),
            ("::/0", "such as `2001:db8::/64`"),
            ("fe80::/64", "link-local"),
            ("::ffff:192.0.2.0/120", "IPv4 addresses in IPv6"),
            ("10.1.0.0", "a prefix length"),
            ("2001:db8::", "a prefix length"),
        ] {
            let spec = json!({"backend": "ovs", "bridge": "b", "subnets": [{"cidr": cidr}]});
            let found = found("lab", spec);
            let named =
                |(field, message): &(String, String)| field == "spec.subnets[0].cidr" && message.contains(words);
            assert!(found.iter().any(named), "{cidr}: {found:?}");
        }
        assert_eq!(found("Lab", json!({"backend": "ovs", "bridge": "b"}))[0].0, "metadata.name");
    }
}
