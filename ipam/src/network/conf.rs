//! The JSON that a runtime hands to the plugin: CNI's own keys, and ours.
//!
//! Ours are `agentSocket`, `network` (the name of an UnderlayNetwork), or in its place the keys of an
//! UnderlayNetwork's spec, `bridgeGateway`, `defaultRoute` and `interface`. An unknown key is refused by name; unknown
//! `args` and capabilities' arguments are ignored, as the specification asks for.

use std::net::IpAddr;

use holdfast_api::nad::Bandwidth;
use holdfast_api::names::{DNS_SUBDOMAIN, is_dns_subdomain};
use holdfast_api::underlay::{AddressPair, UnderlayNetworkSpec, bandwidth_problem};
use holdfast_net::model::{IfName, MacAddr};
use ipnetwork::IpNetwork;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::NetworkError;

/// Keys of CNI itself that may stand in any configuration; `cni.dev/...` are reserved for it as well.
const CNI_KEYS: &[&str] = &[
    "cniVersion",
    "name",
    "type",
    "capabilities",
    "runtimeConfig",
    "args",
    "prevResult",
    "disableCheck",
    "disableGC",
    "cniVersions",
    "loadOnlyInlinedPlugins",
];
/// Keys of CNI that ask for something that we do not do.
const NOT_OURS: &[(&str, &str)] = &[
    ("ipam", "is not used: addresses come from `subnets`, or from the network that `network` names"),
    ("ipMasq", "is not used: set `bridgeGateway.masquerade`"),
    ("dns", "is not used: set `subnets[].dns`"),
];
/// Capabilities that we serve.
const CAPABILITIES: &[&str] = &["mac", "ips", "bandwidth"];

/// A parsed configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct NetConf {
    /// `cniVersion`.
    pub cni_version: String,
    /// `name`.
    pub name: String,
    /// `network`: which UnderlayNetwork.
    pub network: Option<String>,
    /// The keys of an UnderlayNetwork's spec; the default where `network` is given.
    pub inline: UnderlayNetworkSpec,
    /// `bridgeGateway`.
    pub bridge_gateway: Option<BridgeGatewayConf>,
    /// `defaultRoute`: whether a plain pod's default route leads here.
    pub default_route: bool,
    /// `interface`: name of our interface in the pod where CNI_IFNAME is a primary plugin's already.
    pub chained_interface: IfName,
    /// `runtimeConfig` and `args.cni` made one; the former wins.
    pub runtime: RuntimeConfig,
    /// `prevResult` as given.
    pub prev_result: Option<Value>,
}

/// The bridge is ours: it is made where it is missing and carries the subnets' gateways.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BridgeGatewayConf {
    /// Whether what leaves the node from the subnets is masqueraded.
    #[serde(default)]
    pub masquerade: bool,
}

/// What is asked for one attachment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeConfig {
    /// Ethernet address.
    pub mac: Option<MacAddr>,
    /// IP addresses; a prefix length is not needed, the subnet has it.
    pub ips: Vec<IpAddr>,
    /// Addresses to use beside its own.
    pub pairs: Vec<AddressPair>,
    /// How much it may carry.
    pub bandwidth: Option<Bandwidth>,
}

impl NetConf {
    /// Reads a configuration strictly.
    ///
    /// # Errors
    /// [`NetworkError`] with the key that is wrong.
    pub fn parse(config: &Value) -> Result<Self, NetworkError> {
        let Value::Object(object) = config else {
            return Err(decode("", "the configuration is not a JSON object"));
        };
        let ours = ours(object)?;
        let spec_keys: Map<String, Value> = ours
            .iter()
            .filter(|(key, _)| !OWN_KEYS.contains(&key.as_str()))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        let network: Option<String> = optional(&ours, "network")?;
        if let Some(name) = network.as_deref().filter(|name| !is_dns_subdomain(name)) {
            return Err(NetworkError::value("network", name, DNS_SUBDOMAIN));
        }
        if let (Some(_), Some(key)) = (&network, spec_keys.keys().next()) {
            return Err(NetworkError::unsupported(key, "cannot stand beside `network`: the UnderlayNetwork says it"));
        }
        if network.is_none() && !spec_keys.contains_key("backend") {
            return Err(NetworkError::NoNetwork);
        }
        let inline =
            if network.is_some() { UnderlayNetworkSpec::default() } else { strict("", Value::Object(spec_keys))? };
        Ok(Self {
            cni_version: optional(object, "cniVersion")?.unwrap_or_else(|| "0.2.0".to_owned()),
            name: optional(object, "name")?.ok_or_else(|| decode("name", "is missing"))?,
            network,
            inline,
            bridge_gateway: optional(&ours, "bridgeGateway")?,
            default_route: optional(&ours, "defaultRoute")?.unwrap_or_default(),
            chained_interface: match optional(&ours, "interface")? {
                Some(name) => name,
                None => strict("interface", CHAINED_INTERFACE.into())?,
            },
            runtime: RuntimeConfig::parse(object)?,
            prev_result: object.get("prevResult").filter(|v| !v.is_null()).cloned(),
        })
    }
}

