//! What service accounts asked the API server for, from its audit log.
//!
//! Some questions to the authorizer are none of a request of their own, and are read off the request that led to them:
//! a patch that makes the object needs the right to create it, and an owner reference that holds up the owner's deletion
//! the right to the owner's finalizers.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{Ask, INSTALLATION};

/// What the log tells.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// What each account of the installation was allowed.
    pub asked: BTreeMap<String, BTreeSet<Ask>>,
    /// What was refused for want of a right, by account, with the words of the refusal. What was allowed at another time
    /// is not among it: virt-operator outlives its own roles when its manifest is deleted.
    pub refused: BTreeMap<(String, Ask), String>,
}

/// Reads the log with all its older parts.
///
/// # Errors
/// Where there is none.
pub fn read(folder: &Path) -> Result<Record> {
    let mut record = Record::default();
    let files = fs::read_dir(folder).with_context(|| format!("the API server keeps no log in {}", folder.display()))?;
    let mut any = false;
    for file in files {
        let path = file?.path();
        let file = File::open(&path).with_context(|| format!("failed to read {}", path.display()))?;
        for line in BufReader::new(file).lines() {
            any = true;
            // The last line is being written.
            if let Ok(event) = serde_json::from_str(&line?) {
                record.add(&event);
            }
        }
    }
    let Record { asked, refused } = &mut record;
    refused.retain(|(account, ask), _| !asked.get(account).is_some_and(|asked| asked.contains(ask)));
    if any { Ok(record) } else { bail!("the log in {} is empty", folder.display()) }
}

impl Record {
    fn add(&mut self, event: &Value) {
        let prefix = format!("system:serviceaccount:{INSTALLATION}:");
        let Some(account) = event["user"]["username"].as_str().and_then(|user| user.strip_prefix(&prefix)) else {
            return;
        };
        let Some(ask) = ask(event) else { return };
        if is_refused(event) {
            let status = &event["responseStatus"];
            let told = status["message"].as_str().unwrap_or_default().to_owned();
            self.refused.insert((account.to_owned(), ask), told);
            return;
        }
        let asked = self.asked.entry(account.to_owned()).or_default();
        asked.extend(implied(event, &ask));
        asked.insert(ask);
    }
}

fn ask(event: &Value) -> Option<Ask> {
    let object = event["objectRef"].as_object()?;
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let resource = match text("subresource") {
        sub if sub.is_empty() => text("resource"),
        sub => format!("{}/{sub}", text("resource")),
    };
    // The authorizer is asked about a creation before it is known what is to be created.
    let verb = event["verb"].as_str()?.to_owned();
    let name = if verb == "create" { String::new() } else { text("name") };
    Some(Ask { verb, group: text("apiGroup"), resource, namespace: text("namespace"), name })
}

/// For want of a right, and not because of what was asked.
fn is_refused(event: &Value) -> bool {
    let message = event["responseStatus"]["message"].as_str().unwrap_or_default();
    event["annotations"]["authorization.k8s.io/decision"] == "forbid"
        || event["responseStatus"]["code"] == 403
            && ["cannot set blockOwnerDeletion", "attempting to grant RBAC"].iter().any(|words| message.contains(words))
}

fn implied(event: &Value, ask: &Ask) -> Vec<Ask> {
    let mut implied = Vec::new();
    if matches!(ask.verb.as_str(), "patch" | "update") && event["responseStatus"]["code"] == 201 {
        implied.push(Ask { verb: "create".to_owned(), ..ask.clone() });
    }
    let owners = event["requestObject"]["metadata"]["ownerReferences"].as_array();
    for owner in owners.into_iter().flatten().filter(|owner| owner["blockOwnerDeletion"] == true) {
        let text = |key: &str| owner[key].as_str().unwrap_or_default().to_owned();
        let group = text("apiVersion").split_once('/').map(|(group, _)| group.to_owned()).unwrap_or_default();
        implied.push(Ask {
            verb: "update".to_owned(),
            group,
            resource: format!("{}s/finalizers", text("kind").to_lowercase()),
            namespace: ask.namespace.clone(),
            name: text("name"),
        });
    }
    implied
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn record(event: Value) -> Record {
        let mut record = Record::default();
        record.add(&event);
        record
    }

    fn event(verb: &str, code: u16) -> Value {
        json!({"verb": verb, "user": {"username": "system:serviceaccount:kubevirt:kubevirt-controller"},
            "objectRef": {"resource": "pods", "subresource": "status", "namespace": "n", "name": "p"},
            "responseStatus": {"code": code}, "annotations": {"authorization.k8s.io/decision": "allow"}})
    }

    #[test]
    fn a_request_is_what_the_authorizer_sees() {
        let asked = record(event("patch", 200)).asked.remove("kubevirt-controller").unwrap();
        let ask = asked.first().unwrap();
        assert_eq!((asked.len(), ask.resource.as_str(), ask.name.as_str()), (1, "pods/status", "p"));
        let asked = record(event("patch", 201)).asked.remove("kubevirt-controller").unwrap();
        assert_eq!(asked.iter().map(|ask| ask.verb.as_str()).collect::<Vec<_>>(), ["create", "patch"]);
        let mut other = event("get", 200);
        other["user"]["username"] = json!("system:serviceaccount:default:x");
        assert!(record(other).asked.is_empty());
    }

    #[test]
    fn an_owner_that_must_wait_is_asked_for() {
        let mut event = event("create", 201);
        event["requestObject"]["metadata"]["ownerReferences"] = json!([
            {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "name": "v", "blockOwnerDeletion": true},
            {"apiVersion": "v1", "kind": "Pod", "name": "p"}]);
        let asked = record(event).asked.remove("kubevirt-controller").unwrap();
        let owner = asked.iter().find(|ask| ask.verb == "update").unwrap();
        assert_eq!((owner.group.as_str(), owner.resource.as_str()), ("kubevirt.io", "virtualmachines/finalizers"));
        assert_eq!(asked.len(), 2);
    }

    #[test]
    fn a_refusal_is_for_want_of_a_right() {
        let mut refused = event("get", 403);
        // An admission plugin, or a namespace that goes.
        assert!(record(refused.clone()).refused.is_empty());
        refused["annotations"]["authorization.k8s.io/decision"] = json!("forbid");
        let record = record(refused);
        assert!(record.refused.len() == 1 && record.asked.is_empty());
    }
}
