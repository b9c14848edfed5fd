//! Networks by CNI (specification 1.1.0), as a container runtime runs it: a configuration or a list of them, the
//! plugins of the list executed in order with each other's results, and in reverse when a sandbox leaves.
//!
//! Invariant: what leaving takes is recorded before a plugin's ADD begins, with how many of the list have begun; so
//! leaving runs also for a network whose joining failed half way, and needs no plugin that was never executed.

mod exec;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

pub use exec::CniError;
pub use holdfast_ipam::network::{ConfigError, NetworkList};

use crate::sandbox::{Attached, Record};
use exec::{Call, Verb, find};

/// Executes plugins.
#[derive(Clone, Debug)]
pub struct Runtime {
    /// Folders with plugins, first match first.
    paths: Vec<PathBuf>,
}

impl Runtime {
    /// A runtime that looks for plugins in these folders.
    pub fn new(paths: Vec<PathBuf>) -> Self {
        Self { paths }
    }

    /// Whether every plugin of a list is there; the error names the first that is not.
    pub fn check(&self, list: &NetworkList) -> Result<(), CniError> {
        list.plugins.iter().try_for_each(|plugin| find(kind(plugin), &self.paths).map(drop))
    }

    /// Joins a network: ADD of each plugin in order. What has begun, and at last the result, is written to the
    /// record in `folder`; nothing is where a plugin is missing.
    pub async fn add(
        &self,
        record: &mut Record,
        mut attached: Attached,
        folder: &Path,
        netns: &Path,
    ) -> Result<(), CniError> {
        let list = NetworkList::of_recorded(&attached.config)?;
        self.check(&list)?;
        let place = record.attached.len();
        attached.begun = 0;
        record.attached.push(attached.clone());
        let mut result = None;
        for (index, plugin) in list.plugins.iter().enumerate() {
            record.attached[place].begun = index + 1;
            record.write(folder)?;
            let input = list.input(plugin, &attached.capabilities, result.as_ref());
            match self.call(Verb::Add, record, &attached, netns, plugin, &input).await {
                Ok(printed) => result = printed,
                Err(error) => {
                    if matches!(error, CniError::Missing { .. } | CniError::Execute { .. }) {
                        record.attached[place].begun = index;
                        record.write(folder)?;
                    }
                    return Err(error);
                }
            }
        }
        if result.is_none() {
            return Err(CniError::NoResult { network: attached.network });
        }
        record.attached[place].result = result;
        Ok(record.write(folder)?)
    }

    /// Leaves a network: DEL of each plugin whose ADD has begun, in reverse, with the cached result. A namespace that
    /// is gone is told to the plugins as none.
    pub async fn del(&self, record: &Record, attached: &Attached, netns: &Path) -> Result<(), CniError> {
        let list = NetworkList::of_recorded(&attached.config)?;
        for plugin in list.plugins.iter().take(attached.begun).rev() {
            // Results reach DEL from 0.4.0 on (specification, "Deriving runtimeConfig").
            let result = attached.result.as_ref().filter(|_| list.cni_version != "0.3.1");
            let input = list.input(plugin, &attached.capabilities, result);
            self.call(Verb::Del, record, attached, netns, plugin, &input).await?;
        }
        Ok(())
    }

    async fn call(
        &self,
        verb: Verb,
        record: &Record,
        attached: &Attached,
        netns: &Path,
        plugin: &Value,
        input: &Value,
    ) -> Result<Option<Value>, CniError> {
        let arguments = [
            ("IgnoreUnknown", "1"),
            ("K8S_POD_NAMESPACE", &record.namespace),
            ("K8S_POD_NAME", &record.pod_name),
            ("K8S_POD_INFRA_CONTAINER_ID", &record.id),
            ("K8S_POD_UID", &record.pod_uid),
        ];
        let arguments: Vec<String> = arguments.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let gone = verb == Verb::Del && !crate::sandbox::is_netns(netns);
        Call {
            verb,
            plugin: kind(plugin),
            paths: &self.paths,
            container: &record.id,
            netns: if gone { Path::new("") } else { netns },
            ifname: &attached.ifname,
            arguments: arguments.join(";"),
        }
        .run(input)
        .await
    }
}

/// Name of a plugin's program.
fn kind(plugin: &Value) -> &str {
    plugin["type"].as_str().unwrap_or_default()
}

