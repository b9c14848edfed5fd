//! The rights of the components, held against what the components were seen to ask for.
//!
//! A right is the smallest part of a role: one verb on one resource, of one name where the rule names some. It is needed
//! if something that its component has asked for is refused without it. That is decided by the API server itself: about
//! a user who has the component's roles without that right ([`unneeded`]).

mod audit;
mod granted;
mod probe;
mod role;

use std::collections::BTreeSet;

use anyhow::{Result, bail};

use crate::api::Api;

pub use audit::{Record, read};
pub use granted::granted;
pub use role::{Role, of};

/// Namespace of the installation.
pub const INSTALLATION: &str = "kubevirt";

/// What was asked for, as the authorizer sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ask {
    /// The verb.
    pub verb: String,
    /// The API group.
    pub group: String,
    /// The resource, with the subresource: `pods/status`.
    pub resource: String,
    /// The namespace; empty for all of them, and for what has none.
    pub namespace: String,
    /// Name of the object; empty where the request names none.
    pub name: String,
}

/// The rights that nothing of what was asked for needs, by their names.
///
/// # Errors
/// Where the API server does not answer, or refuses something although no right was taken away.
pub async fn unneeded(api: &Api, roles: &[Role], asked: &BTreeSet<Ask>) -> Result<Vec<String>> {
    let asked = alike(asked, roles);
    let probe = probe::Probe::make(api, roles).await?;
    let found = find(&probe, roles, &asked).await;
    probe.remove().await?;
    found
}

async fn find(probe: &probe::Probe<'_>, roles: &[Role], asked: &BTreeSet<Ask>) -> Result<Vec<String>> {
    // Otherwise everything would seem to be needed.
    for ask in asked.iter().filter(|ask| roles.iter().any(|role| role.allows(ask))) {
        if !probe.is_allowed_soon(ask).await? {
            bail!("{ask:?} is refused although it was allowed");
        }
    }
    let everywhere: BTreeSet<_> = roles.iter().filter(|role| role.namespace.is_none()).flat_map(Role::rights).collect();
    let mut unneeded = Vec::new();
    for (at, role) in roles.iter().enumerate() {
        for right in role.rights() {
            // It is no more than what is good everywhere.
            if role.namespace.is_some() && everywhere.contains(&right) {
                continue;
            }
            let users: Vec<&Ask> = asked.iter().filter(|ask| role.covers(&right, ask)).collect();
            let needed = !users.is_empty() && probe.is_refused_without(at, &right, &users).await?;
            if !needed {
                unneeded.push(format!("{}: {right}", role.name));
            }
        }
        probe.restore(at).await?;
    }
    Ok(unneeded)
}

/// One of those on which the authorizer must decide in the same way: roles tell no namespaces apart but those that they
/// are bound in, and no names but those that they list.
fn alike(asked: &BTreeSet<Ask>, roles: &[Role]) -> BTreeSet<Ask> {
    let one = |ask: &Ask| {
        let mut ask = ask.clone();
        let special = ask.namespace.is_empty()
            || roles.iter().any(|role| role.namespace.as_ref().is_some_and(|there| *there == ask.namespace));
        if !special {
            ask.namespace = "elsewhere".to_owned();
        }
        if !roles.iter().any(|role| role.names(&ask.name)) {
            ask.name = String::new();
        }
        ask
    };
    asked.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// To get a pod.
    pub fn ask(namespace: &str, name: &str) -> Ask {
        Ask {
            verb: "get".to_owned(),
            resource: "pods".to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            ..Ask::default()
        }
    }

    #[test]
    fn what_roles_do_not_tell_apart_is_asked_once() {
        let rules = serde_norway::from_str("[{apiGroups: [''], resources: [pods], resourceNames: [a], verbs: [get]}]");
        let role = Role { name: "r".to_owned(), namespace: Some("kubevirt".to_owned()), rules: rules.unwrap() };
        let asked = BTreeSet::from([ask("x", "b"), ask("y", "c"), ask("kubevirt", "a"), ask("kubevirt", "d")]);
        let expected = BTreeSet::from([ask("elsewhere", ""), ask("kubevirt", "a"), ask("kubevirt", "")]);
        assert_eq!(alike(&asked, &[role]), expected);
    }
}
