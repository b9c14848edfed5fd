//! The networks of a VMI's NICs, found among the host's objects, and the addresses that the NICs hold there.

use holdfast_api::kubevirt::VirtualMachineInstance;
use holdfast_api::nad::NetworkAttachmentDefinition;
use holdfast_api::underlay::{UnderlayNetwork, conflict};
use holdfast_ipam::network::NetConf;
use holdfast_ipam::nic::{Nic, NicError, Wanted, claim, wanted};
use serde_json::{Value, json};

use super::SetupError;
use crate::cni::NetworkList;
use crate::host::{Host, chain};
use crate::manifests::FileErrors;
use crate::store::{Key, Kind};

/// A NIC with the network that it is to join.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The NIC.
    pub nic: Nic,
    /// Configuration of its network.
    pub list: NetworkList,
    /// What the network is asked for, by capability.
    pub capabilities: Value,
}

/// Plans the NICs of a VMI in the order of its interfaces, and takes their leases. A lease that was taken stays
/// taken when a later one fails: it is the VM's, and the next attempt finds it.
pub async fn plan(host: &Host, vmi: &VirtualMachineInstance) -> Result<Vec<Planned>, SetupError> {
    let mut planned = Vec::new();
    for nic in wanted(vmi)? {
        planned.push(one(host, vmi, &nic).await?);
    }
    Ok(planned)
}

/// Plans one NIC, and takes its lease.
pub async fn one(host: &Host, vmi: &VirtualMachineInstance, wanted: &Wanted) -> Result<Planned, SetupError> {
    // The pod network is any network to us: with one of ours, a VM's addresses on it stay as well.
    let (list, source, capabilities) = match wanted.definition() {
        Some((namespace, name)) => {
            let (list, source) = definition(host, namespace, name)?;
            (list, source, wanted.capabilities())
        }
        None => (host.pod_network.clone(), "the pod network".to_owned(), json!({})),
    };
    host.cni.check(&list).map_err(|error| NicError::network(format!("{source}: {}", chain(&error))))?;
    let Some(config) = list.ours() else {
        return Ok(Planned { nic: wanted.foreign(&list, &source)?, list, capabilities });
    };
    let underlay = match config["network"].as_str() {
        Some(name) => match host.store.read::<UnderlayNetwork>("", name) {
            None => {
                refused(&host.file_errors, &Key::new(Kind::UnderlayNetwork, "", name))?;
                None
            }
            found => found,
        },
        None => None,
    };
    let others = host.store.keys(Kind::UnderlayNetwork);
    let others: Vec<UnderlayNetwork> = others.iter().filter_map(|key| host.store.read("", &key.name)).collect();
    if let Some(network) = &underlay
        && let Some(cause) = conflict(network, &others)
    {
        let (name, field) = (network.metadata.name.as_deref(), cause.field.as_deref());
        return Err(NicError::network(format!(
            "UnderlayNetwork `{}`: {}: {}",
            name.unwrap_or_default(),
            field.unwrap_or_default(),
            cause.message.unwrap_or_default()
        ))
        .into());
    }
    let invalid = |error| NicError::network(format!("{source}: {error}"));
    let config = NetConf::parse(&config).map_err(invalid)?;
    let network = config.resolve(underlay.as_ref(), &host.node_labels).map_err(invalid)?;
    let addressing = config.beside(network.addressing, &others).map_err(invalid)?;
    let claim = claim(vmi, &wanted.network.name);
    let nic = wanted.lease(&*host.leases, &addressing, claim).await?;
    Ok(Planned { nic, list, capabilities })
}

/// A NetworkAttachmentDefinition as a list of plugins, and what to call it in messages.
fn definition(host: &Host, namespace: &str, name: &str) -> Result<(NetworkList, String), SetupError> {
    let source = format!("NetworkAttachmentDefinition `{namespace}/{name}`");
    let Some(nad) = host.store.read::<NetworkAttachmentDefinition>(namespace, name) else {
        refused(&host.file_errors, &Key::new(Kind::NetworkAttachmentDefinition, namespace, name))?;
        return Err(NicError::network(format!("{source} does not exist: put it into the manifests folder")).into());
    };
    let list = NetworkList::parse(&nad.spec.config, name)
        .map_err(|error| NicError::network(format!("{source}: {}", chain(&error))))?;
    Ok((list.with_agent_socket(&host.run.join("cni.sock")), source))
}

/// An error where an object is missing because its document was refused.
fn refused(errors: &FileErrors, key: &Key) -> Result<(), SetupError> {
    let Some((file, text)) = errors.of(key) else { return Ok(()) };
    let full = match key.namespace.as_str() {
        "" => key.name.clone(),
        namespace => format!("{namespace}/{}", key.name),
    };
    let message = format!("{} `{full}` was refused: {text} (in `{file}` of the manifests folder)", key.kind);
    Err(SetupError::new("FailedAttachNetwork", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_network_is_named_with_the_reason() {
        let errors = FileErrors::default();
        let key = Key::new(Kind::NetworkAttachmentDefinition, "default", "broken");
        assert!(refused(&errors, &key).is_ok());
        errors.add("n.yaml", &format!("{key}: spec.config: no"));
        let expected = "NetworkAttachmentDefinition `default/broken` was refused: spec.config: no \
                        (in `n.yaml` of the manifests folder)";
        assert_eq!(refused(&errors, &key).unwrap_err().message, expected);
        let key = Key::new(Kind::UnderlayNetwork, "", "lan");
        errors.add("u.yaml", &format!("{key}: spec.bridge: no"));
        let message = refused(&errors, &key).unwrap_err().message;
        assert!(message.starts_with("UnderlayNetwork `lan` was refused: spec.bridge: no"), "{message}");
    }
}
