//! The addresses that a user asks for: the annotation, and the MAC address of an interface.

use std::collections::BTreeMap;
use std::net::IpAddr;

use holdfast_api::kubevirt::Network;
use holdfast_net::model::MacAddr;
use ipnetwork::IpNetwork;
use kube::core::ObjectMeta;
use serde::Deserialize;

use super::NicError;

/// Annotation of a VM or its template: the addresses that it asks for, as JSON by network name.
pub const ADDRESSES_ANNOTATION: &str = "holdfast.io/ip-addresses";

/// One address or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum Addresses {
    One(String),
    Several(Vec<String>),
}

/// The addresses asked for, by network. What a later object says comes before what an earlier one says.
pub(super) fn requested<'a>(
    objects: impl Iterator<Item = &'a ObjectMeta>,
    networks: &[Network],
) -> Result<BTreeMap<String, Vec<IpAddr>>, NicError> {
    let mut requested = BTreeMap::new();
    for meta in objects {
        let text = meta.annotations.as_ref().and_then(|annotations| annotations.get(ADDRESSES_ANNOTATION));
        if let Some(text) = text {
            requested.extend(parse(text)?);
        }
    }
    if let Some(stranger) = requested.keys().find(|name| networks.iter().all(|network| network.name != **name)) {
        let known: Vec<&str> = networks.iter().map(|network| network.name.as_str()).collect();
        return Err(NicError::addresses(format!(
            "annotation {ADDRESSES_ANNOTATION} names network `{stranger}`; the networks of the VM are {}",
            known.join(", ")
        )));
    }
    Ok(requested)
}

fn parse(text: &str) -> Result<BTreeMap<String, Vec<IpAddr>>, NicError> {
    let wrong = |what: String| {
        let example = r#"valid is JSON by network name, such as {"lan": "192.0.2.10"} or {"lan": ["192.0.2.10", "2001:db8::10"]}"#;
        NicError::addresses(format!("annotation {ADDRESSES_ANNOTATION} {what}; {example}"))
    };
    let parsed: BTreeMap<String, Addresses> =
        serde_json::from_str(text).map_err(|error| wrong(format!("cannot be read ({error})")))?;
    let mut requested = BTreeMap::new();
    for (network, addresses) in parsed {
        let texts = match addresses {
            Addresses::One(text) => vec![text],
            Addresses::Several(texts) => texts,
        };
        let address = |text: &String| {
            let plain = text.parse::<IpAddr>().ok().or_else(|| text.parse::<IpNetwork>().ok().map(|n| n.ip()));
            plain.ok_or_else(|| wrong(format!("gives `{text}` for network `{network}`, which is no IP address")))
        };
        let addresses: Result<Vec<IpAddr>, NicError> = texts.iter().map(address).collect();
        requested.insert(network.clone(), addresses?);
    }
    Ok(requested)
}

/// A MAC address that a NIC can have.
pub(super) fn unicast(text: &str, interface: &str) -> Result<MacAddr, NicError> {
    let mac = text.parse::<MacAddr>().ok().filter(|mac| !mac.is_multicast() && mac.octets() != [0; 6]);
    mac.ok_or_else(|| {
        NicError::network(format!(
            "`macAddress` `{text}` of interface `{interface}`: must be a unicast address that is not zero, such as \
             02:00:00:00:00:01"
        ))
    })
}
