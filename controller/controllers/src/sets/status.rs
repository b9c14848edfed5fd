//! The status of a set, which both kinds have in the same form.

use holdfast_api::status::time_value;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

/// What is told of a set.
#[derive(Debug)]
pub(super) struct Seen<'a> {
    pub replicas: usize,
    pub ready: usize,
    pub selector: &'a LabelSelector,
    pub paused: bool,
    /// Reason and message of what could not be made or deleted.
    pub failure: Option<(&'static str, String)>,
    pub now: Timestamp,
}

impl Seen<'_> {
    /// The status as it shall be after `before`.
    pub fn status(&self, before: &Value) -> Value {
        let conditions: Vec<Value> = [
            self.paused.then(|| ("ReplicaPaused", "Paused", "Controller got paused".to_owned())),
            self.failure.as_ref().map(|(reason, message)| ("ReplicaFailure", *reason, message.clone())),
        ]
        .into_iter()
        .flatten()
        .map(|(kind, reason, message)| {
            let known = before["conditions"].as_array().into_iter().flatten().find(|known| known["type"] == kind);
            let since = known.map(|known| known["lastTransitionTime"].clone()).filter(Value::is_string);
            json!({"type": kind, "status": "True", "reason": reason, "message": message,
                "lastTransitionTime": since.unwrap_or_else(|| time_value(self.now))})
        })
        .collect();
        let mut status = json!({
            "replicas": self.replicas,
            "readyReplicas": self.ready,
            "labelSelector": text(self.selector),
        });
        if !conditions.is_empty() {
            status["conditions"] = json!(conditions);
        }
        status
    }
}

/// A selector as clients of the scale subresource write it.
fn text(selector: &LabelSelector) -> String {
    let mut parts: Vec<String> =
        selector.match_labels.iter().flatten().map(|(key, value)| format!("{key}={value}")).collect();
    for expression in selector.match_expressions.iter().flatten() {
        let values = expression.values.as_deref().unwrap_or_default().join(",");
        let key = &expression.key;
        parts.push(match expression.operator.as_str() {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.clone(),
        });
    }
    parts.join(",")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_status_keeps_the_time_of_what_goes_on() {
        let selector: LabelSelector = serde_json::from_value(json!({"matchLabels": {"a": "b"},
            "matchExpressions": [{"key": "c", "operator": "In", "values": ["d", "e"]},
                {"key": "f", "operator": "DoesNotExist"}]}))
        .unwrap();
        let seen = |second, paused| Seen {
            replicas: 2,
            ready: 1,
            selector: &selector,
            paused,
            failure: None,
            now: Timestamp::from_second(second).unwrap(),
        };
        let first = seen(5, true).status(&json!({}));
        assert_eq!(first["labelSelector"], "a=b,c in (d,e),!f");
        assert_eq!(first["conditions"][0]["lastTransitionTime"], "1970-01-01T00:00:05Z");
        assert_eq!(seen(9, true).status(&first), first);
        assert_eq!(seen(9, false).status(&first)["conditions"], Value::Null);
    }
}
