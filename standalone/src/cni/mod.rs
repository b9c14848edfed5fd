//! Networks by CNI (specification 1.1.0), as a container runtime runs it: a configuration or a list of them, the
//! plugins of the list executed in order with each other's results, and in reverse when a sandbox leaves.
//!
//! Invariant: what leaving takes is known before joining begins (the caller records an [`crate::sandbox::Attached`]
//! first), and leaving runs also for a network whose joining failed half way.

mod config;
mod exec;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

pub use config::{ConfigError, NetworkList};
pub use exec::CniError;

use crate::sandbox::{Attached, Record};
use exec::{Call, Verb};

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

    /// Joins a network: ADD of each plugin in order. Returns the last one's result.
    pub async fn add(&self, record: &Record, attached: &Attached, netns: &Path) -> Result<Value, CniError> {
        let list = NetworkList::of_recorded(&attached.config)?;
        let mut result = None;
        for plugin in &list.plugins {
            let input = list.input(plugin, &attached.capabilities, result.as_ref());
            result = self.call(Verb::Add, record, attached, netns, plugin, &input).await?;
        }
        result.ok_or_else(|| CniError::NoResult { network: attached.network.clone() })
    }

    /// Leaves a network: DEL of each plugin in reverse, with the cached result. A namespace that is gone is told
    /// to the plugins as none.
    pub async fn del(&self, record: &Record, attached: &Attached, netns: &Path) -> Result<(), CniError> {
        let list = NetworkList::of_recorded(&attached.config)?;
        for plugin in list.plugins.iter().rev() {
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
        let kind = plugin["type"].as_str().unwrap_or_default();
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
            plugin: kind,
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

/// The interface that carries a network of the pod's spec: `eth0` for the pod network and for a default one of
/// Multus, else `pod` and eleven digits of a hash of the network's name, as KubeVirt has it.
pub fn interface_name(network: &str, primary: bool) -> String {
    use sha2::{Digest, Sha256};
    if primary { "eth0".to_owned() } else { format!("pod{}", &hex::encode(Sha256::digest(network))[..11]) }
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
    use super::*;

    #[test]
    fn interfaces_are_named_as_in_pods() {
        assert_eq!(interface_name("default", true), "eth0");
        // As seen upstream for a network of that name.
        assert_eq!(interface_name("blue", false), "pod16477688c0e");
    }
}
