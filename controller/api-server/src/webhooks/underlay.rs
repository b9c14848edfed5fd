//! Of underlay networks: the rules of their fields, which the CRD's schema cannot say.

use holdfast_api::error_status::ErrorStatus;
use holdfast_api::underlay::{UnderlayNetwork, problems};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{StatusCause, StatusDetails};
use serde::Deserialize;

use super::review::{Allowed, Review};

/// Refuses a network with anything wrong in it.
pub fn decide(review: &Review) -> Result<Allowed, ErrorStatus> {
    let network = UnderlayNetwork::deserialize(&review.object)
        .map_err(|error| ErrorStatus::bad_request(&format!("failed to read the UnderlayNetwork: {error}")))?;
    // One that goes must be able to go, whatever was let in once.
    if network.metadata.deletion_timestamp.is_some() {
        return Ok(Allowed::default());
    }
    let causes = problems(&network);
    if causes.is_empty() { Ok(Allowed::default()) } else { Err(invalid(&review.name, causes)) }
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
        assert_eq!(decide(&review(json!({"backend": "ovs", "bridge": "br0"}), None)), Ok(Allowed::default()));
        let wrong = json!({"backend": "ovs", "bridge": "br0", "mtu": 5, "vlan": {"access": 5000}});
        let error = decide(&review(wrong.clone(), None)).unwrap_err();
        assert_eq!((error.code, error.reason.as_deref()), (422, Some("Invalid")));
        let fields: Vec<_> = error.causes().iter().filter_map(|cause| cause.field.as_deref()).collect();
        assert!(fields.contains(&"spec.mtu") && fields.len() == 2, "{fields:?}");
        assert!(error.message.contains("spec.mtu: "), "{error}");
        assert!(decide(&review(wrong, Some("2026-01-01T00:00:00Z"))).is_ok(), "it may go");
    }
}
