//! Subresources: requests, each in a named state of one VM.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use hyper::Method;
use serde_json::{Value, json};

use super::{Difference, Outcome, lines};
use crate::api::{Answer, Api, conditions};

const NAMESPACE: &str = "/apis/kubevirt.io/v1/namespaces/default";
const DEADLINE: Duration = Duration::from_secs(120);

/// Replays a file of requests.
///
/// # Errors
/// Where the cluster does not answer, or the VM does not come into a state.
pub async fn subresources(api: &Api, path: &Path) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut stage = Stage { api, state: None };
    for line in lines(path)? {
        let field = |name: &str| line[name].as_str().unwrap_or_default();
        let state = field("state").trim_start_matches("missing-vmi:");
        stage.bring(State::named(state)?).await?;
        let method = Method::from_bytes(field("method").as_bytes())?;
        let answer = api.call(method.clone(), field("path"), &line["body"]).await?;
        // What changes nothing leaves the state as it was.
        if method != Method::GET && answer.code < 300 {
            stage.state = None;
        }
        outcome.compared += 1;
        let (seen, ours) = (json!({"code": line["code"], "body": observed(&line)}), shape(&line, &answer));
        if seen != ours {
            let what = format!("{} ({})", field("step"), if state.is_empty() { field("path") } else { state });
            outcome.differences.push(Difference::new(what, &seen, &ours));
        }
    }
    stage.bring(State::Absent).await?;
    Ok(outcome)
}

/// What of a recorded answer is compared. Objects and other programs' texts are compared by their code alone.
fn observed(line: &Value) -> Value {
    match &line["response"] {
        Value::Object(fields) if fields.get("kind").is_some_and(|kind| kind == "Status") => line["response"].clone(),
        Value::Object(_) => json!("an object"),
        Value::String(text) if text.starts_with("Bad Request\n") || text == "ok" => json!("not compared"),
        other => other.clone(),
    }
}

fn shape(line: &Value, answer: &Answer) -> Value {
    let body = match observed(line) {
        Value::String(text) if text == "not compared" => json!("not compared"),
        Value::String(text) if text == "an object" && answer.body.is_object() && answer.body["kind"] != "Status" => {
            json!("an object")
        }
        // Its signature, as text that is not UTF-8.
        _ if answer.body.as_str().is_some_and(|text| text.starts_with("\u{fffd}PNG\r\n")) => json!("PNG image"),
        _ => answer.body.clone(),
    };
    json!({"code": answer.code, "body": body})
}

/// States of the VM `w1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Absent,
    Halted,
    Running(&'static str),
    Paused,
    StoppedManual,
}

impl State {
    fn named(name: &str) -> Result<Self> {
        Ok(match name {
            // What is asked for is not w1 then, or no VM at all.
            "halted" | "no such vm" | "no such vmi" | "" => Self::Halted,
            "running" | "running always" => Self::Running("Always"),
            "paused" => Self::Paused,
            "running manual" => Self::Running("Manual"),
            "running rerun" => Self::Running("RerunOnFailure"),
            "stopped manual" => Self::StoppedManual,
            other => bail!("the state `{other}` is not known to the replay"),
        })
    }
}

struct Stage<'a> {
    api: &'a Api,
    /// The state that the VM is in; none where a request may have changed it.
    state: Option<State>,
}

impl Stage<'_> {
    async fn bring(&mut self, state: State) -> Result<()> {
        if self.state == Some(state) {
            return Ok(());
        }
        self.api.delete(&format!("{NAMESPACE}/virtualmachines/w1")).await?;
        match state {
            State::Absent => {}
            State::Halted => self.create("Halted").await?,
            State::StoppedManual => self.create("Manual").await?,
            State::Running(strategy) => self.run(strategy).await?,
            State::Paused => {
                self.run("Always").await?;
                self.verb("virtualmachineinstances", "pause").await?;
                self.instance("is paused", |vmi| conditions(vmi).contains_key("Paused")).await?;
            }
        }
        self.state = Some(state);
        Ok(())
    }

    async fn run(&self, strategy: &str) -> Result<()> {
        self.create(strategy).await?;
        if strategy == "Manual" {
            self.verb("virtualmachines", "start").await?;
        }
        self.instance("runs", |vmi| conditions(vmi).get("Ready").is_some_and(|ready| ready["status"] == "True")).await
    }

    async fn create(&self, strategy: &str) -> Result<()> {
        let vm = vm("w1", strategy);
        self.api.call(Method::POST, &format!("{NAMESPACE}/virtualmachines"), &vm).await?.ok()?;
        let path = format!("{NAMESPACE}/virtualmachines/w1");
        let seen = self.api.until("the VM is looked after", DEADLINE, async || {
            Ok(self.api.get(&path).await?.filter(|vm| vm["status"]["printableStatus"].is_string()))
        });
        seen.await.map(drop)
    }

    async fn verb(&self, plural: &str, verb: &str) -> Result<()> {
        let path = format!("/apis/subresources.kubevirt.io/v1/namespaces/default/{plural}/w1/{verb}");
        self.api.call(Method::PUT, &path, &json!({})).await?.ok().map(drop)
    }

    async fn instance(&self, what: &str, is: impl Fn(&Value) -> bool) -> Result<()> {
        let path = format!("{NAMESPACE}/virtualmachineinstances/w1");
        let what = format!("the VMI {what}");
        let look = async || Ok(self.api.get(&path).await?.filter(|vmi| is(vmi)));
        self.api.until(&what, DEADLINE, look).await.map(drop)
    }
}

/// A VM without a guest: a disk that is empty, and a NIC on the pod network.
pub(super) fn vm(name: &str, strategy: &str) -> Value {
    json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": {"name": name},
        "spec": {"runStrategy": strategy, "template": {"metadata": {"labels": {"app": "case"}}, "spec": {
            "domain": {
                "devices": {"disks": [{"disk": {"bus": "virtio"}, "name": "root"}],
                    "interfaces": [{"masquerade": {}, "name": "default"}]},
                "memory": {"guest": "96Mi"}},
            "networks": [{"name": "default", "pod": {}}],
            "terminationGracePeriodSeconds": 0,
            "volumes": [{"emptyDisk": {"capacity": "10Mi"}, "name": "root"}]}}},
    })
}
