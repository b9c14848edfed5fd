//! IPLease and MACLease (holdfast.io/v1alpha1): who holds an address on a segment.
//!
//! The name of a lease is made from its segment and its address, so that creating the object is
//! the lock: whoever creates it has the address, everybody else learns who does. The spec never
//! changes. The status says where the address is in use, and each hand-over counts the epoch up.

use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::names::{is_dns_label, parse_mac};

/// An IP address on a segment, and the claim that holds it. Cannot be changed.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "holdfast.io",
    version = "v1alpha1",
    kind = "IPLease",
    plural = "ipleases",
    shortname = "ipl",
    category = "holdfast",
    status = "LeaseStatus",
    doc = "One IP address that is held by one NIC for as long as its claim exists.",
    printcolumn(name = "Segment", type_ = "string", json_path = ".spec.segment"),
    printcolumn(name = "Address", type_ = "string", json_path = ".spec.address"),
    printcolumn(name = "Namespace", type_ = "string", json_path = ".spec.claim.namespace"),
    printcolumn(name = "Holder", type_ = "string", json_path = ".spec.claim.name"),
    printcolumn(name = "Network", type_ = "string", json_path = ".spec.claim.network"),
    printcolumn(name = "Node", type_ = "string", json_path = ".status.node"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "self == oldSelf", "message": "the spec of a lease cannot be changed"}
]))]
pub struct IPLeaseSpec {
    /// Segment that the address is on.
    pub segment: String,
    /// The address, without a prefix length.
    pub address: IpAddr,
    /// Who holds it.
    pub claim: Claim,
}

/// A MAC address on a segment, and the claim that holds it. Cannot be changed.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "holdfast.io",
    version = "v1alpha1",
    kind = "MACLease",
    plural = "macleases",
    shortname = "macl",
    category = "holdfast",
    status = "LeaseStatus",
    doc = "One MAC address that is held by one NIC for as long as its claim exists.",
    printcolumn(name = "Segment", type_ = "string", json_path = ".spec.segment"),
    printcolumn(name = "Address", type_ = "string", json_path = ".spec.address"),
    printcolumn(name = "Namespace", type_ = "string", json_path = ".spec.claim.namespace"),
    printcolumn(name = "Holder", type_ = "string", json_path = ".spec.claim.name"),
    printcolumn(name = "Network", type_ = "string", json_path = ".spec.claim.network"),
    printcolumn(name = "Node", type_ = "string", json_path = ".status.node"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "self == oldSelf", "message": "the spec of a lease cannot be changed"}
]))]
pub struct MACLeaseSpec {
    /// Segment that the address is on.
    pub segment: String,
    /// The address, in lower case and separated by `:`.
    #[schemars(regex(pattern = r"^[0-9a-f]{2}(:[0-9a-f]{2}){5}$"))]
    pub address: String,
    /// Who holds it.
    pub claim: Claim,
}

/// The NIC that holds an address: one network of one VM, or of one pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// UID of the object, so that a new one of the same name is somebody else.
    pub uid: String,
    /// Kind of the object: `VirtualMachine`, `VirtualMachineInstance` or `Pod`.
    pub kind: String,
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
    /// Name of the network in the VM's spec, or of the interface in the pod.
    pub network: String,
}

impl Claim {
    /// What tells one claim from another: `<uid>/<network>`.
    pub fn id(&self) -> String {
        format!("{}/{}", self.uid, self.network)
    }

    /// Whether they are one claim: what their [`Self::id`]s say, without making a text of each.
    pub fn is(&self, other: &Self) -> bool {
        self.uid == other.uid && self.network == other.network
    }
}

/// Where a leased address is in use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeaseStatus {
    /// Node that the address speaks from; none while its VM is stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Pod that the address speaks from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Id of that pod's sandbox, as CNI calls it.
    #[serde(rename = "containerID", default, skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
    /// Where a migration will take the address to; its port is silent until the hand-over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<LeaseTarget>,
    /// Counts hand-overs from 0. A node that knows a smaller number has lost the address.
    #[serde(default)]
    pub epoch: u64,
    /// What is wrong with the lease, if anything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend(
        "x-kubernetes-list-type" = "map",
        "x-kubernetes-list-map-keys" = ["type"]
    ))]
    pub conditions: Vec<Condition>,
}

