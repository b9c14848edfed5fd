//! Roles taken to pieces. Pure but for [`of`].

use std::collections::BTreeSet;
use std::fmt;

use anyhow::{Context, Result};
use k8s_openapi::api::rbac::v1::PolicyRule;
use serde_json::Value;

use super::{Ask, INSTALLATION};
use crate::api::Api;

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

/// A role as it is bound to an account.
#[derive(Clone, Debug)]
pub struct Role {
    /// What it is called.
    pub name: String,
    /// The namespace that it is bound in; none where it is good everywhere.
    pub namespace: Option<String>,
    /// Its rules.
    pub rules: Vec<PolicyRule>,
}

/// One right.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    group: String,
    resource: String,
    verb: String,
    name: Option<String>,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        self.name.as_ref().map_or(Ok(()), |name| write!(f, " `{name}`"))
    }
}

impl Right {
    /// The request that it is made for.
    pub fn ask(self, namespace: &str) -> Ask {
        let Self { group, resource, verb, name } = self;
        Ask { verb, group, resource, namespace: namespace.to_owned(), name: name.unwrap_or_default() }
    }
}

impl Role {
    /// Each of its rights, once.
    pub fn rights(&self) -> BTreeSet<Right> {
        rights(&self.rules)
    }

    /// Whether it is because of this right that the role allows something.
    pub fn covers(&self, right: &Right, ask: &Ask) -> bool {
        let fits = |told: &str, asked: &str| told == "*" || told == asked;
        self.namespace.as_ref().is_none_or(|namespace| *namespace == ask.namespace)
            && fits(&right.group, &ask.group)
            && fits(&right.resource, &ask.resource)
            && fits(&right.verb, &ask.verb)
            && right.name.as_ref().is_none_or(|name| *name == ask.name)
    }

    /// Whether it allows something.
    pub fn allows(&self, ask: &Ask) -> bool {
        self.rights().iter().any(|right| self.covers(right, ask))
    }

    /// Whether one of its rules is about objects of this name.
    pub fn names(&self, name: &str) -> bool {
        self.rules.iter().flat_map(|rule| &rule.resource_names).flatten().any(|named| named == name)
    }

    /// Its rules without one right.
    pub fn without(&self, right: &Right) -> Vec<PolicyRule> {
        self.rules.iter().flat_map(|rule| split(rule, right)).collect()
    }
}

fn rights(rules: &[PolicyRule]) -> BTreeSet<Right> {
    let mut rights = BTreeSet::new();
    for rule in rules {
        let names = rule.resource_names.clone().filter(|names| !names.is_empty());
        let names = names.map_or(vec![None], |names| names.into_iter().map(Some).collect());
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                for verb in &rule.verbs {
                    rights.extend(names.iter().map(|name| Right {
                        group: group.clone(),
                        resource: resource.clone(),
                        verb: verb.clone(),
                        name: name.clone(),
                    }));
                }
            }
        }
    }
    rights
}

/// A rule without one right: what is left of groups, then of resources, verbs and names.
fn split(rule: &PolicyRule, right: &Right) -> Vec<PolicyRule> {
    if !rights(std::slice::from_ref(rule)).contains(right) {
        return vec![rule.clone()];
    }
    let others = |list: &[String], one: &str| list.iter().filter(|other| *other != one).cloned().collect::<Vec<_>>();
    let only = |one: &str| Some(vec![one.to_owned()]);
    let (groups, resources) = (rule.api_groups.as_deref().unwrap_or_default(), rule.resources.as_deref());
    let rest_of_groups = PolicyRule { api_groups: Some(others(groups, &right.group)), ..rule.clone() };
    let group = PolicyRule { api_groups: only(&right.group), ..rule.clone() };
    let rest_of_resources =
        PolicyRule { resources: Some(others(resources.unwrap_or_default(), &right.resource)), ..group.clone() };
    let resource = PolicyRule { resources: only(&right.resource), ..group };
    let rest_of_verbs = PolicyRule { verbs: others(&rule.verbs, &right.verb), ..resource.clone() };
    let verb = PolicyRule { verbs: vec![right.verb.clone()], ..resource };
    let mut left = vec![rest_of_groups, rest_of_resources, rest_of_verbs];
    if let (Some(name), Some(names)) = (&right.name, &rule.resource_names) {
        let names = others(names, name);
        // Without any name left, it would be about all of them.
        if !names.is_empty() {
            left.push(PolicyRule { resource_names: Some(names), ..verb });
        }
    }
    left.retain(|rule| !rights(std::slice::from_ref(rule)).is_empty());
    left
}

