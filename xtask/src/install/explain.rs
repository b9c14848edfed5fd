//! What tells why the product does not come up: its object, its pods, their events, their logs.

use serde_json::Value;

use super::NAMESPACE;
use crate::cluster::{Cluster, kubectl};

/// How many lines of each log.
const LINES: &str = "--tail=25";

/// Prints it. What cannot be had is left out.
pub fn print(cluster: Cluster<'_>) {
    let show = |title: &str, arguments: &[&str]| {
        if let Ok(text) = kubectl(cluster).args(["-n", NAMESPACE]).args(arguments).output()
            && !text.trim().is_empty()
        {
            eprintln!("--- {title}\n{}", text.trim_end());
        }
    };
    let conditions = "{range .status.conditions[*]}{.type} {.status} {.reason}: {.message}{\"\\n\"}{end}";
    show("the KubeVirt object", &["get", "kv", "kubevirt", "-o", &format!("jsonpath={conditions}")]);
    show("nodes", &["get", "nodes", "-o", "wide"]);
    show("pods", &["get", "pods", "-o", "wide"]);
    let events = ["get", "events", "--sort-by=.lastTimestamp", "--field-selector=type!=Normal"];
    show("events", &events);
    let pods = kubectl(cluster).args(["-n", NAMESPACE, "get", "pods", "-o", "json"]).output().unwrap_or_default();
    let pods: Value = serde_json::from_str(&pods).unwrap_or_default();
    for (pod, container, restarted) in unready(&pods) {
        let title = format!("log of {pod} ({container})");
        show(&title, &["logs", &pod, "-c", &container, LINES]);
        if restarted {
            show(&format!("{title} before it was restarted"), &["logs", &pod, "-c", &container, LINES, "--previous"]);
        }
    }
    eprintln!("---");
}

/// Containers that are not ready: pod, name, and whether there was one before it.
fn unready(pods: &Value) -> Vec<(String, String, bool)> {
    let mut found = Vec::new();
    for pod in pods["items"].as_array().into_iter().flatten() {
        for list in ["initContainerStatuses", "containerStatuses"] {
            for status in pod["status"][list].as_array().into_iter().flatten() {
                if status["ready"] != true {
                    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                    let restarted = status["restartCount"].as_u64().unwrap_or_default() > 0;
                    found.push((text(&pod["metadata"]["name"]), text(&status["name"]), restarted));
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn finds_containers_that_are_not_ready() {
        let status =
            |name: &str, ready: bool, count: u8| json!({ "name": name, "ready": ready, "restartCount": count });
        let pods = json!({ "items": [{ "metadata": { "name": "p" }, "status": {
            "initContainerStatuses": [status("first", true, 0)],
            "containerStatuses": [status("a", false, 2), status("b", true, 0)] } }] });
        assert_eq!(unready(&pods), [("p".to_owned(), "a".to_owned(), true)]);
    }
}
