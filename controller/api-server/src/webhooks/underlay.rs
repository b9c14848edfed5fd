//! Of underlay networks: the rules of their fields, which the CRD's schema cannot say, and that no two of them give
//! out one address twice.

use holdfast_api::error_status::ErrorStatus;
use holdfast_api::underlay::{UnderlayNetwork, conflict, problems, read};
use holdfast_kubernetes::chain;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{StatusCause, StatusDetails};
use kube::Api;
use kube::api::ListParams;
use tokio::time::timeout;

use super::review::{Allowed, Review};
use crate::DEADLINE;
use crate::server::Server;

/// Refuses a network with anything wrong in it, or with another in its way.
pub async fn decide(server: &Server, review: &Review) -> Result<Allowed, ErrorStatus> {
    let Some(network) = acceptable(review)? else { return Ok(Allowed::default()) };
    let networks = Api::<UnderlayNetwork>::all(server.client.clone());
    let failed = |why: &str| ErrorStatus::internal(&format!("failed to list the UnderlayNetworks: {why}"));
    let others = match timeout(DEADLINE, networks.list(&ListParams::default())).await {
        Ok(Ok(others)) => others.items,
        Ok(Err(error)) => return Err(failed(&chain(&error))),
        Err(_) => return Err(failed("no answer in time")),
    };
    match conflict(&network, &others) {
        None => Ok(Allowed::default()),
        Some(cause) => Err(invalid(&review.name, vec![cause])),
    }
}

/// The network, where it is right by itself; none where it does not matter any more.
fn acceptable(review: &Review) -> Result<Option<UnderlayNetwork>, ErrorStatus> {
    // One that goes must be able to go, whatever was let in once.
    if !review.object["metadata"]["deletionTimestamp"].is_null() {
        return Ok(None);
    }
    let network = read(&review.object).map_err(|causes| invalid(&review.name, causes))?;
    let mut causes = problems(&network);
    causes.extend(moved(review, &network));
    if causes.is_empty() { Ok(Some(network)) } else { Err(invalid(&review.name, causes)) }
}

/// Leases are named after the segment: with another one, what is held would be given out again.
fn moved(review: &Review, network: &UnderlayNetwork) -> Option<StatusCause> {
    if review.operation != "UPDATE" {
        return None;
    }
    // One that cannot be read has no leases.
    let old = read(&review.old_object).ok()?;
    let (before, after) = (old.spec.segment(&review.name), network.spec.segment(&review.name));
    (before != after).then(|| StatusCause {
        field: Some("spec.segment".to_owned()),
        message: Some(format!("`{after}` cannot take the place of `{before}`: make another UnderlayNetwork")),
        reason: Some("FieldValueInvalid".to_owned()),
    })
}

fn invalid(name: &str, causes: Vec<StatusCause>) -> ErrorStatus {
    let told = causes.iter().map(|cause| {
        format!("{}: {}", cause.field.as_deref().unwrap_or_default(), cause.message.as_deref().unwrap_or_default())
    });
    let message = told.collect::<Vec<_>>().join(", ");
    ErrorStatus {
        code: 422,
        reason: Some("Invalid".to_owned()),
        message,
        details: Some(Box::new(StatusDetails {
            group: Some("holdfast.io".to_owned()),
            kind: Some("UnderlayNetwork".to_owned()),
            name: Some(name.to_owned()),
            causes: Some(causes),
            ..StatusDetails::default()
        })),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::{Value, json};

    use super::*;

    fn review(spec: Value, deletion: Option<&str>) -> Review {
        let metadata = json!({"name": "lan", "deletionTimestamp": deletion});
        let object = json!({"apiVersion": "holdfast.io/v1alpha1", "kind": "UnderlayNetwork", "metadata": metadata, "spec": spec});
        Review { name: "lan".to_owned(), object, ..Review::default() }
    }

    #[test]
    fn wrong_networks_are_refused_with_their_fields() {
        assert!(acceptable(&review(json!({"backend": "ovs", "bridge": "br0"}), None)).unwrap().is_some());
        let wrong = json!({"backend": "ovs", "bridge": "br0", "mtu": 5, "vlan": {"access": 5000}});
        let error = acceptable(&review(wrong.clone(), None)).unwrap_err();
        assert_eq!((error.code, error.reason.as_deref()), (422, Some("Invalid")));
        let fields: Vec<_> = error.causes().iter().filter_map(|cause| cause.field.as_deref()).collect();
        assert!(fields.contains(&"spec.mtu") && fields.len() == 2, "{fields:?}");
        assert!(error.message.contains("spec.mtu: "), "{error}");
        let mut update = review(json!({"backend": "ovs", "bridge": "br0", "segment": "other"}), None);
        update.operation = "UPDATE".to_owned();
        update.old_object = review(json!({"backend": "ovs", "bridge": "br1"}), None).object;
        let error = acceptable(&update).unwrap_err();
        assert!(error.message.contains("`other` cannot take the place of `lan`"), "{error}");
        update.object["spec"]["segment"] = json!("lan");
        assert!(acceptable(&update).is_ok());
        assert_eq!(acceptable(&review(wrong, Some("2026-01-01T00:00:00Z"))), Ok(None), "it may go");
        let error =
            acceptable(&review(json!({"backend": "ovs", "bridge": "b", "subnets": [{"cidr": "10.0.0.0/33"}]}), None));
        let error = error.unwrap_err();
        let details = error.details.as_ref().unwrap();
        assert_eq!((details.kind.as_deref(), details.name.as_deref()), (Some("UnderlayNetwork"), Some("lan")));
        assert_eq!(error.causes()[0].field.as_deref(), Some("spec.subnets[0].cidr"));
    }
}
