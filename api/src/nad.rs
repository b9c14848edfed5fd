//! NetworkAttachmentDefinition (k8s.cni.cncf.io/v1) and the two pod annotations that go with it.
//!
//! The custom resource belongs to Multus: Holdfast reads it and never installs its CRD. Which
//! networks a pod joins is said by [`NETWORKS_ANNOTATION`]; what came of it is written back as
//! [`NETWORK_STATUS_ANNOTATION`].

use std::collections::BTreeMap;
use std::net::IpAddr;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::names::{DNS_SUBDOMAIN, INTERFACE_NAME, is_dns_label, is_dns_subdomain, is_interface_name};

/// Pod annotation that lists the networks a pod joins besides the cluster's own.
pub const NETWORKS_ANNOTATION: &str = "k8s.v1.cni.cncf.io/networks";

/// Pod annotation that reports what each of those networks gave the pod.
pub const NETWORK_STATUS_ANNOTATION: &str = "k8s.v1.cni.cncf.io/network-status";

/// What a NetworkAttachmentDefinition says: one CNI configuration.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "k8s.cni.cncf.io",
    version = "v1",
    kind = "NetworkAttachmentDefinition",
    plural = "network-attachment-definitions",
    shortname = "net-attach-def",
    namespaced,
    doc = "A network that pods and virtual machines can join by name.",
    derive = "Default",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct NetworkAttachmentDefinitionSpec {
    /// CNI network configuration or configuration list, as JSON text. Where it has no `name`, the
    /// object's own name stands in. Empty means that the node's CNI directory holds it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub config: String,
}

/// A text that names no NetworkAttachmentDefinition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` names no NetworkAttachmentDefinition: it must be [namespace/]name, and {field} `{value}` is not {valid}"
)]
pub struct NetworkNameError {
    text: String,
    field: &'static str,
    value: String,
    valid: &'static str,
}

/// Namespace and name of a NetworkAttachmentDefinition as `[namespace/]name` gives them
/// (`spec.networks[].multus.networkName`), both fit for a URL; `own` is the namespace where none is given.
///
/// # Errors
/// [`NetworkNameError`] with the part that is no name.
pub fn network_name<'a>(text: &'a str, own: &'a str) -> Result<(&'a str, &'a str), NetworkNameError> {
    let wrong =
        |field, value: &str, valid| NetworkNameError { text: text.to_owned(), field, value: value.to_owned(), valid };
    let (namespace, name) = match text.split_once('/') {
        Some((namespace, _)) if !is_dns_label(namespace) => return Err(wrong("namespace", namespace, LABEL)),
        Some(parts) => parts,
        None => (own, text),
    };
    if is_dns_subdomain(name) { Ok((namespace, name)) } else { Err(wrong("name", name, DNS_SUBDOMAIN)) }
}

/// One element of [`NETWORKS_ANNOTATION`]: a network to join, and what is asked of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkSelectionElement {
    /// Name of the NetworkAttachmentDefinition.
    pub name: String,
    /// Its namespace. Parsing fills in the pod's namespace where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Addresses to give the pod, each with or without a prefix length. Needs a network that
    /// declares the `ips` capability.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ips: Vec<String>,
    /// MAC address to use. Needs a network that declares the `mac` capability.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// GUID to use on an InfiniBand network.
    #[serde(rename = "infiniband-guid", default, skip_serializing_if = "Option::is_none")]
    pub infiniband_guid: Option<String>,
    /// Name of the interface inside the pod, at most 15 characters; `netN` where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Ports of the host to forward into the pod. Needs the `portMappings` capability.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub port_mappings: Vec<PortMapping>,
    /// Rate limits. Needs the `bandwidth` capability.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Bandwidth>,
    /// Arguments that reach the plugin as `args.cni`.
    #[serde(rename = "cni-args", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cni_args: BTreeMap<String, serde_json::Value>,
    /// Gateways that replace the pod's default route; allowed on one element only.
    #[serde(rename = "default-route", default, skip_serializing_if = "Vec::is_empty")]
    pub default_route: Vec<IpAddr>,
    /// Name of the IPAMClaim that holds this attachment's addresses. Excludes `ips`.
    #[serde(rename = "ipam-claim-reference", default, skip_serializing_if = "Option::is_none")]
    pub ipam_claim_reference: Option<String>,
}

