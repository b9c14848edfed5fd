//! Calling a plugin as a runtime does.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::host::Host;

/// Our plugin.
pub const HOLDFAST: &str = env!("CARGO_BIN_EXE_holdfast");

/// One call's parameters.
#[derive(Clone, Debug)]
pub struct Call {
    pub verb: &'static str,
    pub container: String,
    pub netns: String,
    pub ifname: String,
    pub args: String,
    pub config: Value,
    /// Further variables of the environment.
    pub environment: Vec<(&'static str, &'static str)>,
}

/// What a plugin printed: a result (null for none), or its error object.
pub type Answer = Result<Value, Value>;

impl Call {
    pub fn new(container: &str, netns: &Path, config: &Value) -> Self {
        Self {
            verb: "ADD",
            container: container.to_owned(),
            netns: netns.display().to_string(),
            ifname: "net1".to_owned(),
            args: format!(
                "IgnoreUnknown=1;K8S_POD_NAMESPACE=lab;K8S_POD_NAME=pod-{container};K8S_POD_UID=uid-{container}"
            ),
            config: config.clone(),
            environment: Vec::new(),
        }
    }

    pub fn ifname(mut self, name: &str) -> Self {
        self.ifname = name.to_owned();
        self
    }

    /// The same call with another verb.
    pub fn verb(&self, verb: &'static str) -> Self {
        Self { verb, ..self.clone() }
    }

    /// The same call with a key of the configuration set.
    pub fn with(&self, key: &str, value: Value) -> Self {
        let mut call = self.clone();
        call.config[key] = value;
        call
    }

    pub fn run(&self) -> Answer {
        self.exec(Path::new(HOLDFAST))
    }

    /// Runs the plugin at `path`.
    pub fn exec(&self, path: &Path) -> Answer {
        let output = self.spawn(path).wait_with_output().unwrap();
        let printed =
            if output.stdout.is_empty() { Value::Null } else { serde_json::from_slice(&output.stdout).unwrap() };
        if output.status.success() { Ok(printed) } else { Err(printed) }
    }

    /// Starts the plugin at `path`, and gives it its configuration.
    pub fn spawn(&self, path: &Path) -> Child {
        let mut command = Command::new(path);
        command
            .env_clear()
            .envs([("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), ("CNI_PATH", "/usr/lib/cni"), ("CNI_COMMAND", self.verb)])
            .envs([("CNI_CONTAINERID", &self.container), ("CNI_NETNS", &self.netns)])
            .envs([("CNI_IFNAME", &self.ifname), ("CNI_ARGS", &self.args)])
            .envs(self.environment.iter().copied());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(self.config.to_string().as_bytes()).unwrap();
        child
    }
}

/// A configuration of our plugin on `host`.
pub fn config(host: &Host, version: &str, backend: &str) -> Value {
    json!({
        "cniVersion": version,
        "name": "lab",
        "segment": "lab",
        "type": "holdfast",
        "agentSocket": host.socket(),
        "backend": backend,
        "bridge": if backend == "ovs" { "ovs0" } else { "br0" },
        "subnets": [{"cidr": "192.0.2.0/24", "gateway": "192.0.2.1"}],
    })
}

/// The code of an error object; it must have a text, too.
pub fn code(answer: Answer) -> u64 {
    let error = answer.unwrap_err();
    assert!(!error["msg"].as_str().unwrap().is_empty());
    error["code"].as_u64().unwrap()
}
