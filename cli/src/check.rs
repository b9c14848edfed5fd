//! `check`: whether the nodes of a cluster can run VMs, and what they lack, as virt-handler found out.

use std::process::ExitCode;

use anyhow::{Result, anyhow};
use serde_json::{Value, json};

use crate::args::{Check, Document};
use crate::client::Client;
use crate::out::print;
use crate::table::{layout, one_line};

/// The condition that virt-handler writes on its node.
const CONDITION: &str = "HoldfastReady";

/// Shows what is known of the nodes; a failure where one of them cannot run VMs.
pub async fn check(client: &Client, arguments: &Check) -> Result<ExitCode> {
    let failed = |error: crate::client::CallError| anyhow!(error.kubectl_text());
    let mut nodes = Vec::new();
    if arguments.nodes.is_empty() {
        let mut list = client.get("/api/v1/nodes").await.map_err(failed)?;
        if let Value::Array(items) = list["items"].take() {
            nodes = items;
        }
    }
    for name in &arguments.nodes {
        nodes.push(client.get(&format!("/api/v1/nodes/{name}")).await.map_err(failed)?);
    }
    let found: Vec<Value> = nodes.iter().map(finding).collect();
    match arguments.output {
        Some(Document::Json) => print(&format!("{}\n", serde_json::to_string_pretty(&found)?))?,
        Some(Document::Yaml) => print(&serde_norway::to_string(&found)?)?,
        None => print(&layout(&rows(&found), 3, 6))?,
    }
    let all_ready = found.iter().all(|node| node["ready"] == true);
    Ok(if all_ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// `{node, ready, findings}`. The condition's message has a line for each finding.
fn finding(node: &Value) -> Value {
    let conditions = node["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let condition = conditions.iter().find(|condition| condition["type"] == CONDITION);
    let message = condition.map(|condition| condition["message"].as_str().unwrap_or_default());
    let findings: Vec<&str> = match message {
        Some(message) => message.lines().collect(),
        None => vec!["no virt-handler has looked at this node yet: see `kubectl -n kubevirt get pods -o wide`"],
    };
    json!({
        "node": node["metadata"]["name"],
        "ready": condition.is_some_and(|condition| condition["status"] == "True"),
        "findings": findings,
    })
}

fn rows(found: &[Value]) -> Vec<Vec<String>> {
    let mut rows = vec![["NODE", "READY", "FINDINGS"].map(str::to_owned).to_vec()];
    for node in found {
        let mut name = node["node"].as_str().unwrap_or_default().to_owned();
        let mut ready = if node["ready"] == true { "True" } else { "False" }.to_owned();
        for finding in node["findings"].as_array().into_iter().flatten() {
            let finding = one_line(finding.as_str().unwrap_or_default());
            rows.push(vec![std::mem::take(&mut name), std::mem::take(&mut ready), finding]);
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_finding_has_its_line() {
        let told = |status: &str, message: &str| json!({"type": CONDITION, "status": status, "message": message});
        let node =
            |name: &str, conditions: Value| json!({"metadata": {"name": name}, "status": {"conditions": conditions}});
        let found = [
            finding(&node("a", json!([told("True", "guests run on KVM; and fast\nOpen vSwitch is there")]))),
            finding(&node("b", json!([{"type": "Ready", "status": "True"}]))),
        ];
        assert_eq!((&found[0]["ready"], &found[1]["ready"]), (&json!(true), &json!(false)));
        let text = layout(&rows(&found), 3, 6);
        assert!(
            text.starts_with(
                "NODE   READY   FINDINGS\na      True    guests run on KVM; and fast\n               Open vSwitch is there\nb      \
                 False   no virt-handler"
            ),
            "{text}"
        );
    }
}
