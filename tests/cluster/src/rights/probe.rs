//! A user with a component's roles, from which rights are taken, and the API server's decisions about him.

use std::time::Duration;

use anyhow::Result;
use hyper::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::role::Right;
use super::{Ask, Role};
use crate::api::Api;

const USER: &str = "test-rights";
/// How long a change of a role may take to be known to the authorizer.
const KNOWN: Duration = Duration::from_secs(3);
/// Between two questions: it knows within a few milliseconds, and there are many.
const LOOK: Duration = Duration::from_millis(3);

/// The user.
pub struct Probe<'a> {
    api: &'a Api,
    roles: &'a [Role],
}

impl<'a> Probe<'a> {
    /// Gives him the roles.
    pub async fn make(api: &'a Api, roles: &'a [Role]) -> Result<Self> {
        let probe = Self { api, roles };
        // Of a test that was ended.
        probe.remove().await?;
        for (at, role) in roles.iter().enumerate() {
            let object = json!({"metadata": {"name": name(at)}, "rules": role.rules});
            api.call(Method::POST, &path(role, "roles"), &object).await?.ok()?;
            let kind = if role.namespace.is_some() { "Role" } else { "ClusterRole" };
            let binding = json!({"metadata": {"name": name(at)},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name(at)},
                "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": USER}]});
            api.call(Method::POST, &path(role, "rolebindings"), &binding).await?.ok()?;
        }
        Ok(probe)
    }

    /// Takes everything away that was made for him.
    pub async fn remove(&self) -> Result<()> {
        for (at, role) in self.roles.iter().enumerate() {
            for kind in ["rolebindings", "roles"] {
                self.api.delete(&format!("{}/{}", path(role, kind), name(at))).await?;
            }
        }
        Ok(())
    }

    /// Whether he may do it, once what was changed is known.
    pub async fn is_allowed_soon(&self, ask: &Ask) -> Result<bool> {
        let end = Instant::now() + KNOWN;
        loop {
            let allowed = self.is_allowed(ask).await?;
            if allowed || Instant::now() > end {
                return Ok(allowed);
            }
            sleep(LOOK).await;
        }
    }

    /// Takes one right away, from the role `at`, and says whether something of this is refused then. It takes back what
    /// was taken from that role before.
    pub async fn is_refused_without(&self, at: usize, right: &Right, asked: &[&Ask]) -> Result<bool> {
        self.write(at, json!(self.roles[at].without(right))).await?;
        let end = Instant::now() + KNOWN;
        loop {
            for ask in asked {
                if !self.is_allowed(ask).await? {
                    return Ok(true);
                }
            }
            if Instant::now() > end {
                return Ok(false);
            }
            sleep(LOOK).await;
        }
    }

    /// Gives all rights of a role back.
    pub async fn restore(&self, at: usize) -> Result<()> {
        self.write(at, json!(self.roles[at].rules)).await
    }

    async fn write(&self, at: usize, rules: Value) -> Result<()> {
        let object = json!({"metadata": {"name": name(at)}, "rules": rules});
        let path = format!("{}/{}", path(&self.roles[at], "roles"), name(at));
        self.api.call(Method::PUT, &path, &object).await?.ok().map(drop)
    }

    async fn is_allowed(&self, ask: &Ask) -> Result<bool> {
        let (resource, subresource) = ask.resource.split_once('/').unwrap_or((&ask.resource, ""));
        let review = json!({"spec": {"user": USER, "resourceAttributes": {
            "verb": ask.verb, "group": ask.group, "resource": resource, "subresource": subresource,
            "namespace": ask.namespace, "name": ask.name}}});
        let reviews = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        let answer = self.api.call(Method::POST, reviews, &review).await?.ok()?;
        Ok(answer["status"]["allowed"] == true)
    }
}

fn name(at: usize) -> String {
    format!("{USER}-{at}")
}

/// Path of roles or of their bindings.
fn path(role: &Role, kind: &str) -> String {
    let root = "/apis/rbac.authorization.k8s.io/v1";
    match &role.namespace {
        Some(namespace) => format!("{root}/namespaces/{namespace}/{kind}"),
        None => format!("{root}/cluster{kind}"),
    }
}