/// A port of the host that leads into the pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PortMapping {
    /// Port on the host.
    pub host_port: u16,
    /// Port in the pod.
    pub container_port: u16,
    /// `tcp`, `udp` or `sctp`; tcp where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Host address to listen on; all of them where not given.
    #[serde(rename = "hostIP", default, skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<String>,
}

/// Rate limits of an attachment, in bits per second and bits; 0 is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bandwidth {
    /// Rate into the pod, in bits per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress_rate: Option<u64>,
    /// Burst into the pod, in bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress_burst: Option<u64>,
    /// Rate out of the pod, in bits per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress_rate: Option<u64>,
    /// Burst out of the pod, in bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress_burst: Option<u64>,
}

/// One element of [`NETWORK_STATUS_ANNOTATION`]: what a network gave the pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkStatus {
    /// Network, as `<namespace>/<name>`.
    pub name: String,
    /// Interface inside the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Addresses, without prefix length.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ips: Vec<IpAddr>,
    /// MAC address of the interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// MTU of the interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Whether this is the pod's default network.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub default: bool,
    /// Name servers that the network gave.
    #[serde(default)]
    pub dns: NetworkStatusDns,
    /// The device behind the interface, in the form of the device-info specification.
    #[serde(rename = "device-info", default, skip_serializing_if = "Option::is_none")]
    pub device_info: Option<serde_json::Value>,
    /// Gateways of the network.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gateway: Vec<IpAddr>,
}

/// Name resolution as a CNI result gives it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkStatusDns {
    /// Addresses of name servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// Domain of short names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Search list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// Resolver options.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// Why [`NETWORKS_ANNOTATION`] could not be read.
#[derive(Debug, thiserror::Error)]
pub enum NetworksError {
    /// The text has the shape of JSON and is not a list of elements.
    #[error("failed to parse annotation `{NETWORKS_ANNOTATION}` as a JSON list")]
    Json(#[source] serde_json::Error),
    /// An element of the short form is not `[namespace/]name[@interface]`.
    #[error(
        "failed to parse annotation `{NETWORKS_ANNOTATION}`: `{0}` is not of the form [namespace/]name[@interface], each a lower-case DNS label"
    )]
    Element(String),
    /// A name, namespace or interface holds what it may not.
    #[error("failed to parse annotation `{NETWORKS_ANNOTATION}`: {field} `{value}` of element {index} is not {valid}")]
    Value {
        /// Position in the list, from 0.
        index: usize,
        /// Field of the element.
        field: &'static str,
        /// What it holds.
        value: String,
        /// What would be valid.
        valid: &'static str,
    },
    /// Two fields that exclude each other are both set.
    #[error(
        "failed to parse annotation `{NETWORKS_ANNOTATION}`: element {0} has both ips and ipam-claim-reference, only one may be given"
    )]
    IpsAndClaim(usize),
    /// More than one element asks for the default route.
    #[error(
        "failed to parse annotation `{NETWORKS_ANNOTATION}`: default-route is given by elements {0} and {1}, only one may"
    )]
    DefaultRoutes(usize, usize),
}

/// Reads [`NETWORKS_ANNOTATION`], in its short form (`a,ns/b,ns/c@net3`) or as a JSON list.
///
/// Elements without a namespace get `pod_namespace`. Empty text is an empty list. As Multus does,
/// a text with any of `[`, `{` or `"` in it is taken to be JSON.
pub fn parse_networks(text: &str, pod_namespace: &str) -> Result<Vec<NetworkSelectionElement>, NetworksError> {
    let mut elements = if text.contains(['[', '{', '"']) {
        serde_json::from_str(text).map_err(NetworksError::Json)?
    } else {
        text.split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .map(parse_short)
            .collect::<Result<Vec<_>, _>>()?
    };
    let mut default_route = None;
    for (index, element) in elements.iter_mut().enumerate() {
        element.namespace.get_or_insert_with(|| pod_namespace.to_owned());
        check(index, element)?;
        if !element.default_route.is_empty()
            && let Some(first) = default_route.replace(index)
        {
            return Err(NetworksError::DefaultRoutes(first, index));
        }
    }
    Ok(elements)
}

