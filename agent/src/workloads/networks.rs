//! The networks annotation of a pod as attachments that our plugin makes itself, behind the cluster's primary one.
//! Pure.
//!
//! The annotation and its fields are those of the network plumbing group's standard, which Multus carries out too.

use std::collections::BTreeSet;

use holdfast_api::nad::{NetworkSelectionElement, NetworksError, parse_networks};
use holdfast_ipam::network::{NetworkList, PLUGIN_TYPE};
use holdfast_net::model::IfName;
use serde_json::{Map, Value, json};

/// A network that a pod joins besides its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Attach {
    /// `namespace/name` of its NetworkAttachmentDefinition.
    pub network: String,
    /// The interface in the pod.
    pub ifname: IfName,
    /// Our plugin's configuration, what the pod asks for included.
    pub config: Value,
}

/// Why a pod's networks cannot be joined.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The annotation is not one.
    #[error(transparent)]
    Annotation(#[from] NetworksError),
    /// Something that the pod asks for is wrong, or is not ours to make.
    #[error("network `{network}` of the pod cannot be joined: {why}")]
    Invalid {
        /// `namespace/name` of the network.
        network: String,
        /// What is wrong and what would be right.
        why: String,
    },
    /// It may come to be known.
    #[error("network `{network}` of the pod is not known yet: {why}")]
    NotReady {
        /// `namespace/name` of the network.
        network: String,
        /// What is missing.
        why: String,
    },
    /// The pod itself is not known yet.
    #[error("pod `{pod}` is not known yet: {why}")]
    Unknown {
        /// `namespace/name` of the pod.
        pod: String,
        /// What is missing.
        why: String,
    },
}

/// The attachments that a pod's annotation asks for. `definition` looks a NetworkAttachmentDefinition's
/// configuration up, by namespace and name.
///
/// # Errors
/// [`AttachError`] of the first network that cannot be joined; then none is.
pub fn attachments(
    namespace: &str,
    annotation: &str,
    mut definition: impl FnMut(&str, &str) -> Option<String>,
) -> Result<Vec<Attach>, AttachError> {
    let mut taken = BTreeSet::new();
    let mut all = Vec::new();
    for (index, element) in parse_networks(annotation, namespace)?.into_iter().enumerate() {
        let namespace = element.namespace.as_deref().unwrap_or(namespace);
        let network = format!("{namespace}/{}", element.name);
        let invalid = |why: String| AttachError::Invalid { network: network.clone(), why };
        let name = element.interface.clone().unwrap_or_else(|| format!("net{}", index + 1));
        let ifname: IfName = name.parse().map_err(|_| invalid(format!("`{name}` can name no interface")))?;
        if !taken.insert(ifname.clone()) {
            return Err(invalid(format!("interface `{ifname}` is another network's already")));
        }
        if let Some(field) = unserved(&element) {
            return Err(invalid(format!("`{field}` is not served on networks of type `{PLUGIN_TYPE}`")));
        }
        let text = definition(namespace, &element.name).ok_or_else(|| AttachError::NotReady {
            network: network.clone(),
            why: "there is no NetworkAttachmentDefinition of that name".to_owned(),
        })?;
        let list = NetworkList::parse(&text, &element.name).map_err(|error| invalid(crate::chain(&error)))?;
        all.push(Attach { config: config(&list, &element).map_err(invalid)?, network, ifname });
    }
    Ok(all)
}

/// What is asked for and not served.
fn unserved(element: &NetworkSelectionElement) -> Option<&'static str> {
    let asked = [
        ("infiniband-guid", element.infiniband_guid.is_some()),
        ("portMappings", !element.port_mappings.is_empty()),
        ("default-route", !element.default_route.is_empty()),
        ("ipam-claim-reference", element.ipam_claim_reference.is_some()),
    ];
    asked.into_iter().find(|(_, is_asked)| *is_asked).map(|(field, _)| field)
}