/// The roles that are bound to an account of the installation, but for Kubernetes' own.
///
/// # Errors
/// Where the API server does not answer.
pub async fn of(api: &Api, account: &str) -> Result<Vec<Role>> {
    let mut roles = Vec::new();
    for kind in ["clusterrolebindings", "rolebindings"] {
        let list = api.get(&format!("{RBAC}/{kind}")).await?.context("RBAC is not served")?;
        for binding in list["items"].as_array().into_iter().flatten() {
            let is_subject = |subject: &Value| {
                subject["kind"] == "ServiceAccount"
                    && subject["name"] == account
                    && subject["namespace"] == INSTALLATION
            };
            let name = binding["roleRef"]["name"].as_str().unwrap_or_default();
            let subjects = binding["subjects"].as_array();
            if !subjects.into_iter().flatten().any(is_subject) || name.starts_with("system:") {
                continue;
            }
            let namespace = binding["metadata"]["namespace"].as_str();
            let path = match (binding["roleRef"]["kind"].as_str(), namespace) {
                (Some("Role"), Some(namespace)) => format!("{RBAC}/namespaces/{namespace}/roles/{name}"),
                _ => format!("{RBAC}/clusterroles/{name}"),
            };
            let role = api.get(&path).await?.with_context(|| format!("{path} is not there"))?;
            roles.push(Role {
                name: format!("{} {name}", binding["roleRef"]["kind"].as_str().unwrap_or_default()),
                namespace: namespace.map(str::to_owned),
                rules: rules(&role)?,
            });
        }
    }
    Ok(roles)
}

/// The rules of a role object.
pub fn rules(role: &Value) -> Result<Vec<PolicyRule>> {
    match &role["rules"] {
        Value::Null => Ok(Vec::new()),
        rules => serde_json::from_value(rules.clone()).context("failed to read the rules of a role"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rights::tests::ask;

    fn role(rules: &str) -> Role {
        Role { name: "r".to_owned(), namespace: None, rules: serde_norway::from_str(rules).unwrap() }
    }

    #[test]
    fn one_right_less_is_one_right_less() {
        let role = role(
            "[{apiGroups: ['', b], resources: [x, y], verbs: [get, list], resourceNames: [m, n]},
              {apiGroups: [''], resources: [x], verbs: [get]}, {apiGroups: [c], resources: [z/s], verbs: [get]},
              {apiGroups: [c], resources: [z/s], verbs: [get, patch]}]",
        );
        let all = role.rights();
        assert_eq!(all.len(), 16 + 1 + 2);
        for right in &all {
            let mut expected = all.clone();
            expected.remove(right);
            assert_eq!(rights(&role.without(right)), expected, "{right}");
        }
    }

    #[test]
    fn a_right_is_about_its_namespace_and_name() {
        let mut role = role("[{apiGroups: [''], resources: [pods], verbs: [get], resourceNames: [a]}]");
        assert!(role.allows(&ask("n", "a")) && !role.allows(&ask("n", "b")) && !role.allows(&ask("n", "")));
        role.namespace = Some("m".to_owned());
        assert!(role.allows(&ask("m", "a")) && !role.allows(&ask("n", "a")));
        assert_eq!(role.rights().first().unwrap().to_string(), "get pods `a`");
    }
}
