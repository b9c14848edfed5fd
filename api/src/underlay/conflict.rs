//! Networks that would give out one address twice.
//!
//! Leases are unique within a segment. Two networks of different segments that are one and the same on the wire would
//! each give out its addresses. As far as their specs show that they are (one bridge or uplink, a VLAN in common,
//! subnets that overlap), the second one is refused.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause;

use super::subnets::overlap;
use super::{UnderlayNetwork, UnderlayNetworkSpec};

/// Why `network` cannot be beside one of `others`, and what to do about it. What bears its own name counts as an
/// earlier state of it.
pub fn conflict<'a>(
    network: &UnderlayNetwork,
    others: impl IntoIterator<Item = &'a UnderlayNetwork>,
) -> Option<StatusCause> {
    let name = |network: &UnderlayNetwork| network.metadata.name.clone().unwrap_or_default();
    let (own_name, own) = (name(network), &network.spec);
    others.into_iter().find_map(|other| {
        let (other_name, other) = (name(other), &other.spec);
        let (segment, theirs) = (own.segment(&own_name), other.segment(&other_name));
        if own_name == other_name || segment == theirs {
            return None;
        }
        let link = links(own).intersection(&links(other)).next().copied()?;
        let vlan = vlans(own).intersection(&vlans(other)).next().copied()?;
        let pairs = own.subnets.iter().flat_map(|one| other.subnets.iter().map(move |two| (one.cidr, two.cidr)));
        let (one, two) = pairs.into_iter().find(|(one, two)| overlap(*one, *two))?;
        let vlan = vlan.map_or_else(|| "untagged".to_owned(), |id| format!("VLAN {id}"));
        let message = format!(
            "`{segment}` is not the segment of UnderlayNetwork `{other_name}` (`{theirs}`), which has the same link \
             `{link}` ({vlan}) and the addresses `{two}`, so that some of `{one}` would be given out twice: set \
             segment `{theirs}` here"
        );
        Some(StatusCause {
            field: Some("spec.segment".to_owned()),
            message: Some(message),
            reason: Some("FieldValueInvalid".to_owned()),
        })
    })
}

/// The bridges and uplinks, on all nodes.
fn links(spec: &UnderlayNetworkSpec) -> BTreeSet<&str> {
    let nodes = spec.nodes.iter().flat_map(|node| [&node.bridge, &node.uplink]);
    [&spec.bridge, &spec.uplink].into_iter().chain(nodes).flatten().map(String::as_str).collect()
}

/// The VLANs on the wire; `None` is untagged.
fn vlans(spec: &UnderlayNetworkSpec) -> BTreeSet<Option<u16>> {
    let Some(vlan) = &spec.vlan else { return [None].into() };
    // Of a tunnel, what the guests tag themselves is not on the wire.
    match vlan.tunnel {
        Some(id) => [Some(id)].into(),
        None => vlan.trunk.iter().chain(&vlan.access).chain(&vlan.native).map(|id| Some(*id)).collect(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn network(name: &str, change: Value) -> UnderlayNetwork {
        let mut spec = json!({"backend": "ovs", "bridge": "br0", "subnets": [{"cidr": "192.0.2.0/24"}]});
        spec.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        UnderlayNetwork::new(name, serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn one_wire_has_one_segment() {
        let lan = network("lan", json!({}));
        for (change, refused) in [
            (json!({}), true),
            (json!({"segment": "lan"}), false),
            (json!({"bridge": "br1"}), false),
            (json!({"bridge": "br1", "nodes": [{"nodeSelector": {}, "bridge": "br0"}]}), true),
            (json!({"vlan": {"access": 5}}), false),
            (json!({"subnets": [{"cidr": "198.51.100.0/24"}]}), false),
            (json!({"subnets": [{"cidr": "192.0.2.128/25"}]}), true),
            (json!({"subnets": []}), false),
        ] {
            let found = conflict(&network("other", change.clone()), [&lan]);
            assert_eq!(found.is_some(), refused, "{change}: {found:?}");
        }
        assert_eq!(conflict(&network("lan", json!({"segment": "x"})), [&lan]), None, "a network beside its old self");
        let trunk = network("trunk", json!({"vlan": {"trunk": [5, 6]}}));
        assert!(conflict(&network("access", json!({"vlan": {"access": 6}})), [&trunk]).is_some());
    }
}
