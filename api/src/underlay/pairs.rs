//! Addresses beside their own that NICs may use (what Neutron calls allowed address pairs): those of VRRP, and of what is
//! behind a VM that routes. A network says what may be asked for; a VM or a pod asks for some of it.

use ipnetwork::IpNetwork;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules::Found;
use super::subnets::{overlap, prefix, special};
use super::{Subnet, UnderlayNetworkSpec};
use crate::names::parse_mac;
use crate::pool::Pool;

/// How many a NIC may ask for.
pub const MOST_PAIRS: usize = 10;

/// An address or a prefix, and where it goes with one, an Ethernet address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AddressPair {
    /// Address or prefix, such as `192.0.2.100` or `198.51.100.0/24`.
    #[schemars(with = "String")]
    pub cidr: IpNetwork,
    /// Ethernet address beside the NIC's own, such as `00:00:5e:00:01:0a` of VRRP; the NIC's own alone where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
}

impl AddressPair {
    /// What is wrong with it, whatever network it is on: the field and what would be valid.
    pub fn problem(&self) -> Option<(&'static str, String)> {
        let Self { cidr, mac } = self;
        if let Some(message) = prefix(*cidr) {
            return Some(("cidr", message));
        }
        // Routers of VRRP share link-local addresses (RFC 5798, section 1.3).
        if let Some((range, purpose)) = special(*cidr).filter(|(_, purpose)| *purpose != "link-local") {
            let message = format!(
                "`{cidr}` has addresses of `{range}` ({purpose}), which no NIC is given: valid is a prefix of unicast \
                 addresses"
            );
            return Some(("cidr", message));
        }
        let mac = mac.as_deref().filter(|mac| !is_unicast(mac))?;
        let valid = "a unicast address that is not zero, such as `00:00:5e:00:01:0a`";
        Some(("mac", format!("`{mac}` is no Ethernet address of a NIC: valid is {valid}")))
    }

    /// Whether a network that allows this allows `asked`.
    fn covers(&self, asked: &Self) -> bool {
        let (own, other) = (self.cidr, asked.cidr);
        let inside =
            own.is_ipv6() == other.is_ipv6() && own.contains(other.network()) && own.prefix() <= other.prefix();
        let mac = |pair: &Self| pair.mac.as_deref().and_then(parse_mac);
        inside && (asked.mac.is_none() || mac(self) == mac(asked))
    }
}

impl std::fmt::Display for AddressPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.cidr)?;
        self.mac.as_ref().map_or(Ok(()), |mac| write!(f, " with {mac}"))
    }
}

fn is_unicast(mac: &str) -> bool {
    parse_mac(mac).is_some_and(|mac| mac[0] & 1 == 0 && mac != [0; 6])
}

/// Why a NIC cannot have what it asks for on a network that allows `allowed`, where addresses come from `subnets` (its
/// own, and those of the other networks of its segment); none where it can.
pub fn refusal<'a>(
    asked: &[AddressPair],
    allowed: &[AddressPair],
    subnets: impl IntoIterator<Item = &'a Subnet>,
) -> Option<String> {
    if asked.len() > MOST_PAIRS {
        return Some(format!("{} address pairs are asked for: at most {MOST_PAIRS} are valid", asked.len()));
    }
    let valid = || match allowed {
        [] => "it allows none (`allowedAddressPairs` of the network)".to_owned(),
        _ => {
            let all: Vec<String> = allowed.iter().map(|pair| format!("`{pair}`")).collect();
            format!("valid is what lies within {}", all.join(", "))
        }
    };
    if let Some(pair) = asked.iter().find(|asked| !allowed.iter().any(|allowed| allowed.covers(asked))) {
        return Some(format!("address pair `{pair}` is not one that the network allows: {}", valid()));
    }
    subnets.into_iter().find_map(|subnet| {
        let pool = Pool::of(subnet);
        let (pair, address) = asked.iter().find_map(|pair| Some((pair, pool.first_in(pair.cidr)?)))?;
        Some(format!(
            "address pair `{pair}` has addresses that are given out by lease, such as `{address}` of `{}`: valid is \
             what is given out to nobody",
            subnet.cidr
        ))
    })
}

