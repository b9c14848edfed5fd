//! The addresses that a user asks for: one annotation, by network.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::Deserialize;

use crate::kubevirt::Network;

/// Annotation of a VM or its template: the addresses that it asks for, as JSON by network name.
pub const ADDRESSES_ANNOTATION: &str = "holdfast.io/ip-addresses";

/// One address or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum Addresses {
    One(String),
    Several(Vec<String>),
}

/// Reads the annotation.
///
/// # Errors
/// What is wrong with it, and what would be valid, as a sentence.
pub fn parse_addresses(text: &str) -> Result<BTreeMap<String, Vec<IpAddr>>, String> {
    let wrong = |what: String| {
        let example = r#"valid is JSON by network name, such as {"lan": "192.0.2.10"} or {"lan": ["192.0.2.10", "2001:db8::10"]}"#;
        format!("annotation {ADDRESSES_ANNOTATION} {what}; {example}")
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
        let addresses: Result<Vec<IpAddr>, String> = texts.iter().map(address).collect();
        requested.insert(network.clone(), addresses?);
    }
    Ok(requested)
}

/// The refusal of addresses for a network that is not among those of the VM; none where all are.
pub fn stranger<'a>(asked: impl IntoIterator<Item = &'a String>, networks: &[Network]) -> Option<String> {
    let stranger = asked.into_iter().find(|name| networks.iter().all(|network| network.name != **name))?;
    let known: Vec<&str> = networks.iter().map(|network| network.name.as_str()).collect();
    Some(format!(
        "annotation {ADDRESSES_ANNOTATION} names network `{stranger}`; the networks of the VM are {}",
        known.join(", ")
    ))
}
