//! What the guest agent tells, asked for with a deadline each.

use std::collections::BTreeMap;

use holdfast_agent_api::launcher::{GuestInfo, GuestInterface};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Guest, LibvirtError};

/// Seconds that the agent has for one answer.
const DEADLINE: i32 = 5;

#[derive(Deserialize)]
struct Answer<T> {
    r#return: T,
}

#[derive(Deserialize)]
struct HostName {
    #[serde(rename = "host-name")]
    host_name: String,
}

#[derive(Deserialize)]
struct TimeZone {
    #[serde(default)]
    zone: String,
    offset: i64,
}

#[derive(Deserialize)]
struct Interface {
    name: String,
    #[serde(rename = "hardware-address", default)]
    mac: String,
    #[serde(rename = "ip-addresses", default)]
    addresses: Vec<Address>,
}

#[derive(Deserialize)]
struct Address {
    #[serde(rename = "ip-address")]
    address: String,
}

/// Asks for everything that we report.
///
/// # Errors
/// [`LibvirtError`] when the agent does not answer at all; what an agent does not know stays empty.
pub fn query(guest: &Guest) -> Result<GuestInfo, LibvirtError> {
    let interfaces: Option<Vec<Interface>> = ask(guest, "guest-network-get-interfaces")?;
    let hostname: Option<HostName> = ask(guest, "guest-get-host-name")?;
    let os: Option<BTreeMap<String, String>> = ask(guest, "guest-get-osinfo")?;
    let timezone: Option<TimeZone> = ask(guest, "guest-get-timezone")?;
    Ok(GuestInfo {
        hostname: hostname.map(|answer| answer.host_name).unwrap_or_default(),
        os: os.unwrap_or_default(),
        timezone: timezone.map(|answer| format!("{}, {}", answer.zone, answer.offset)).unwrap_or_default(),
        interfaces: interfaces.unwrap_or_default().into_iter().filter_map(interface).collect(),
    })
}

fn interface(interface: Interface) -> Option<GuestInterface> {
    let addresses: Vec<String> = interface.addresses.into_iter().map(|address| address.address).collect();
    let loopback = interface.name == "lo" || addresses.iter().any(|address| address == "127.0.0.1");
    let mac = interface.mac.to_ascii_lowercase();
    (!loopback).then_some(GuestInterface { name: interface.name, mac, addresses })
}

/// One question; none where the agent answers with an error of its own or something unexpected.
fn ask<T: DeserializeOwned>(guest: &Guest, command: &str) -> Result<Option<T>, LibvirtError> {
    let request = serde_json::json!({ "execute": command }).to_string();
    match guest.agent(&request, DEADLINE) {
        Ok(answer) => Ok(serde_json::from_str::<Answer<T>>(&answer).ok().map(|answer| answer.r#return)),
        Err(error) if error.refused_by_agent => Ok(None),
        Err(error) => Err(error),
    }
}