fn parse_short(item: &str) -> Result<NetworkSelectionElement, NetworksError> {
    let wrong = || NetworksError::Element(item.to_owned());
    let (network, interface) = match item.split_once('@') {
        Some((network, interface)) => (network, Some(interface)),
        None => (item, None),
    };
    let (namespace, name) = match network.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (None, network),
    };
    if [Some(name), namespace, interface].into_iter().flatten().any(|part| part.is_empty() || part.contains(['/', '@']))
    {
        return Err(wrong());
    }
    Ok(NetworkSelectionElement {
        name: name.to_owned(),
        namespace: namespace.map(str::to_owned),
        interface: interface.map(str::to_owned),
        ..Default::default()
    })
}

const LABEL: &str = "a DNS label (lower-case letters, digits and `-`, at most 63, no `-` at either end)";

fn check(index: usize, element: &NetworkSelectionElement) -> Result<(), NetworksError> {
    let wrong = |field, value: &str, valid| Err(NetworksError::Value { index, field, value: value.to_owned(), valid });
    if !is_dns_subdomain(&element.name) {
        return wrong("name", &element.name, DNS_SUBDOMAIN);
    }
    match &element.namespace {
        Some(namespace) if !is_dns_label(namespace) => return wrong("namespace", namespace, LABEL),
        _ => {}
    }
    match &element.interface {
        Some(interface) if !is_interface_name(interface) => {
            return wrong("interface", interface, INTERFACE_NAME);
        }
        _ => {}
    }
    if !element.ips.is_empty() && element.ipam_claim_reference.is_some() {
        return Err(NetworksError::IpsAndClaim(index));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_networks_name_is_fit_for_a_url() {
        assert_eq!(network_name("lan", "own"), Ok(("own", "lan")));
        assert_eq!(network_name("infra/lan.v2", "own"), Ok(("infra", "lan.v2")));
        for (bad, word) in [
            ("", "name `` is not"),
            ("a/b/c", "name `b/c`"),
            ("/b", "namespace ``"),
            ("../../secrets/x", "namespace `..`"),
            ("x?watch=1", "name `x?watch=1`"),
            ("a.b/c", "namespace `a.b`"),
            ("a/..", "name `..`"),
            ("x#", "name `x#`"),
        ] {
            let error = network_name(bad, "own").unwrap_err().to_string();
            assert!(error.contains(word), "{bad}: {error}");
        }
    }

    #[test]
    fn short_form_fills_in_the_pods_namespace() {
        let parsed = parse_networks("a, ns/b ,ns/c@net3", "pods").unwrap();
        let parts: Vec<_> =
            parsed.iter().map(|e| (e.namespace.as_deref().unwrap(), e.name.as_str(), e.interface.as_deref())).collect();
        assert_eq!(parts, [("pods", "a", None), ("ns", "b", None), ("ns", "c", Some("net3"))]);
        assert!(parse_networks("", "pods").unwrap().is_empty());
    }

    #[test]
    fn json_form_holds_every_field() {
        let text = r#"[{"name":"a","namespace":"ns","ips":["10.0.0.5/24"],"mac":"02:00:00:00:00:05",
            "interface":"net1","cni-args":{"k":1},"portMappings":[{"hostPort":80,"containerPort":8080}],
            "bandwidth":{"ingressRate":1},"default-route":["10.0.0.1"]}]"#;
        let parsed = parse_networks(text, "pods").unwrap();
        assert_eq!(parsed[0].ips, ["10.0.0.5/24"]);
        assert_eq!(parsed[0].port_mappings[0].container_port, 8080);
        let again = serde_json::to_string(&parsed).unwrap();
        assert_eq!(parse_networks(&again, "pods").unwrap(), parsed);
    }

    #[test]
    fn wrong_values_are_named() {
        for (text, word) in [
            ("a/b/c", "a/b/c"),
            ("@x", "@x"),
            ("a@", "a@"),
            ("A", "name `A`"),
            ("a@interface-too-long", "interface `interface-too-long`"),
            (r#"[{"name":"a","ips":["1.2.3.4"],"ipam-claim-reference":"c"}]"#, "ipam-claim-reference"),
            (
                r#"[{"name":"a","default-route":["1.2.3.4"]},{"name":"b","default-route":["1.2.3.4"]}]"#,
                "elements 0 and 1",
            ),
        ] {
            let error = parse_networks(text, "pods").unwrap_err();
            assert!(error.to_string().contains(word), "{text}: {error}");
        }
        assert!(matches!(parse_networks(r#"[{"name":"a","nope":1}]"#, "pods"), Err(NetworksError::Json(_))));
    }
}
