//! A request, read: versions, names, the pod, the network.

use std::collections::BTreeMap;
use std::path::PathBuf;

use holdfast_agent_api::cni::{Request, SUPPORTED_VERSIONS, Verb, code};
use holdfast_net::model::{AttachmentId, Backend, IfName};
use serde_json::Value;

use super::Fault;
use super::result::{CniResult, Version};
use crate::context::Context;
use crate::registry::{Chained, Key, Registry};
use crate::workloads::{Attach, PodRef};
use holdfast_ipam::network::{NetConf, NetworkConfig};

/// A call of any verb but DEL.
#[derive(Debug)]
pub(super) struct Call {
    pub version: Version,
    pub conf: NetConf,
    pub network: NetworkConfig,
    /// None for verbs that are not about one attachment.
    pub target: Option<Target>,
    /// The call that the attachment is made behind; none where this is its own.
    pub chained: Option<Chained>,
    pub prev_result: Option<CniResult>,
    /// The configuration as given, for keys that one verb alone has.
    pub config: Value,
}

/// One attachment that a call is about.
#[derive(Debug)]
pub(super) struct Target {
    pub key: Key,
    pub id: AttachmentId,
    pub netns: PathBuf,
    pub netns_override: bool,
    pub pod: PodRef,
}

impl Call {
    pub fn read(context: &Context, registry: &Registry, request: Request) -> Result<Self, Fault> {
        let version = version(&request)?;
        let conf = NetConf::parse(&request.config)?;
        let network = network(context, &conf)?;
        let prev_result = conf
            .prev_result
            .clone()
            .map(CniResult::parse)
            .transpose()
            .map_err(|error| Fault::new(code::DECODE, "failed to decode `prevResult`", error))?;
        let target = match request.verb {
            Verb::Gc | Verb::Status => None,
            Verb::Add | Verb::Check | Verb::Del => {
                let key = key(&request)?;
                let ifname = registry.get(&key).map_or_else(
                    || own_ifname(&key.ifname, &conf, prev_result.as_ref()),
                    |entry| entry.record.attachment.id.ifname,
                );
                Some(Target {
                    id: AttachmentId { container_id: key.container_id.clone(), ifname },
                    key,
                    netns: netns(&request.netns),
                    netns_override: request.netns_override,
                    pod: pod(&request.args)?,
                })
            }
        };
        Ok(Self { version, conf, network, target, chained: None, prev_result, config: request.config })
    }

    /// The ADD of a network that a pod joins behind the call of its primary one, `request`.
    pub fn behind(context: &Context, request: &Request, chained: Chained, attach: &Attach) -> Result<Self, Fault> {
        let conf = NetConf::parse(&attach.config)?;
        let key = Key { container_id: request.container_id.clone(), ifname: attach.ifname.clone() };
        let target = Target {
            id: key.attachment_id(),
            key,
            netns: netns(&request.netns),
            netns_override: request.netns_override,
            pod: pod(&request.args)?,
        };
        Ok(Self {
            version: version(request)?,
            network: network(context, &conf)?,
            conf,
            target: Some(target),
            chained: Some(chained),
            prev_result: None,
            config: attach.config.clone(),
        })
    }

    /// The attachment that the call is about.
    pub fn target(&self) -> Result<&Target, Fault> {
        self.target.as_ref().ok_or_else(|| Fault::new(code::INTERNAL, "the call is about no attachment", ""))
    }

    /// For metrics.
    pub fn backend(&self) -> &'static str {
        match self.network.backend {
            Backend::Ovs { .. } => "ovs",
            Backend::LinuxBridge { .. } => "linux-bridge",
            Backend::Macvtap { .. } => "macvtap",
        }
    }
}

/// The network of a configuration, on this node.
fn network(context: &Context, conf: &NetConf) -> Result<NetworkConfig, Fault> {
    let underlay = conf.network.as_ref().and_then(|name| context.networks.borrow().get(name).cloned());
    Ok(conf.resolve(underlay.as_ref(), &context.node_labels.borrow())?)
}

/// CNI_NETNS as a path: runtimes say /var/run, which is /run, and where the agent is a pod only the latter is there.
pub(super) fn netns(text: &str) -> PathBuf {
    match text.strip_prefix("/var/run/") {
        Some(rest) => PathBuf::from(format!("/run/{rest}")),
        None => PathBuf::from(text),
    }
}