/// What is wrong with what a network allows.
pub(super) fn pairs(spec: &UnderlayNetworkSpec, found: &mut Found) {
    for (index, pair) in spec.allowed_address_pairs.iter().enumerate() {
        let at = format!("allowedAddressPairs[{index}]");
        if let Some((field, message)) = pair.problem() {
            found.add(format!("{at}.{field}"), message);
            continue;
        }
        for (number, subnet) in spec.subnets.iter().enumerate().filter(|(_, subnet)| overlap(subnet.cidr, pair.cidr)) {
            if let Some(address) = Pool::of(subnet).first_in(pair.cidr) {
                let message = format!(
                    "`{}` has addresses that the network gives out, such as `{address}`: add it to \
                     `subnets[{number}].exclude`",
                    pair.cidr
                );
                found.add(format!("{at}.cidr"), message);
            }
        }
    }
    if !spec.allowed_address_pairs.is_empty() && spec.port_security == Some(false) {
        let message = "has no meaning without port security, where any address may be used: leave out one of the two";
        found.add("allowedAddressPairs", message.to_owned());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::underlay::{UnderlayNetwork, problems};

    fn all(pairs: Value) -> Vec<AddressPair> {
        serde_json::from_value(pairs).unwrap()
    }

    #[test]
    fn a_nic_may_have_what_its_network_allows() {
        let allowed = all(json!([{"cidr": "198.51.100.0/24"}, {"cidr": "192.0.2.100", "mac": "00:00:5E:00:01:0a"}]));
        let subnet: Subnet =
            serde_json::from_value(json!({"cidr": "192.0.2.0/24", "exclude": ["192.0.2.100/31"]})).unwrap();
        let refusal = |asked: Value| refusal(&all(asked), &allowed, [&subnet]);
        for asked in [
            json!([]),
            json!([{"cidr": "198.51.100.0/25"}, {"cidr": "198.51.100.7"}]),
            json!([{"cidr": "192.0.2.100"}, {"cidr": "192.0.2.100/32", "mac": "00-00-5e-00-01-0a"}]),
        ] {
            assert_eq!(refusal(asked), None);
        }
        for (asked, words) in [
            (json!([{"cidr": "198.51.0.0/16"}]), "`198.51.0.0/16` is not one that the network allows"),
            (json!([{"cidr": "192.0.2.101"}]), "within `198.51.100.0/24`, `192.0.2.100/32 with 00:00:5E"),
            (json!([{"cidr": "192.0.2.100", "mac": "00:00:5e:00:01:0b"}]), "with 00:00:5e:00:01:0b"),
            (json!([{"cidr": "198.51.100.7", "mac": "00:00:5e:00:01:0a"}]), "`198.51.100.7/32 with"),
            (json!([{"cidr": "2001:db8::1"}]), "`2001:db8::1/128`"),
            (json!(vec![json!({"cidr": "198.51.100.7"}); 11]), "at most 10"),
        ] {
            let message = refusal(asked).unwrap();
            assert!(message.contains(words), "{message}");
        }
        // Another network of the segment gives out what this one allows.
        let other: Subnet = serde_json::from_value(json!({"cidr": "198.51.0.0/16"})).unwrap();
        let message = super::refusal(&all(json!([{"cidr": "198.51.100.0/30"}])), &allowed, [&subnet, &other]).unwrap();
        assert!(message.contains("such as `198.51.100.0` of `198.51.0.0/16`"), "{message}");
    }

    #[test]
    fn a_network_allows_what_it_gives_to_nobody() {
        let of = |pairs: Value, extra: Value| {
            let mut spec = json!({"backend": "ovs", "bridge": "br0", "allowedAddressPairs": pairs,
                "subnets": [{"cidr": "192.0.2.0/24", "exclude": ["192.0.2.100"]}]});
            spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            let network = UnderlayNetwork::new("lan", serde_json::from_value(spec).unwrap());
            problems(&network).into_iter().map(|cause| (cause.field.unwrap(), cause.message.unwrap())).next()
        };
        assert_eq!(of(json!([{"cidr": "192.0.2.100"}, {"cidr": "198.51.100.0/24"}]), json!({})), None);
        for (pairs, extra, field, words) in [
            (json!([{"cidr": "192.0.2.100/31"}]), json!({}), "[0].cidr", "such as `192.0.2.101`: add it to"),
            (json!([{"cidr": "10.0.0.1/8"}]), json!({}), "[0].cidr", "`10.0.0.0/8` has none"),
            (json!([{"cidr": "224.0.0.0/24"}]), json!({}), "[0].cidr", "multicast"),
            (json!([{"cidr": "10.0.0.0/8", "mac": "01:00:5e:00:00:01"}]), json!({}), "[0].mac", "unicast"),
            (json!([{"cidr": "10.0.0.0/8"}]), json!({"portSecurity": false}), "", "without port security"),
        ] {
            let (at, message) = of(pairs, extra).unwrap();
            assert_eq!(at, format!("spec.allowedAddressPairs{field}"));
            assert!(message.contains(words), "{message}");
        }
    }
}
