//! What a user asks of the networks of a VM: annotations, each JSON by network name.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use kube::core::ObjectMeta;
use serde_json::{Map, Value};

use crate::kubevirt::{Network, VirtualMachine, VirtualMachineInstance};
use crate::nad::Bandwidth;
use crate::underlay::{AddressPair, MOST_PAIRS, bandwidth_problem};

/// Annotation of a VM or its template: the addresses that it asks for, as JSON by network name.
pub const ADDRESSES_ANNOTATION: &str = "holdfast.io/ip-addresses";
/// Annotation of a VM or its template: the addresses beside their own that its NICs use, as JSON by network name.
pub const PAIRS_ANNOTATION: &str = "holdfast.io/allowed-address-pairs";

/// Annotation of a VM or its template: how much its NICs may carry, as JSON by network name.
pub const BANDWIDTH_ANNOTATION: &str = "holdfast.io/bandwidth";

/// All of these annotations.
pub const BY_NETWORK: [&str; 3] = [ADDRESSES_ANNOTATION, PAIRS_ANNOTATION, BANDWIDTH_ANNOTATION];

/// Reads the annotation.
///
/// # Errors
/// What is wrong with it, and what would be valid, as a sentence.
pub fn parse_addresses(text: &str) -> Result<BTreeMap<String, Vec<IpAddr>>, String> {
    let wrong = |what: String| {
        let example = r#"valid is JSON by network name, such as {"lan": "192.0.2.10"} or {"lan": ["192.0.2.10", "2001:db8::10"]}"#;
        format!("annotation {ADDRESSES_ANNOTATION} {what}; {example}")
    };
    let parsed: BTreeMap<String, Value> =
        serde_json::from_str(text).map_err(|error| wrong(format!("cannot be read ({error})")))?;
    let mut requested = BTreeMap::new();
    for (network, addresses) in parsed {
        let texts: Option<Vec<&str>> = match &addresses {
            Value::String(text) => Some(vec![text]),
            Value::Array(texts) => texts.iter().map(Value::as_str).collect(),
            _ => None,
        };
        let texts = texts.ok_or_else(|| {
            wrong(format!(
                "gives `{addresses}` for network `{network}`, which is neither an address nor a list of them"
            ))
        })?;
        let address = |text: &&str| {
            let plain = text.parse::<IpAddr>().ok().or_else(|| text.parse::<IpNetwork>().ok().map(|n| n.ip()));
            let found = plain
                .ok_or_else(|| wrong(format!("gives `{text}` for network `{network}`, which is no IP address")))?;
            if is_of_a_host(found) {
                Ok(found)
            } else {
                Err(wrong(format!("gives `{text}` for network `{network}`, which no NIC can have")))
            }
        };
        let addresses: Result<Vec<IpAddr>, String> = texts.iter().map(address).collect();
        requested.insert(network.clone(), addresses?);
    }
    Ok(requested)
}

/// Whether an address can be a NIC's on some network.
fn is_of_a_host(address: IpAddr) -> bool {
    let address = address.to_canonical();
    let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    !(address.is_multicast() || address.is_unspecified() || address.is_loopback() || broadcast)
}

/// Reads the annotation of address pairs.
///
/// # Errors
/// What is wrong with it, and what would be valid, as a sentence.
pub fn parse_pairs(text: &str) -> Result<BTreeMap<String, Vec<AddressPair>>, String> {
    let wrong = |what: String| {
        let example = r#"{"lan": [{"cidr": "192.0.2.100"}, {"cidr": "10.9.0.0/16", "mac": "00:00:5e:00:01:0a"}]}"#;
        format!("annotation {PAIRS_ANNOTATION} {what}; valid is JSON by network name, such as {example}")
    };
    let parsed: BTreeMap<String, Vec<AddressPair>> =
        serde_json::from_str(text).map_err(|error| wrong(format!("cannot be read ({error})")))?;
    for (network, pairs) in &parsed {
        if pairs.len() > MOST_PAIRS {
            let count = pairs.len();
            return Err(wrong(format!(
                "gives {count} pairs for network `{network}`, of which {MOST_PAIRS} are the most"
            )));
        }
        if let Some((field, message)) = pairs.iter().find_map(AddressPair::problem) {
            return Err(wrong(format!("gives for network `{network}` a pair whose `{field}` {message}")));
        }
    }
    Ok(parsed)
}

