//! CNI results, in memory as of version 1.1.0, in JSON as of any version that we speak.
//!
//! What a version lacks is left out when a result is written in it; an `ips[].version` is derived from the
//! address. A result of another plugin (`prevResult`) comes out as it went in, as far as the specification
//! knows its fields.

use std::net::IpAddr;

use holdfast_agent_api::cni::SUPPORTED_VERSIONS;
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A version that we speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 0.3.1.
    V031,
    /// 0.4.0: CHECK.
    V040,
    /// 1.0.0: no `ips[].version`.
    V100,
    /// 1.1.0: GC, STATUS, and more fields.
    V110,
}

impl Version {
    /// The version of this name.
    pub fn parse(text: &str) -> Option<Self> {
        let versions = [Self::V031, Self::V040, Self::V100, Self::V110];
        SUPPORTED_VERSIONS.iter().position(|version| *version == text).map(|index| versions[index])
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        SUPPORTED_VERSIONS[self as usize]
    }
}

/// A result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CniResult {
    /// Links that were made.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "or_empty")]
    pub interfaces: Vec<Interface>,
    /// Addresses that were given.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "or_empty")]
    pub ips: Vec<Ip>,
    /// Routes that were made.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "or_empty")]
    pub routes: Vec<Route>,
    /// Name resolution.
    #[serde(deserialize_with = "or_empty")]
    pub dns: Dns,
}

/// A link.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its Ethernet address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mac: String,
    /// Its MTU (1.1.0).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Path of its namespace; empty on the node.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sandbox: String,
    /// A socket that is its other end (1.1.0).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub socket_path: String,
    /// Its PCI address (1.1.0).
    #[serde(rename = "pciID", skip_serializing_if = "String::is_empty")]
    pub pci_id: String,
}

/// An address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ip {
    /// With its prefix.
    pub address: IpNetwork,
    /// Its default gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Index in `interfaces`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<usize>,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Destination.
    pub dst: IpNetwork,
    /// Next hop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
    /// Since 1.1.0: `mtu`, `advmss`, `priority`, `table`, `scope`; as they are.
    #[serde(flatten)]
    pub more: serde_json::Map<String, Value>,
}

/// Name resolution.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dns {
    /// Servers.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "or_empty")]
    pub nameservers: Vec<String>,
    /// The local domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Search list.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "or_empty")]
    pub search: Vec<String>,
    /// Resolver options.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "or_empty")]
    pub options: Vec<String>,
}

/// Plugins in Go write an empty list as null.
fn or_empty<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl CniResult {
    /// Reads a result of any version.
    ///
    /// # Errors
    /// The decoder's, with the field.
    pub fn parse(value: Value) -> Result<Self, String> {
        serde_path_to_error::deserialize(value).map_err(|error| format!("`{}`: {}", error.path(), error.inner()))
    }

    /// The result in the words of `version`.
    ///
    /// # Errors
    /// None of ours: the encoder's.
    pub fn print(&self, version: Version) -> Result<Value, serde_json::Error> {
        let mut result = self.clone();
        if version < Version::V110 {
            for interface in &mut result.interfaces {
                interface.mtu = None;
                interface.socket_path.clear();
                interface.pci_id.clear();
            }
            result.routes.iter_mut().for_each(|route| route.more.clear());
        }
        let mut value = serde_json::to_value(&result)?;
        value["cniVersion"] = version.name().into();
        if version < Version::V100
            && let Some(ips) = value.get_mut("ips").and_then(Value::as_array_mut)
        {
            for (ip, printed) in result.ips.iter().zip(ips) {
                printed["version"] = json!(if ip.address.is_ipv4() { "4" } else { "6" });
            }
        }
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Value {
        json!({
            "cniVersion": "1.1.0",
            "interfaces": [
                {"name": "br0"},
                {"name": "eth0", "mac": "02:00:00:00:00:01", "mtu": 1400, "sandbox": "/run/netns/x",
                 "socketPath": "/run/s", "pciID": "0000:00:01.0"}],
            "ips": [{"address": "192.0.2.5/24", "gateway": "192.0.2.1", "interface": 1}, {"address": "2001:db8::5/64"}],
            "routes": [{"dst": "0.0.0.0/0", "gw": "192.0.2.1", "mtu": 1300, "priority": 5, "scope": 0}, {"dst": "::/0"}],
            "dns": {"nameservers": ["192.0.2.1"], "domain": "lab", "search": ["lab"], "options": ["ndots:1"]},
        })
    }

    #[test]
    fn the_newest_version_comes_out_as_it_went_in() {
        assert_eq!(CniResult::parse(full()).unwrap().print(Version::V110).unwrap(), full());
    }

    #[test]
    fn older_versions_lack_what_they_did_not_know() {
        let result = CniResult::parse(full()).unwrap();
        for (version, marked) in [(Version::V031, true), (Version::V040, true), (Version::V100, false)] {
            let printed = result.print(version).unwrap();
            assert_eq!(printed["cniVersion"], version.name());
            assert_eq!(
                printed["interfaces"][1],
                json!({"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/run/netns/x"})
            );
            assert_eq!(printed["routes"][0], json!({"dst": "0.0.0.0/0", "gw": "192.0.2.1"}));
            assert_eq!(printed["ips"][0].get("version").is_some(), marked);
            if marked {
                assert_eq!((&printed["ips"][0]["version"], &printed["ips"][1]["version"]), (&json!("4"), &json!("6")));
            }
            // What an older version has is read back the same.
            assert_eq!(CniResult::parse(printed.clone()).unwrap().print(version).unwrap(), printed);
        }
    }

    #[test]
    fn null_is_an_empty_list() {
        let result = CniResult::parse(json!({"interfaces": null, "ips": null, "dns": null})).unwrap();
        assert_eq!(result, CniResult::default());
        assert!(CniResult::parse(json!({"ips": [{"address": "nonsense"}]})).unwrap_err().contains("ips[0].address"));
    }

    #[test]
    fn versions_are_those_of_the_list() {
        for name in SUPPORTED_VERSIONS {
            assert_eq!(Version::parse(name).unwrap().name(), name);
        }
        assert_eq!(Version::parse("0.2.0"), None);
    }
}