/// The key of a request. The plugin has checked it; whoever else is root may ask as well.
pub(super) fn key(request: &Request) -> Result<Key, Fault> {
    let wrong = |name: &str, value: &str| {
        Fault::new(code::ENVIRONMENT, format!("invalid environment variable {name}: `{value}`"), "")
    };
    let ifname = request.ifname.parse().map_err(|_| wrong("CNI_IFNAME", &request.ifname))?;
    let id = &request.container_id;
    let valid = id.starts_with(|c: char| c.is_ascii_alphanumeric())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if !valid {
        return Err(wrong("CNI_CONTAINERID", id));
    }
    Ok(Key { container_id: id.clone(), ifname })
}

pub(super) fn version(request: &Request) -> Result<Version, Fault> {
    // The specification's default for a configuration that tells none.
    let told = request.config.get("cniVersion").and_then(Value::as_str).unwrap_or("0.1.0");
    let incompatible = |why: &str| {
        let msg = format!("incompatible CNI version: the configuration is of `{told}`");
        Fault::new(code::VERSION, msg, why)
    };
    let version =
        Version::parse(told).ok_or_else(|| incompatible(&format!("supported: {}", SUPPORTED_VERSIONS.join(", "))))?;
    match request.verb {
        Verb::Check if version < Version::V040 => Err(incompatible("CHECK came with 0.4.0")),
        Verb::Gc | Verb::Status if version < Version::V110 => Err(incompatible("GC and STATUS came with 1.1.0")),
        _ => Ok(version),
    }
}

/// CNI_IFNAME, unless an earlier plugin of the list has made an interface of that name.
fn own_ifname(ifname: &IfName, conf: &NetConf, prev: Option<&CniResult>) -> IfName {
    let primary = |prev: &CniResult| {
        prev.interfaces.iter().any(|interface| interface.name == ifname.as_str() && !interface.sandbox.is_empty())
    };
    if prev.is_some_and(primary) { conf.chained_interface.clone() } else { ifname.clone() }
}

/// The pod that CNI_ARGS names: `K=V;K=V`.
pub(super) fn pod(args: &str) -> Result<PodRef, Fault> {
    let wrong = |why: String| Fault::new(code::ENVIRONMENT, "invalid environment variable CNI_ARGS", why);
    let mut pairs = BTreeMap::new();
    for pair in args.split(';').filter(|pair| !pair.is_empty()) {
        let (key, value) =
            pair.split_once('=').ok_or_else(|| wrong(format!("`{pair}` is not of the form KEY=VALUE")))?;
        pairs.insert(key, value);
    }
    let mut take = |key: &str| pairs.remove(key).unwrap_or_default().to_owned();
    let pod = PodRef { namespace: take("K8S_POD_NAMESPACE"), name: take("K8S_POD_NAME"), uid: take("K8S_POD_UID") };
    take("K8S_POD_INFRA_CONTAINER_ID");
    let ignore = matches!(take("IgnoreUnknown").to_ascii_lowercase().as_str(), "1" | "true" | "t");
    match pairs.keys().next() {
        Some(key) if !ignore => Err(wrong(format!("`{key}` is not known, and IgnoreUnknown is not set"))),
        _ => Ok(pod),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pod_stands_in_the_arguments() {
        let args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=p;K8S_POD_INFRA_CONTAINER_ID=c;K8S_POD_UID=u;X=1";
        assert_eq!(pod(args).unwrap(), PodRef { namespace: "ns".into(), name: "p".into(), uid: "u".into() });
        assert_eq!(pod("").unwrap(), PodRef::default());
        assert!(pod("X=1").unwrap_err().0.details.contains("`X`"));
        assert!(pod("X").unwrap_err().0.details.contains("KEY=VALUE"));
    }

    #[test]
    fn a_verb_needs_the_version_that_brought_it() {
        let request = |verb, version: &str| Request {
            version: 1,
            verb,
            container_id: "c".into(),
            netns: String::new(),
            ifname: "eth0".into(),
            args: String::new(),
            netns_override: false,
            config: serde_json::json!({"cniVersion": version}),
        };
        assert_eq!(version(&request(Verb::Add, "0.3.1")).unwrap(), Version::V031);
        for (verb, told) in [(Verb::Check, "0.3.1"), (Verb::Gc, "1.0.0"), (Verb::Status, "1.0.0"), (Verb::Add, "0.2.0")]
        {
            assert_eq!(version(&request(verb, told)).unwrap_err().0.code, code::VERSION, "{verb:?} {told}");
        }
    }
}
