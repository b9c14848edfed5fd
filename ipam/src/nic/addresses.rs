//! The addresses that a user asks for: the annotation, and the MAC address of an interface.

use std::collections::BTreeMap;
use std::net::IpAddr;

use holdfast_api::addresses::{ADDRESSES_ANNOTATION, parse_addresses, stranger};
use holdfast_api::kubevirt::Network;
use holdfast_net::model::MacAddr;
use kube::core::ObjectMeta;

use super::NicError;

/// The addresses that a VMI asks for, by network.
pub(super) fn requested(vmi: &ObjectMeta, networks: &[Network]) -> Result<BTreeMap<String, Vec<IpAddr>>, NicError> {
    let text = vmi.annotations.as_ref().and_then(|annotations| annotations.get(ADDRESSES_ANNOTATION));
    let requested =
        text.map(|text| parse_addresses(text)).transpose().map_err(NicError::addresses)?.unwrap_or_default();
    match stranger(requested.keys(), networks) {
        Some(message) => Err(NicError::addresses(message)),
        None => Ok(requested),
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