/// Reads the annotation of bandwidths.
///
/// # Errors
/// What is wrong with it, and what would be valid, as a sentence.
pub fn parse_bandwidths(text: &str) -> Result<BTreeMap<String, Bandwidth>, String> {
    let wrong = |what: String| {
        let example = r#"{"lan": {"ingressRate": 100000000, "egressRate": 50000000, "egressBurst": 1000000}}"#;
        format!("annotation {BANDWIDTH_ANNOTATION} {what}; valid is JSON by network name, such as {example}")
    };
    let parsed: BTreeMap<String, Bandwidth> =
        serde_json::from_str(text).map_err(|error| wrong(format!("cannot be read ({error})")))?;
    match parsed.iter().find_map(|(network, bandwidth)| Some((network, bandwidth_problem(bandwidth)?))) {
        Some((network, (field, message))) => Err(wrong(format!("of network `{network}`: `{field}` {message}"))),
        None => Ok(parsed),
    }
}

/// What an annotation asks for, by network: the same of two texts that say the same.
fn meaning(annotation: &str, text: &str) -> Result<BTreeMap<String, String>, String> {
    fn shown<T: std::fmt::Debug>(asked: BTreeMap<String, T>) -> BTreeMap<String, String> {
        asked.into_iter().map(|(network, asked)| (network, format!("{asked:?}"))).collect()
    }
    match annotation {
        PAIRS_ANNOTATION => parse_pairs(text).map(shown),
        BANDWIDTH_ANNOTATION => parse_bandwidths(text).map(shown),
        _ => parse_addresses(text).map(shown),
    }
}

/// What is wrong with an annotation of a VM with these networks.
pub fn problem(annotation: &str, text: &str, networks: &[Network]) -> Option<String> {
    match meaning(annotation, text) {
        Ok(asked) => stranger(annotation, asked.keys(), networks),
        Err(message) => Some(message),
    }
}

/// What a VM asks for by an annotation, as its VMI says it: its own and its template's, which counts where both name a
/// network.
pub fn asked_by(vm: &VirtualMachine, annotation: &str) -> Option<String> {
    let text = |meta: &ObjectMeta| meta.annotations.as_ref()?.get(annotation).cloned();
    let (own, template) = (text(&vm.metadata), vm.spec.template.metadata.as_ref().and_then(text));
    let (Some(first), Some(second)) = (&own, &template) else { return template.or(own) };
    let read = |text: &String| serde_json::from_str::<Map<String, Value>>(text);
    // One that cannot be read is told as such, of the VMI.
    let (Ok(mut all), Ok(second)) = (read(first), read(second)) else { return template };
    all.extend(second);
    Some(Value::Object(all).to_string())
}

/// The annotation by which a VM asks for something else now than when its VMI was made.
pub fn changed(vm: &VirtualMachine, vmi: &VirtualMachineInstance) -> Option<&'static str> {
    BY_NETWORK.into_iter().find(|annotation| {
        let started = vmi.metadata.annotations.as_ref().and_then(|all| all.get(*annotation));
        let read = |text: &String| meaning(annotation, text).map_err(|_| text.clone());
        started.map(read) != asked_by(vm, annotation).as_ref().map(read)
    })
}

/// The refusal of an annotation for a network that is not among those of the VM; none where all are.
pub fn stranger<'a>(
    annotation: &str,
    asked: impl IntoIterator<Item = &'a String>,
    networks: &[Network],
) -> Option<String> {
    let stranger = asked.into_iter().find(|name| networks.iter().all(|network| network.name != **name))?;
    let known: Vec<&str> = networks.iter().map(|network| network.name.as_str()).collect();
    Some(format!("annotation {annotation} names network `{stranger}`; the networks of the VM are {}", known.join(", ")))
}
