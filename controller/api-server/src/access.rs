//! What a user may do: the API server is asked, for each request anew, so that a right that is taken away is gone
//! with the next request.

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusDetails;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::timeout;

use crate::DEADLINE;
use crate::answer::{Refusal, forbidden, internal};
use crate::front_proxy::User;
use crate::verbs::{GROUP, Verb};

/// Lets a user who may use the subresource pass.
///
/// # Errors
/// 403 for who may not, 500 where that cannot be found out.
pub async fn check(
    client: &Client,
    user: User,
    verb: Verb,
    version: &str,
    namespace: &str,
    name: &str,
) -> Result<(), Refusal> {
    let refused = refusal(&user, verb, namespace, name);
    let review = review(user, verb, version, namespace, name);
    let api = Api::<SubjectAccessReview>::all(client.clone());
    let review = match timeout(DEADLINE, api.create(&PostParams::default(), &review)).await {
        Ok(Ok(review)) => review,
        Ok(Err(error)) => {
            return Err(internal(&format!("failed to review access: {}", holdfast_kubernetes::chain(&error))));
        }
        Err(_) => return Err(internal("failed to review access: no answer in time")),
    };
    let status = review.status.unwrap_or_default();
    if status.allowed && status.denied != Some(true) { Ok(()) } else { Err(refused) }
}

fn review(user: User, verb: Verb, version: &str, namespace: &str, name: &str) -> SubjectAccessReview {
    SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            extra: (!user.extra.is_empty()).then_some(user.extra),
            groups: Some(user.groups),
            uid: user.uid,
            user: Some(user.name),
            non_resource_attributes: None,
            resource_attributes: Some(ResourceAttributes {
                group: Some(GROUP.to_owned()),
                version: Some(version.to_owned()),
                resource: Some(verb.kind().plural().to_owned()),
                subresource: Some(verb.name().to_owned()),
                verb: Some(verb.access().to_owned()),
                namespace: Some(namespace.to_owned()),
                name: Some(name.to_owned()),
                ..ResourceAttributes::default()
            }),
        },
        ..SubjectAccessReview::default()
    }
}

fn refusal(user: &User, verb: Verb, namespace: &str, name: &str) -> Refusal {
    let (plural, subresource, access) = (verb.kind().plural(), verb.name(), verb.access());
    let message = format!(
        "{plural}.{GROUP} \"{name}\" is forbidden: User \"{}\" cannot {access} resource \"{plural}/{subresource}\" \
         in API group \"{GROUP}\" in the namespace \"{namespace}\"",
        user.name
    );
    let details = StatusDetails {
        group: Some(GROUP.to_owned()),
        kind: Some(plural.to_owned()),
        name: Some(name.to_owned()),
        ..StatusDetails::default()
    };
    forbidden(message, details)
}
