//! The addresses that a user asks for: the annotation, and the MAC address of an interface.

use std::collections::BTreeMap;
use std::net::IpAddr;

use holdfast_api::addresses::{ADDRESSES_ANNOTATION, parse_addresses, stranger};
use holdfast_api::kubevirt::Network;
use holdfast_net::model::MacAddr;
use kube::core::ObjectMeta;

use super::NicError;

/// The addresses asked for, by network. What a later object says comes before what an earlier one says.
pub(super) fn requested<'a>(
    objects: impl Iterator<Item = &'a ObjectMeta>,
    networks: &[Network],
) -> Result<BTreeMap<String, Vec<IpAddr>>, NicError> {
    let mut requested = BTreeMap::new();
    for meta in objects {
        let text = meta.annotations.as_ref().and_then(|annotations| annotations.get(ADDRESSES_ANNOTATION));
        if let Some(text) = text {
            requested.extend(parse_addresses(text).map_err(NicError::addresses)?);
        }
    }
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