/// The one plugin of the list, which must be ours, with what the pod asks for.
fn config(list: &NetworkList, element: &NetworkSelectionElement) -> Result<Value, String> {
    let stranger = list.plugins.iter().find(|plugin| plugin["type"] != PLUGIN_TYPE);
    if let Some(kind) = stranger.map(|plugin| plugin["type"].as_str().unwrap_or_default()) {
        return Err(format!(
            "its NetworkAttachmentDefinition is of CNI type `{kind}`: only type `{PLUGIN_TYPE}` is made without a meta \
             plugin; install one, such as Multus, to join it"
        ));
    }
    let [plugin] = list.plugins.as_slice() else {
        return Err(format!("its NetworkAttachmentDefinition lists `{PLUGIN_TYPE}` more than once"));
    };
    let mut config = list.input(plugin, &Value::Null, None);
    let mut asked = Map::new();
    if let Some(mac) = &element.mac {
        asked.insert("mac".into(), json!(mac));
    }
    if !element.ips.is_empty() {
        asked.insert("ips".into(), json!(element.ips));
    }
    if let Some(bandwidth) = &element.bandwidth {
        asked.insert("bandwidth".into(), json!(bandwidth));
    }
    if !asked.is_empty() {
        config["runtimeConfig"] = Value::Object(asked);
    }
    if !element.cni_args.is_empty() {
        config["args"] = json!({ "cni": element.cni_args });
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(annotation: &str) -> Result<Vec<Attach>, AttachError> {
        attachments("lab", annotation, |namespace, name| match (namespace, name) {
            ("lab", "lan") => Some(r#"{"type": "holdfast", "network": "office"}"#.to_owned()),
            ("net", "wan") => Some(
                r#"{"name": "w", "cniVersion": "1.0.0", "plugins": [{"type": "holdfast", "bridge": "b"}]}"#.to_owned(),
            ),
            ("net", "other") => Some(r#"{"type": "macvlan", "master": "eth0"}"#.to_owned()),
            ("net", "tuned") => Some(r#"{"plugins": [{"type": "holdfast"}, {"type": "tuning"}]}"#.to_owned()),
            _ => None,
        })
    }

    #[test]
    fn both_forms_are_read() {
        let short = read("lan, net/wan@wan0").unwrap();
        assert_eq!((short[0].network.as_str(), short[0].ifname.as_str()), ("lab/lan", "net1"));
        assert_eq!(short[0].config["name"], "lan");
        assert_eq!((short[1].network.as_str(), short[1].ifname.as_str()), ("net/wan", "wan0"));
        assert_eq!((&short[1].config["name"], &short[1].config["bridge"]), (&json!("w"), &json!("b")));

        let long =
            read(r#"[{"name": "lan", "interface": "pod1", "mac": "02:00:00:00:00:05", "ips": ["192.0.2.5/24"]}]"#);
        let long = long.unwrap();
        assert_eq!(long[0].ifname.as_str(), "pod1");
        assert_eq!(long[0].config["runtimeConfig"], json!({"mac": "02:00:00:00:00:05", "ips": ["192.0.2.5/24"]}));
        let limited = read(r#"[{"name": "lan", "bandwidth": {"ingressRate": 1000000}}]"#).unwrap();
        assert_eq!(limited[0].config["runtimeConfig"], json!({"bandwidth": {"ingressRate": 1000000}}));
        assert!(read("").unwrap().is_empty());
    }

    #[test]
    fn what_cannot_be_joined_is_named() {
        for (annotation, words) in [
            ("net/other", ["`net/other`", "type `macvlan`", "meta plugin"]),
            ("net/tuned", ["`net/tuned`", "type `tuning`", "meta plugin"]),
            ("lan@a,net/wan@a", ["`net/wan`", "interface `a`", "already"]),
            (r#"[{"name": "lan", "default-route": ["192.0.2.1"]}]"#, ["`lab/lan`", "`default-route`", "not served"]),
        ] {
            let error = read(annotation).unwrap_err();
            assert!(matches!(error, AttachError::Invalid { .. }), "{error}");
            let text = error.to_string();
            assert!(words.iter().all(|word| text.contains(word)), "{text}");
        }
        assert!(matches!(read("nowhere").unwrap_err(), AttachError::NotReady { .. }));
        assert!(matches!(read("a/b/c").unwrap_err(), AttachError::Annotation(_)));
    }
}