/// The pod network that is used where no other is given: our own plugin on a bridge of its own, NAT to the outside.
pub fn default_pod_network(subnet: ipnetwork::Ipv4Network, agent_socket: &Path) -> Value {
    json!({
        "cniVersion": "1.1.0",
        "name": "holdfast-pod",
        "plugins": [{
            "type": "holdfast",
            "agentSocket": agent_socket,
            "backend": "linux-bridge",
            "bridge": "hf-pod0",
            "bridgeGateway": { "masquerade": true },
            "defaultRoute": true,
            "subnets": [{ "cidr": subnet, "gateway": subnet.nth(1) }],
        }],
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A folder of plugins that write what they do to `log` in it, and a sandbox's folder.
    struct Case {
        plugins: tempfile::TempDir,
        sandbox: tempfile::TempDir,
        record: Record,
    }

    impl Case {
        fn new() -> Self {
            let (plugins, sandbox) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            Self { plugins, sandbox, record: Record::new("default", "a", "uid") }
        }

        /// A plugin that succeeds, or fails its ADD.
        fn install_script(&self, name: &str, fails: bool) {
            let log = self.plugins.path().join("log");
            let end = if fails { "[ $CNI_COMMAND = DEL ]" } else { "echo '{}'" };
            let script = format!("#!/bin/sh\ncat >/dev/null\necho $CNI_COMMAND {name} >>{}\n{end}\n", log.display());
            exec::install(self.plugins.path(), name, &script);
        }

        fn runtime(&self) -> Runtime {
            Runtime::new(vec![self.plugins.path().to_owned()])
        }

        async fn add(&mut self) -> Result<(), CniError> {
            let attached = Attached {
                network: "lan".into(),
                ifname: "pod1".into(),
                config: json!({"name": "lan", "plugins": [{"type": "one"}, {"type": "two"}]}),
                capabilities: Value::Null,
                begun: 0,
                result: None,
            };
            self.runtime().add(&mut self.record, attached, self.sandbox.path(), Path::new("/none")).await
        }

        /// Leaves as what is read back from the record says.
        async fn del(&self) -> Result<(), CniError> {
            let record = Record::read(self.sandbox.path()).unwrap().unwrap();
            self.runtime().del(&record, &record.attached[0], Path::new("/none")).await
        }

        fn log(&self) -> Vec<String> {
            let text = fs::read_to_string(self.plugins.path().join("log")).unwrap_or_default();
            text.lines().map(str::to_owned).collect()
        }
    }

    #[tokio::test]
    async fn a_missing_plugin_is_noticed_before_anything_is_recorded_or_run() {
        let mut case = Case::new();
        case.install_script("one", false);
        let error = case.add().await.unwrap_err();
        assert!(matches!(&error, CniError::Missing { plugin, .. } if plugin == "two"), "{error}");
        assert!(case.record.attached.is_empty() && case.log().is_empty());
        assert_eq!(Record::read(case.sandbox.path()).unwrap(), None);
    }

    #[tokio::test]
    async fn leaving_needs_only_plugins_that_were_begun() {
        let mut case = Case::new();
        case.install_script("one", true);
        case.install_script("two", false);
        case.add().await.unwrap_err();
        fs::remove_file(case.plugins.path().join("two")).unwrap();
        case.del().await.unwrap();
        assert_eq!(case.log(), ["ADD one", "DEL one"]);
    }

    #[tokio::test]
    async fn a_plugin_that_cannot_be_executed_was_not_begun() {
        let mut case = Case::new();
        case.install_script("one", false);
        exec::install(case.plugins.path(), "two", "#!/nowhere/interpreter\n");
        let error = case.add().await.unwrap_err();
        assert!(matches!(error, CniError::Execute { .. }), "{error}");
        case.del().await.unwrap();
        assert_eq!(case.log(), ["ADD one", "DEL one"]);
    }

    #[tokio::test]
    async fn leaving_waits_for_a_plugin_that_was_removed_after_its_add() {
        let mut case = Case::new();
        case.install_script("one", false);
        case.install_script("two", false);
        case.add().await.unwrap();
        assert!(case.record.attached[0].result.is_some());
        fs::remove_file(case.plugins.path().join("one")).unwrap();
        let error = case.del().await.unwrap_err();
        assert!(matches!(&error, CniError::Missing { plugin, .. } if plugin == "one"), "{error}");
        case.install_script("one", false);
        case.del().await.unwrap();
        assert_eq!(case.log(), ["ADD one", "ADD two", "DEL two", "DEL two", "DEL one"]);
    }
}
