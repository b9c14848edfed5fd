//! What an operator must have because it gives it to others: nobody may grant what he has not, or bind a role that
//! holds it, or let a policy look at objects that he may not read. The API server checks that when these are written,
//! and logs no request for it.

use std::collections::BTreeSet;

use anyhow::{Context, Result};

use super::{Ask, INSTALLATION, role};
use crate::api::Api;

const RBAC: &str = "rbac.authorization.k8s.io";

/// What the objects that virt-operator made hold.
///
/// # Errors
/// Where the API server does not answer.
pub async fn granted(api: &Api) -> Result<BTreeSet<Ask>> {
    let mut asks = BTreeSet::new();
    let mut made = BTreeSet::new();
    for (kind, namespace) in [("clusterroles", ""), ("roles", INSTALLATION)] {
        for object in list(api, RBAC, kind).await? {
            made.insert(object["metadata"]["name"].clone().to_string());
            let role = role::Role { name: String::new(), namespace: None, rules: role::rules(&object)? };
            asks.extend(role.rights().into_iter().map(|right| right.ask(namespace)));
        }
    }
    for object in list(api, RBAC, "clusterrolebindings").await? {
        if !made.contains(&object["roleRef"]["name"].to_string()) {
            asks.insert(Ask {
                verb: "bind".to_owned(),
                group: RBAC.to_owned(),
                resource: "clusterroles".to_owned(),
                namespace: String::new(),
                name: object["roleRef"]["name"].as_str().unwrap_or_default().to_owned(),
            });
        }
    }
    for object in list(api, "admissionregistration.k8s.io", "validatingadmissionpolicies").await? {
        let parameters = &object["spec"]["paramKind"];
        if let (Some(version), Some(kind)) = (parameters["apiVersion"].as_str(), parameters["kind"].as_str()) {
            asks.insert(Ask {
                verb: "get".to_owned(),
                group: version.split_once('/').map(|(group, _)| group.to_owned()).unwrap_or_default(),
                resource: format!("{}s", kind.to_lowercase()),
                namespace: String::new(),
                name: String::new(),
            });
        }
    }
    Ok(asks)
}

async fn list(api: &Api, group: &str, kind: &str) -> Result<Vec<serde_json::Value>> {
    let label = "labelSelector=app.kubernetes.io%2Fmanaged-by%3Dvirt-operator";
    let list = api.get(&format!("/apis/{group}/v1/{kind}?{label}")).await?;
    let list = list.with_context(|| format!("{kind} are not served"))?;
    Ok(list["items"].as_array().cloned().unwrap_or_default())
}
