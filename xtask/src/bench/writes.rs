//! How often the API server was written to, by its own count.

use std::collections::BTreeMap;

use anyhow::Result;

use super::api::Api;

/// Verbs that write, as the API server counts them.
const WRITES: &[&str] = &["POST", "PUT", "PATCH", "APPLY", "DELETE", "DELETECOLLECTION"];

/// Writes since the API server began: resource and verb -> count.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Writes(BTreeMap<(String, String), f64>);

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
            let (Some(verb), Some(resource)) = (label("verb"), label("resource")) else { continue };
            // What was refused or tried in vain changed nothing, and cost as much.
            if WRITES.contains(&verb) {
                let key = (resource.to_owned(), verb.to_owned());
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

    /// How many there were of objects of a kind, but for those by one verb.
    pub fn of(&self, resource: &str, but: &str) -> f64 {
        let wanted = self.0.iter().filter(|((other, verb), _)| other == resource && verb != but);
        wanted.map(|(_, count)| count).sum()
    }

    /// How many there were of all kinds but these.
    pub fn but(&self, resources: &[&str]) -> f64 {
        self.0.iter().filter(|((other, _), _)| !resources.contains(&other.as_str())).map(|(_, count)| count).sum()
    }

    /// Each kind with its verbs, as `pods: POST 1.0, PATCH 2.0`, the counts divided.
    pub fn list(&self, divisor: f64) -> BTreeMap<String, String> {
        let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for ((resource, verb), count) in &self.0 {
            all.entry(resource.clone()).or_default().push(format!("{verb} {:.1}", count / divisor));
        }
        all.into_iter().map(|(resource, verbs)| (resource, verbs.join(", "))).collect()
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
        assert_eq!((all.of("pods", ""), all.of("pods", "POST"), all.but(&["leases"])), (6.0, 4.0, 6.0));
        let before = Writes::parse("apiserver_request_total{resource=\"pods\",verb=\"PATCH\"} 3\n");
        let since = all.since(&before);
        assert_eq!(since.list(1.0)["pods"], "PATCH 1.0, POST 2.0");
        assert!(all.since(&all).0.is_empty());
    }
}
