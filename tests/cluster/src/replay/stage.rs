//! One VM, brought into the named state in which something was asked.

use std::time::Duration;

use anyhow::{Result, bail};
use hyper::Method;
use serde_json::{Value, json};

use crate::api::{Api, conditions};

const NAMESPACE: &str = "/apis/kubevirt.io/v1/namespaces/default";
const DEADLINE: Duration = Duration::from_secs(120);
/// For how long a guest that does not hear is asked to end, where a restart shall still be under way.
const GRACE_SECONDS: u32 = 10;

/// States of the VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Absent,
    Halted,
    Running(&'static str),
    Paused,
    StoppedManual,
    Restarting,
}

impl State {
    /// By the names that the records use.
    pub fn named(name: &str) -> Result<Self> {
        Ok(match name {
            // What is asked for is another VM then, or none at all.
            "halted" | "no such vm" | "no such vmi" | "" => Self::Halted,
            "running" | "running always" => Self::Running("Always"),
            "paused" | "running paused" => Self::Paused,
            "running manual" => Self::Running("Manual"),
            "running rerun" => Self::Running("RerunOnFailure"),
            "stopped manual" => Self::StoppedManual,
            other => bail!("the state `{other}` is not known to the replay"),
        })
    }
}

/// The VM.
pub(super) struct Stage<'a> {
    api: &'a Api,
    name: &'static str,
    /// The state that the VM is in; none where a request may have changed it.
    state: Option<State>,
}

impl<'a> Stage<'a> {
    /// One of this name, of which nothing is known yet.
    pub fn new(api: &'a Api, name: &'static str) -> Self {
        Self { api, name, state: None }
    }

    /// Takes it that the VM may be in any state.
    pub fn forget(&mut self) {
        self.state = None;
    }

    /// Brings the VM into a state: a new VM, unless it is known to be in it.
    pub async fn bring(&mut self, state: State) -> Result<()> {
        if self.state == Some(state) {
            return Ok(());
        }
        self.api.delete(&self.path("virtualmachines")).await?;
        match state {
            State::Absent => {}
            State::Halted => self.create("Halted", 0).await?,
            State::StoppedManual => self.create("Manual", 0).await?,
            State::Running(strategy) => self.run(strategy, 0).await?,
            State::Paused => {
                self.run("Always", 0).await?;
                self.verb("virtualmachineinstances", "pause").await?;
                self.instance("is paused", |vmi| conditions(vmi).contains_key("Paused")).await?;
            }
            State::Restarting => {
                self.run("Always", GRACE_SECONDS).await?;
                self.verb("virtualmachines", "restart").await?;
            }
        }
        self.state = Some(state);
        Ok(())
    }

    async fn run(&self, strategy: &str, grace: u32) -> Result<()> {
        self.create(strategy, grace).await?;
        if strategy == "Manual" {
            self.verb("virtualmachines", "start").await?;
        }
        self.instance("runs", |vmi| conditions(vmi).get("Ready").is_some_and(|ready| ready["status"] == "True")).await
    }

    async fn create(&self, strategy: &str, grace: u32) -> Result<()> {
        let mut vm = vm(self.name, strategy);
        vm["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = json!(grace);
        self.api.call(Method::POST, &format!("{NAMESPACE}/virtualmachines"), &vm).await?.ok()?;
        let path = self.path("virtualmachines");
        let seen = self.api.until("the VM is looked after", DEADLINE, async || {
            Ok(self.api.get(&path).await?.filter(|vm| vm["status"]["printableStatus"].is_string()))
        });
        seen.await.map(drop)
    }

    async fn verb(&self, plural: &str, verb: &str) -> Result<()> {
        let name = self.name;
        let path = format!("/apis/subresources.kubevirt.io/v1/namespaces/default/{plural}/{name}/{verb}");
        self.api.call(Method::PUT, &path, &json!({})).await?.ok().map(drop)
    }

    async fn instance(&self, what: &str, is: impl Fn(&Value) -> bool) -> Result<()> {
        let path = self.path("virtualmachineinstances");
        let what = format!("the VMI {what}");
        let look = async || Ok(self.api.get(&path).await?.filter(|vmi| is(vmi)));
        self.api.until(&what, DEADLINE, look).await.map(drop)
    }

    fn path(&self, plural: &str) -> String {
        format!("{NAMESPACE}/{plural}/{}", self.name)
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
