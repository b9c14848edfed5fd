//! How often the API server was written to, by its own count.

use std::collections::BTreeMap;

use anyhow::Result;

use super::api::Api;

/// Verbs that write, as the API server counts them.
const WRITES: &[&str] = &["POST", "PUT", "PATCH", "APPLY", "DELETE", "DELETECOLLECTION"];

/// Writes since the API server began.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Writes(BTreeMap<Key, f64>);

/// What is counted together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    resource: String,
    subresource: String,
    verb: String,
    /// Whether it was done; what was refused cost nearly as much.
    done: bool,
}

impl Writes {
    /// Asks it.
    pub fn take(api: &Api) -> Result<Self> {
        Ok(Self::parse(&api.text("/metrics")?))
    }

    /// The lines `apiserver_request_total{...} COUNT` of what it tells.
    fn parse(metrics: &str) -> Self {
        let mut all = Self::default();
        for line in metrics.lines() {
            let Some((labels, count)) =
                line.strip_prefix("apiserver_request_total{").and_then(|rest| rest.rsplit_once("} "))
            else {
                continue;
            };
            let label = |name: &str| {
                let (_, rest) = labels.split_once(&format!("{name}=\""))?;
                rest.split('"').next()
            };
            let text = |name: &str| label(name).unwrap_or_default().to_owned();
            let done = text("code").starts_with('2');
            let key = Key { resource: text("resource"), subresource: text("subresource"), verb: text("verb"), done };
            if WRITES.contains(&key.verb.as_str()) {
                *all.0.entry(key).or_default() += count.parse().unwrap_or(0.0);
            }
        }
        all
    }

    /// What was written after `before`.
    pub fn since(&self, before: &Self) -> Self {
        let more = self.0.iter().map(|(key, count)| (key.clone(), count - before.0.get(key).unwrap_or(&0.0)));
        Self(more.filter(|(_, count)| *count > 0.0).collect())
    }

    /// How many were done to objects of a kind, but for those by one verb.
    pub fn of(&self, resource: &str, but: &str) -> f64 {
        let wanted = self.0.iter().filter(|(key, _)| key.done && key.resource == resource && key.verb != but);
        wanted.map(|(_, count)| count).sum()
    }

    /// How many there were to objects of all kinds but these.
    pub fn but(&self, resources: &[&str]) -> f64 {
        self.0.iter().filter(|(key, _)| !resources.contains(&key.resource.as_str())).map(|(_, count)| count).sum()
    }

    /// How many there were of each kind and verb, as `pods/status PATCH`, divided.
    pub fn list(&self, divisor: f64) -> BTreeMap<String, f64> {
        let name = |Key { resource, subresource, verb, done }: &Key| {
            let slash = if subresource.is_empty() { "" } else { "/" };
            let refused = if *done { "" } else { " refused" };
            format!("{resource}{slash}{subresource} {verb}{refused}")
        };
        self.0.iter().map(|(key, count)| (name(key), count / divisor)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_writes() {
        let metrics = "# TYPE apiserver_request_total counter\n\
            apiserver_request_total{code=\"200\",resource=\"pods\",subresource=\"status\",verb=\"PATCH\"} 3\n\
            apiserver_request_total{code=\"409\",resource=\"pods\",subresource=\"status\",verb=\"PATCH\"} 1\n\
            apiserver_request_total{code=\"201\",resource=\"pods\",verb=\"POST\"} 2\n\
            apiserver_request_total{code=\"200\",resource=\"pods\",verb=\"LIST\"} 9\n\
            apiserver_request_total{code=\"200\",resource=\"leases\",verb=\"PUT\"} 7\n";
        let all = Writes::parse(metrics);
        assert_eq!((all.of("pods", ""), all.of("pods", "POST"), all.but(&["leases"])), (5.0, 3.0, 6.0));
        let before =
            "apiserver_request_total{code=\"200\",resource=\"pods\",subresource=\"status\",verb=\"PATCH\"} 2\n";
        let since = all.since(&Writes::parse(before));
        let list = since.list(2.0);
        assert_eq!((list["pods/status PATCH refused"], list["pods/status PATCH"], list["pods POST"]), (0.5, 0.5, 1.0));
        assert!(all.since(&all).0.is_empty());
    }
}
