//! What a URL path means.

use holdfast_ipam::leases::LeaseKind;

use crate::store::{Key, Kind};

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// Whether we are alive.
    Health,
    /// Which version we are.
    Version,
    /// The objects of a kind, of one namespace or all.
    Objects {
        /// The kind.
        kind: Kind,
        /// The namespace.
        namespace: Option<&'a str>,
    },
    /// One object.
    Object {
        /// Which.
        key: Key,
    },
    /// Leases, or one of them.
    Leases {
        /// Of which kind.
        kind: LeaseKind,
        /// Which one.
        name: Option<&'a str>,
    },
    /// Events, of one namespace or all.
    Events {
        /// The namespace.
        namespace: Option<&'a str>,
    },
    /// A verb on a VM.
    Vm {
        /// Its namespace.
        namespace: &'a str,
        /// Its name.
        name: &'a str,
        /// The subresource.
        verb: &'a str,
    },
    /// A verb on a VMI.
    Vmi {
        /// Its namespace.
        namespace: &'a str,
        /// Its name.
        name: &'a str,
        /// The subresource.
        verb: &'a str,
    },
}

/// Reads a path; none where nothing is served there.
pub fn parse(path: &str) -> Option<Target<'_>> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match parts.as_slice() {
        ["healthz"] => Some(Target::Health),
        ["version"] => Some(Target::Version),
        ["apis", "subresources.kubevirt.io", "v1" | "v1alpha3", "namespaces", namespace, plural, name, verb] => {
            match *plural {
                "virtualmachines" => Some(Target::Vm { namespace, name, verb }),
                "virtualmachineinstances" => Some(Target::Vmi { namespace, name, verb }),
                _ => None,
            }
        }
        ["apis", "holdfast.io", "v1alpha1", plural @ ("ipleases" | "macleases"), rest @ ..] => {
            let kind = if *plural == "ipleases" { LeaseKind::Ip } else { LeaseKind::Mac };
            match rest {
                [] => Some(Target::Leases { kind, name: None }),
                [name] => Some(Target::Leases { kind, name: Some(name) }),
                _ => None,
            }
        }
        ["api", "v1", "events"] => Some(Target::Events { namespace: None }),
        ["api", "v1", "namespaces", namespace, "events"] => Some(Target::Events { namespace: Some(namespace) }),
        ["api", version, rest @ ..] => objects("", version, rest),
        ["apis", group, version, rest @ ..] => objects(group, version, rest),
        _ => None,
    }
}

fn objects<'a>(group: &str, version: &str, rest: &[&'a str]) -> Option<Target<'a>> {
    let kind = |plural: &str, namespaced: bool| {
        let fits = |kind: &Kind| {
            kind.group() == group
                && kind.version() == version
                && kind.plural() == plural
                && (kind.namespaced() || !namespaced)
        };
        Kind::ALL.into_iter().find(fits)
    };
    match rest {
        ["namespaces", namespace, plural] => {
            Some(Target::Objects { kind: kind(plural, true)?, namespace: Some(namespace) })
        }
        ["namespaces", namespace, plural, name] => {
            Some(Target::Object { key: Key::new(kind(plural, true)?, namespace, name) })
        }
        [plural] => Some(Target::Objects { kind: kind(plural, false)?, namespace: None }),
        [plural, name] => {
            let kind = kind(plural, false).filter(|kind| !kind.namespaced())?;
            Some(Target::Object { key: Key::new(kind, "", name) })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_a_cluster_are_understood() {
        let key = |kind, namespace, name| Some(Target::Object { key: Key::new(kind, namespace, name) });
        let vms = "/apis/kubevirt.io/v1/namespaces/default/virtualmachines";
        assert_eq!(parse(vms), Some(Target::Objects { kind: Kind::VirtualMachine, namespace: Some("default") }));
        assert_eq!(parse(&format!("{vms}/a")), key(Kind::VirtualMachine, "default", "a"));
        assert_eq!(
            parse("/apis/kubevirt.io/v1/virtualmachineinstances"),
            Some(Target::Objects { kind: Kind::VirtualMachineInstance, namespace: None })
        );
        assert_eq!(parse("/apis/holdfast.io/v1alpha1/underlaynetworks/lan"), key(Kind::UnderlayNetwork, "", "lan"));
        assert_eq!(parse("/api/v1/namespaces/n/secrets/s"), key(Kind::Secret, "n", "s"));
        let verb = "/apis/subresources.kubevirt.io/v1/namespaces/n/virtualmachineinstances/a/console";
        assert_eq!(parse(verb), Some(Target::Vmi { namespace: "n", name: "a", verb: "console" }));
        for wrong in ["/", "/apis", "/apis/apps/v1/deployments", "/apis/kubevirt.io/v1/virtualmachines/a", "/api/v1/x"]
        {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
