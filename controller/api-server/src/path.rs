//! What a URL path means.

use holdfast_api::admit::Webhook;

use crate::verbs::{GROUP, VERSIONS, Verb};
use holdfast_api::names::is_dns_subdomain;

/// The webhook of evictions.
pub const EVICTION: &str = "/pod-eviction-validate";
/// The webhook of underlay networks.
pub const UNDERLAY_NETWORKS: &str = "/underlaynetworks-validate";

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target<'a> {
    /// The paths that there are.
    Root,
    /// The API groups.
    Groups,
    /// The one group.
    Group,
    /// The subresources of a version.
    Resources(&'a str),
    /// OpenAPI 2.
    OpenApiV2,
    /// The list of OpenAPI 3 documents.
    OpenApiV3,
    /// The OpenAPI 3 document of a version.
    OpenApiV3Of(&'a str),
    /// Which version we are.
    Version,
    /// Whether the API server can be reached.
    Health,
    /// A subresource.
    Verb {
        /// Which one.
        verb: Verb,
        /// The version of the group.
        version: &'a str,
        /// The object's namespace.
        namespace: &'a str,
        /// Its name.
        name: &'a str,
    },
    /// A subresource that is not served.
    UnknownVerb,
    /// A call of the API server's, about an object that is written.
    Admission(Admission),
    /// Nothing that anybody serves.
    Unknown,
}

/// A webhook.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Admission {
    /// Of a kind that api/ decides about.
    Kind(Webhook),
    /// Of evictions.
    Eviction,
    /// Of underlay networks.
    UnderlayNetworks,
}

/// Reads a path.
pub fn parse(path: &str) -> Target<'_> {
    if let Some(admission) = admission(path) {
        return Target::Admission(admission);
    }
    let known = |version: &str| VERSIONS.contains(&version);
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match parts.as_slice() {
        [""] => Target::Root,
        ["apis"] => Target::Groups,
        ["apis", group] if *group == GROUP => Target::Group,
        ["openapi", "v2"] => Target::OpenApiV2,
        ["openapi", "v3"] => Target::OpenApiV3,
        ["openapi", "v3", "apis", group, version] if *group == GROUP && known(version) => Target::OpenApiV3Of(version),
        ["apis", group, version, rest @ ..] if *group == GROUP && known(version) => match rest {
            [] => Target::Resources(version),
            ["version"] => Target::Version,
            ["healthz"] => Target::Health,
            ["namespaces", namespace, plural, name, verb @ ..] => match Verb::of(plural, &verb.join("/")) {
                Some(verb) if is_dns_subdomain(namespace) && is_dns_subdomain(name) => {
                    Target::Verb { verb, version, namespace, name }
                }
                _ => Target::UnknownVerb,
            },
            ["namespaces", ..] => Target::UnknownVerb,
            _ => Target::Unknown,
        },
        _ => Target::Unknown,
    }
}

fn admission(path: &str) -> Option<Admission> {
    match path {
        EVICTION => Some(Admission::Eviction),
        UNDERLAY_NETWORKS => Some(Admission::UnderlayNetworks),
        _ => Webhook::of_path(path).filter(|&webhook| !is_operators(webhook)).map(Admission::Kind),
    }
}

/// Whether a webhook is virt-operator's.
fn is_operators(webhook: Webhook) -> bool {
    use Webhook::{KubeVirtValidateCreate, KubeVirtValidateDelete, KubeVirtValidateUpdate};
    matches!(webhook, KubeVirtValidateCreate | KubeVirtValidateUpdate | KubeVirtValidateDelete)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_understood() {
        let v1 = "/apis/subresources.kubevirt.io/v1";
        let verb = |verb, version| Target::Verb { verb, version, namespace: "n", name: "a" };
        for (path, target) in [
            ("/", Target::Root),
            ("/apis", Target::Groups),
            ("/apis/", Target::Groups),
            ("/apis/subresources.kubevirt.io", Target::Group),
            (v1, Target::Resources("v1")),
            ("/apis/subresources.kubevirt.io/v1alpha3/", Target::Resources("v1alpha3")),
            ("/openapi/v2", Target::OpenApiV2),
            ("/openapi/v3", Target::OpenApiV3),
            ("/openapi/v3/apis/subresources.kubevirt.io/v1", Target::OpenApiV3Of("v1")),
            (&format!("{v1}/version"), Target::Version),
            (&format!("{v1}/healthz"), Target::Health),
            (&format!("{v1}/namespaces/n/virtualmachines/a/start"), verb(Verb::Start, "v1")),
            (
                "/apis/subresources.kubevirt.io/v1alpha3/namespaces/n/virtualmachineinstances/a/console",
                verb(Verb::Console, "v1alpha3"),
            ),
            // A verb of the other kind, one that comes later, and paths that are no subresource's.
            (&format!("{v1}/namespaces/n/virtualmachines/a/console"), Target::UnknownVerb),
            (&format!("{v1}/namespaces/n/virtualmachines/a/migrate"), Target::UnknownVerb),
            (&format!("{v1}/namespaces/n/virtualmachineinstances/a/portforward/22"), Target::UnknownVerb),
            (&format!("{v1}/namespaces/n/expand-vm-spec"), Target::UnknownVerb),
            (&format!("{v1}/namespaces/n/virtualmachines/a%2Fb/start"), Target::UnknownVerb),
            (&format!("{v1}/namespaces/../virtualmachines/a/start"), Target::UnknownVerb),
            (&format!("{v1}/nope"), Target::Unknown),
            ("/apis/subresources.kubevirt.io/v2", Target::Unknown),
            ("/apis/apps/v1", Target::Unknown),
            ("/pod-eviction-validate", Target::Admission(Admission::Eviction)),
            ("/virtualmachines-mutate", Target::Admission(Admission::Kind(Webhook::VmMutate))),
            ("/virt-launcher-pod-mutate", Target::Unknown),
            ("/kubevirt-validate-create", Target::Unknown),
        ] {
            assert_eq!(parse(path), target, "{path}");
        }
    }
}
