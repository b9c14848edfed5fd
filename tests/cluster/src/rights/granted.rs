//! What an operator must have because it gives it to others: nobody may grant what he has not, or bind a role that
//! holds it. The API server checks that when the roles are written, and logs no request for it.

use std::collections::BTreeSet;

use anyhow::{Context, Result};

use super::{Ask, INSTALLATION, role};
use crate::api::Api;

/// What the objects that virt-operator made hold.
///
/// # Errors
/// Where the API server does not answer.
pub async fn granted(api: &Api) -> Result<BTreeSet<Ask>> {
    let mut asks = BTreeSet::new();
    let mut made = BTreeSet::new();
    for (kind, namespace) in [("clusterroles", ""), ("roles", INSTALLATION)] {
        for object in list(api, kind).await? {
            made.insert(object["metadata"]["name"].clone().to_string());
            let role = role::Role { name: String::new(), namespace: None, rules: role::rules(&object)? };
            asks.extend(role.rights().into_iter().map(|right| right.ask(namespace)));
        }
    }
    for object in list(api, "clusterrolebindings").await? {
        if !made.contains(&object["roleRef"]["name"].to_string()) {
            asks.insert(Ask {
                verb: "bind".to_owned(),
                group: "rbac.authorization.k8s.io".to_owned(),
                resource: "clusterroles".to_owned(),
                namespace: String::new(),
                name: object["roleRef"]["name"].as_str().unwrap_or_default().to_owned(),
            });
        }
    }
    Ok(asks)
}

async fn list(api: &Api, kind: &str) -> Result<Vec<serde_json::Value>> {
    let label = "labelSelector=app.kubernetes.io%2Fmanaged-by%3Dvirt-operator";
    let path = format!("/apis/rbac.authorization.k8s.io/v1/{kind}?{label}");
    let list = api.get(&path).await?.context("RBAC is not served")?;
    Ok(list["items"].as_array().cloned().unwrap_or_default())
}
