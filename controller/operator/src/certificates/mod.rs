//! The certificates by which the components know each other: an authority of the installation's own, what it signs,
//! and when each is replaced.
//!
//! **Invariant:** whoever verifies a certificate has trusted its authority for a while. A new authority is in the
//! bundle first, and signs only after the bundle has had the time to reach all pods; an old one stays in the bundle
//! for as long as it is good. So no connection fails because of a rotation.

mod issue;
mod plan;
mod times;

pub use issue::{Issued, self_signed};
pub use plan::{Plan, Rotation, plan};
pub use times::{Times, TimesError};

use crate::target::Target;

/// Secret of the authority.
pub const AUTHORITY: &str = "kubevirt-ca";
/// ConfigMap with all authorities that are trusted, under the key `ca-bundle`.
pub const BUNDLE: &str = "kubevirt-ca";
/// Secret of the operator's own certificate.
pub const OPERATOR: &str = "kubevirt-operator-certs";

/// What a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Name of its Secret.
    pub secret: &'static str,
    /// Whom it names.
    pub common_name: String,
    /// Where its holder is reached; none where it only calls.
    pub hosts: Vec<String>,
}

/// The certificates of an installation.
pub fn leaves(target: &Target) -> Vec<Leaf> {
    let service = |secret, component: &str, service: &str| Leaf {
        secret,
        common_name: format!("kubevirt.io:system:{component}"),
        hosts: vec![
            format!("{service}.{}.svc", target.namespace),
            format!("{service}.{}.svc.cluster.local", target.namespace),
            format!("{service}.{}.pod.cluster.local", target.namespace),
        ],
    };
    vec![
        service(OPERATOR, "operator", "kubevirt-operator-webhook"),
        service("kubevirt-virt-api-certs", "virt-api", "virt-api"),
        service("kubevirt-controller-certs", "controller", "virt-controller"),
        // virt-api shows it to virt-handler, which answers nobody else.
        Leaf {
            secret: "kubevirt-virt-handler-certs",
            common_name: "kubevirt.io:system:client:virt-handler".to_owned(),
            hosts: Vec::new(),
        },
        // One for all nodes: virt-api connects to an address, and verifies this name.
        Leaf {
            secret: "kubevirt-virt-handler-server-certs",
            common_name: "kubevirt.io:system:node:virt-handler".to_owned(),
            hosts: vec!["virt-handler".to_owned()],
        },
    ]
}