const OWN_KEYS: &[&str] = &["agentSocket", "network", "bridgeGateway", "defaultRoute", "interface"];
/// Name of our interface in a pod beside a primary plugin's, where the configuration gives none.
const CHAINED_INTERFACE: &str = "hf0";

/// The keys that are not CNI's.
fn ours(object: &Map<String, Value>) -> Result<Map<String, Value>, NetworkError> {
    if let Some(Value::Object(capabilities)) = object.get("capabilities") {
        let wanted = capabilities.iter().filter(|(_, on)| on.as_bool() == Some(true));
        if let Some((name, _)) = wanted.clone().find(|(name, _)| !CAPABILITIES.contains(&name.as_str())) {
            let key = format!("capabilities.{name}");
            return Err(NetworkError::unsupported(&key, "is not served: `mac`, `ips` and `bandwidth` are"));
        }
    }
    for (key, why) in NOT_OURS {
        let asked = object
            .get(*key)
            .is_some_and(|v| !(v.is_null() || v == &Value::Bool(false) || v == &Value::Object(Map::new())));
        if asked {
            return Err(NetworkError::unsupported(key, why));
        }
    }
    let standard = |key: &str| {
        CNI_KEYS.contains(&key) || key.starts_with("cni.dev/") || NOT_OURS.iter().any(|(name, _)| *name == key)
    };
    Ok(object.iter().filter(|(key, _)| !standard(key)).map(|(k, v)| (k.clone(), v.clone())).collect())
}

impl RuntimeConfig {
    fn parse(object: &Map<String, Value>) -> Result<Self, NetworkError> {
        let asked = |path: &str, key: &str| -> Option<(String, Value)> {
            let value = path.split('.').try_fold(object, |map, part| map.get(part)?.as_object())?.get(key)?;
            (!value.is_null()).then(|| (format!("{path}.{key}"), value.clone()))
        };
        let either = |key: &str| asked("runtimeConfig", key).or_else(|| asked("args.cni", key));
        let mac = match either("mac") {
            None => None,
            Some((path, value)) => Some(strict::<MacAddr>(&path, value)?),
        };
        if let Some(mac) = mac.filter(|mac| mac.is_multicast() || mac.octets() == [0; 6]) {
            return Err(NetworkError::value("mac", mac, "the address of one NIC: not multicast, not all zero"));
        }
        let ips = match either("ips") {
            None => Vec::new(),
            Some((path, value)) => strict::<Vec<String>>(&path, value)?
                .into_iter()
                .map(|text| {
                    address(&text)
                        .ok_or_else(|| NetworkError::value(&path, text, "addresses such as 192.0.2.7 or 192.0.2.7/24"))
                })
                .collect::<Result<_, _>>()?,
        };
        let pairs = match asked("args.cni", "allowedAddressPairs") {
            None => Vec::new(),
            Some((path, value)) => {
                let pairs: Vec<AddressPair> = strict(&path, value)?;
                let wrong = pairs.iter().enumerate().find_map(|(index, pair)| Some((index, pair.problem()?)));
                if let Some((index, (field, message))) = wrong {
                    return Err(decode(&format!("{path}[{index}].{field}"), &message));
                }
                pairs
            }
        };
        let bandwidth = match either("bandwidth") {
            None => None,
            Some((path, value)) => {
                let bandwidth: Bandwidth = strict(&path, value)?;
                if let Some((field, message)) = bandwidth_problem(&bandwidth) {
                    return Err(decode(&format!("{path}.{field}"), &message));
                }
                Some(bandwidth)
            }
        };
        Ok(Self { mac, ips, pairs, bandwidth })
    }
}

fn address(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().or_else(|| text.parse::<IpNetwork>().ok().map(|network| network.ip()))
}

fn optional<T: DeserializeOwned>(object: &Map<String, Value>, key: &str) -> Result<Option<T>, NetworkError> {
    object.get(key).filter(|value| !value.is_null()).map(|value| strict(key, value.clone())).transpose()
}

/// Decodes a value under `path`; what the type does not know is an error.
fn strict<T: DeserializeOwned>(path: &str, value: Value) -> Result<T, NetworkError> {
    let mut unknown = None;
    let mut track = serde_path_to_error::Track::new();
    let decoder = serde_path_to_error::Deserializer::new(value, &mut track);
    let result = serde_ignored::deserialize(decoder, |ignored| {
        // An Option on the way is `?` in its path.
        unknown.get_or_insert(ignored.to_string().replace(".?", "").trim_start_matches("?.").to_owned());
    });
    let join = |rest: &str| match (path, rest) {
        ("", rest) => rest.to_owned(),
        (path, "" | ".") => path.to_owned(),
        (path, rest) => format!("{path}.{rest}"),
    };
    match (result, unknown) {
        (Err(error), _) => {
            let error: serde_json::Error = error;
            Err(decode(&join(&track.path().to_string()), &error.to_string()))
        }
        (Ok(_), Some(key)) => Err(NetworkError::Unknown(join(&key))),
        (Ok(value), None) => Ok(value),
    }
}

fn decode(path: &str, message: &str) -> NetworkError {
    NetworkError::Decode { path: path.to_owned(), message: message.to_owned() }
}
