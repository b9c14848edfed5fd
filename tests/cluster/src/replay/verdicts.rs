//! Verdicts: manifests, each created as a dry run with strict field validation.

use std::path::Path;

use anyhow::{Context, Result};
use hyper::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Difference, Outcome, lines};
use crate::api::{Answer, Api};

const NAMESPACE: &str = "default";

/// Replays a file of verdicts. Those `with_feature_gates` are asked a second time with `gates` on.
///
/// # Errors
/// Where the cluster does not answer.
pub async fn verdicts(api: &Api, path: &Path, gates: &[&str]) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let all = lines(path)?;
    for verdict in &all {
        let name = case(verdict);
        let manifest = &verdict["manifest"];
        outcome.compared += 1;
        match ask(api, manifest).await? {
            None => outcome.differences.push(Difference::new(
                format!("kind {}", manifest["kind"].as_str().unwrap_or_default()),
                &json!(verdict["code"]),
                &json!("this kind is not served"),
            )),
            Some(answer) => {
                let (mut seen, mut ours) = (observed(verdict), shape(&answer));
                without_chance(&mut seen);
                without_chance(&mut ours);
                if seen != ours {
                    outcome.differences.push(Difference::new(format!("case {name}"), &seen, &ours));
                }
            }
        }
    }
    let gated: Vec<&Value> = all.iter().filter(|verdict| verdict["with_feature_gates"].is_object()).collect();
    if !gated.is_empty() {
        let before = set_gates(api, &json!(gates)).await?;
        for verdict in gated {
            let expected = verdict["with_feature_gates"]["code"].as_u64().unwrap_or_default();
            // The setting is followed, not pushed: it comes into force a moment later.
            let asked = api.until("the gates are in force", std::time::Duration::from_secs(20), async || {
                let answer = ask(api, &verdict["manifest"]).await?;
                Ok(answer.filter(|answer| u64::from(answer.code) == expected))
            });
            outcome.compared += 1;
            if asked.await.is_err() {
                let what = format!("case {} with feature gates", case(verdict));
                outcome.differences.push(Difference::new(what, &json!(expected), &json!("another code")));
            }
        }
        set_gates(api, &before).await?;
    }
    Ok(outcome)
}

fn case(verdict: &Value) -> String {
    verdict["case"].as_str().unwrap_or_default().to_owned()
}

async fn ask(api: &Api, manifest: &Value) -> Result<Option<Answer>> {
    let field = |name: &str| manifest[name].as_str().unwrap_or_default();
    let namespace = manifest["metadata"]["namespace"].as_str().unwrap_or(NAMESPACE);
    let Some(collection) = api.collection(field("apiVersion"), field("kind"), namespace).await? else {
        return Ok(None);
    };
    let path = format!("{collection}?dryRun=All&fieldValidation=Strict");
    api.call(Method::POST, &path, manifest).await.map(Some)
}

/// Sets the installation's feature gates, and returns those before.
async fn set_gates(api: &Api, gates: &Value) -> Result<Value> {
    let all = api.get("/apis/kubevirt.io/v1/kubevirts").await?.context("there is no KubeVirt")?;
    let kubevirt = &all["items"][0];
    let field = |name: &str| kubevirt["metadata"][name].as_str().unwrap_or_default();
    let path = format!("/apis/kubevirt.io/v1/namespaces/{}/kubevirts/{}", field("namespace"), field("name"));
    let patch = json!({"spec": {"configuration": {"developerConfiguration": {"featureGates": gates}}}});
    api.call(Method::PATCH, &path, &patch).await?.ok()?;
    Ok(kubevirt["spec"]["configuration"]["developerConfiguration"]["featureGates"].clone())
}

/// An answer in the shape in which answers were recorded.
fn shape(answer: &Answer) -> Value {
    let body = &answer.body;
    if answer.code == 201 {
        let meta = &body["metadata"];
        let object = json!({"annotations": meta["annotations"], "finalizers": meta["finalizers"],
            "labels": meta["labels"], "spec": body["spec"], "status": body["status"]});
        return json!({"code": 201, "object": object});
    }
    json!({"code": answer.code, "reason": body["reason"], "message": body["message"],
        "causes": body["details"]["causes"]})
}

fn observed(verdict: &Value) -> Value {
    if verdict["code"] == 201 {
        return json!({"code": 201, "object": verdict["object"]});
    }
    // An empty list was recorded where the answer has none.
    let causes = verdict["causes"].as_array().filter(|causes| !causes.is_empty());
    json!({"code": verdict["code"], "reason": verdict["reason"], "message": verdict["message"], "causes": causes})
}

/// Blanks what differs from one answer to the next: new identities and times.
fn without_chance(answer: &mut Value) {
    match answer {
        Value::Object(fields) => {
            for (key, value) in fields {
                let identity = matches!(key.as_str(), "uuid" | "serial")
                    && value.as_str().is_some_and(|text| Uuid::parse_str(text).is_ok());
                if identity || key == "phaseTransitionTimestamp" {
                    *value = json!("set");
                }
                without_chance(value);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(without_chance),
        _ => {}
    }
}