/// The place that a migration takes an address to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeaseTarget {
    /// Node of the target.
    pub node: String,
    /// Pod of the target.
    pub pod: String,
    /// Id of the target's sandbox, as CNI calls it.
    #[serde(rename = "containerID")]
    pub container_id: String,
}

/// Why no lease can have the name that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaseNameError {
    /// The segment cannot be the beginning of an object's name.
    #[error(
        "failed to name a lease on segment `{0}`: a segment is a DNS subdomain (labels of lower-case letters, digits and `-`, separated by `.`) of at most {MAX_SEGMENT} characters"
    )]
    Segment(String),
    /// The text is no MAC address that a NIC can have.
    #[error(
        "failed to name a lease of MAC address `{0}`: six octets such as `02:1a:2b:3c:4d:5e` are needed, not multicast and not all zero"
    )]
    Mac(String),
}

/// Longest segment: what an object name of 253 characters leaves beside `.` and an IPv6 address.
pub const MAX_SEGMENT: usize = 253 - 33;

/// Whether `segment` can name a layer 2 segment: a DNS subdomain that leaves room for an address.
pub fn is_segment(segment: &str) -> bool {
    segment.len() <= MAX_SEGMENT && segment.split('.').all(is_dns_label)
}

/// Name of the IPLease of `address` on `segment`: `<segment>.<address as hex>`, 8 digits for IPv4
/// and 32 for IPv6. An IPv4 address in IPv6 clothes (`::ffff:192.0.2.1`) is the IPv4 one.
pub fn lease_name(segment: &str, address: IpAddr) -> Result<String, LeaseNameError> {
    match address.to_canonical() {
        IpAddr::V4(address) => name(segment, &address.octets()),
        IpAddr::V6(address) => name(segment, &address.octets()),
    }
}

/// Name of the MACLease of `mac` on `segment`: `<segment>.<12 hex digits>`.
pub fn mac_lease_name(segment: &str, mac: &str) -> Result<String, LeaseNameError> {
    match parse_mac(mac) {
        Some(octets) if octets[0] & 1 == 0 && octets != [0; 6] => name(segment, &octets),
        _ => Err(LeaseNameError::Mac(mac.to_owned())),
    }
}

fn name(segment: &str, octets: &[u8]) -> Result<String, LeaseNameError> {
    if !is_segment(segment) {
        return Err(LeaseNameError::Segment(segment.to_owned()));
    }
    Ok(format!("{segment}.{}", hex::encode(octets)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let ip = |text: &str| lease_name("lab.rack-1", text.parse().unwrap()).unwrap();
        assert_eq!(ip("192.0.2.17"), "lab.rack-1.c0000211");
        assert_eq!(ip("::ffff:192.0.2.17"), "lab.rack-1.c0000211");
        assert_eq!(ip("2001:db8::1"), "lab.rack-1.20010db8000000000000000000000001");
        for mac in ["02:00:00:AB:cd:ef", "02-00-00-ab-cd-ef"] {
            assert_eq!(mac_lease_name("lab", mac).unwrap(), "lab.020000abcdef");
        }
    }

    #[test]
    fn what_cannot_be_named_is_refused() {
        let address = "192.0.2.1".parse().unwrap();
        for segment in ["", "Lab", "a..b", "a/b", "../x", &"a".repeat(221)] {
            assert_eq!(lease_name(segment, address), Err(LeaseNameError::Segment(segment.to_owned())));
        }
        for mac in ["", "01:00:5e:00:00:01", "00:00:00:00:00:00", "02:00"] {
            assert_eq!(mac_lease_name("lab", mac), Err(LeaseNameError::Mac(mac.to_owned())));
        }
    }
}
