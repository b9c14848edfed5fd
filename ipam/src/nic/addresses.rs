//! What a user asks of the networks of a VM: the annotations, and the MAC address of an interface.

use std::collections::BTreeMap;
use std::net::IpAddr;

use holdfast_api::addresses::{
    ADDRESSES_ANNOTATION, BANDWIDTH_ANNOTATION, PAIRS_ANNOTATION, parse_addresses, parse_bandwidths, parse_pairs,
    stranger,
};
use holdfast_api::kubevirt::Network;
use holdfast_api::nad::Bandwidth;
use holdfast_api::underlay::AddressPair;
use holdfast_net::model::MacAddr;
use kube::core::ObjectMeta;

use super::NicError;

/// The addresses that a VMI asks for, by network.
pub(super) fn requested(vmi: &ObjectMeta, networks: &[Network]) -> Result<BTreeMap<String, Vec<IpAddr>>, NicError> {
    by_network(vmi, networks, ADDRESSES_ANNOTATION, parse_addresses)
}

/// The addresses beside their own that its NICs use, by network.
pub(super) fn pairs(vmi: &ObjectMeta, networks: &[Network]) -> Result<BTreeMap<String, Vec<AddressPair>>, NicError> {
    by_network(vmi, networks, PAIRS_ANNOTATION, parse_pairs)
}

/// How much its NICs may carry, by network.
pub(super) fn bandwidths(vmi: &ObjectMeta, networks: &[Network]) -> Result<BTreeMap<String, Bandwidth>, NicError> {
    by_network(vmi, networks, BANDWIDTH_ANNOTATION, parse_bandwidths)
}

fn by_network<T>(
    vmi: &ObjectMeta,
    networks: &[Network],
    annotation: &str,
    parse: impl Fn(&str) -> Result<BTreeMap<String, T>, String>,
) -> Result<BTreeMap<String, T>, NicError> {
    let text = vmi.annotations.as_ref().and_then(|annotations| annotations.get(annotation));
    let asked = text.map(|text| parse(text)).transpose().map_err(NicError::addresses)?.unwrap_or_default();
    match stranger(annotation, asked.keys(), networks) {
        Some(message) => Err(NicError::addresses(message)),
        None => Ok(asked),
    }
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
