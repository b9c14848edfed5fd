//! Label selectors.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use thiserror::Error;

/// A selector that means nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("\"{operator}\" is not a valid label selector operator for key \"{key}\" with {values} values")]
pub struct SelectorError {
    key: String,
    operator: String,
    values: usize,
}

/// A label selector whose requirements all mean something.
#[derive(Debug, Clone, Copy)]
pub struct Selector<'a>(&'a LabelSelector);

impl<'a> Selector<'a> {
    /// The selector, if all of its requirements mean something.
    pub fn of(selector: &'a LabelSelector) -> Result<Self, SelectorError> {
        for requirement in selector.match_expressions.iter().flatten() {
            let values = requirement.values.as_ref().map_or(0, Vec::len);
            let sensible = match requirement.operator.as_str() {
                "In" | "NotIn" => values > 0,
                "Exists" | "DoesNotExist" => values == 0,
                _ => false,
            };
            if !sensible {
                let LabelSelectorRequirement { key, operator, .. } = requirement;
                return Err(SelectorError { key: key.clone(), operator: operator.clone(), values });
            }
        }
        Ok(Self(selector))
    }

    /// Whether it selects what has these labels. An empty selector selects everything.
    pub fn matches(self, labels: &BTreeMap<String, String>) -> bool {
        let equal = self.0.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
        equal && self.0.match_expressions.iter().flatten().all(|requirement| satisfied(requirement, labels))
    }
}

impl std::fmt::Display for Selector<'_> {
    /// The form that the scale subresource and the API's query parameter have.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let labels = self.0.match_labels.iter().flatten().map(|(key, value)| format!("{key}={value}"));
        let expressions = self.0.match_expressions.iter().flatten().map(|requirement| {
            let key = &requirement.key;
            let values = requirement.values.as_deref().unwrap_or_default().join(",");
            match requirement.operator.as_str() {
                "In" => format!("{key} in ({values})"),
                "NotIn" => format!("{key} notin ({values})"),
                "Exists" => key.clone(),
                _ => format!("!{key}"),
            }
        });
        f.write_str(&labels.chain(expressions).collect::<Vec<_>>().join(","))
    }
}

fn satisfied(requirement: &LabelSelectorRequirement, labels: &BTreeMap<String, String>) -> bool {
    let value = labels.get(&requirement.key);
    let listed = value.is_some_and(|value| requirement.values.iter().flatten().any(|listed| listed == value));
    match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        _ => value.is_none(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn matches(selector: serde_json::Value, labels: &[(&str, &str)]) -> Result<bool, SelectorError> {
        let selector = serde_json::from_value(selector).unwrap();
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Selector::of(&selector).map(|selector| selector.matches(&labels))
    }

    #[test]
    fn labels_and_expressions_must_all_hold() {
        let selector = json!({"matchLabels": {"a": "b"}, "matchExpressions": [
            {"key": "c", "operator": "In", "values": ["d", "e"]}, {"key": "f", "operator": "DoesNotExist"}]});
        assert_eq!(matches(selector.clone(), &[("a", "b"), ("c", "e")]), Ok(true));
        assert_eq!(matches(selector.clone(), &[("a", "b"), ("c", "e"), ("f", "")]), Ok(false));
        assert_eq!(matches(selector.clone(), &[("a", "b")]), Ok(false));
        assert_eq!(matches(selector, &[("c", "d")]), Ok(false));
        assert_eq!(matches(json!({}), &[]), Ok(true));
        assert_eq!(
            matches(json!({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["b"]}]}), &[]),
            Ok(true)
        );
    }

    #[test]
    fn expressions_that_mean_nothing_are_refused() {
        for (operator, values) in [("In", json!([])), ("Exists", json!(["a"])), ("Like", json!(["a"]))] {
            let selector = json!({"matchExpressions": [{"key": "a", "operator": operator, "values": values}]});
            assert!(matches(selector, &[]).is_err(), "{operator}");
        }
    }

    #[test]
    fn text_is_as_the_api_has_it() {
        let selector = serde_json::from_value(json!({"matchLabels": {"a": "b"}, "matchExpressions": [
            {"key": "c", "operator": "NotIn", "values": ["d", "e"]}, {"key": "f", "operator": "Exists"}]}));
        assert_eq!(Selector::of(&selector.unwrap()).unwrap().to_string(), "a=b,c notin (d,e),f");
    }
}
