//! The addresses of a VMI's NICs, taken before it has a pod.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use holdfast_api::kubevirt::VirtualMachineInstance;
use holdfast_api::nad::NetworkAttachmentDefinition;
use holdfast_api::underlay::UnderlayNetwork;
use holdfast_ipam::network::{Addressing, NetConf, NetworkList};
use holdfast_ipam::nic::{Nic, NicError, Wanted, claim, wanted};
use holdfast_kubernetes::chain;
use kube::Api;

use crate::context::Context;

const DEADLINE: Duration = Duration::from_secs(15);

/// Why there are no addresses.
pub enum Trouble {
    /// The user has to do something about it, or wait for somebody else.
    Refused(NicError),
    /// The API server did not answer.
    Unknown(String),
}

impl From<NicError> for Trouble {
    fn from(error: NicError) -> Self {
        Self::Refused(error)
    }
}

/// The NICs of a VMI in the order of its interfaces, each as it is asked for and with what it holds. A lease that was
/// taken stays taken when a later one fails: it is the VM's, and the next attempt finds it.
pub(super) async fn take(context: &Context, vmi: &VirtualMachineInstance) -> Result<Vec<(Wanted, Nic)>, Trouble> {
    let mut nics = Vec::new();
    for wanted in wanted(vmi)? {
        let nic = one(context, vmi, &wanted).await?;
        nics.push((wanted, nic));
    }
    Ok(nics)
}

async fn one(context: &Context, vmi: &VirtualMachineInstance, wanted: &Wanted) -> Result<Nic, Trouble> {
    match network(context, wanted).await? {
        Network::Ours(network) => {
            let claim = claim(vmi, &wanted.network.name);
            Ok(wanted.lease(&*context.leases, &network, claim).await?)
        }
        Network::Foreign { list, source } => Ok(wanted.foreign(&list, &source)?),
    }
}

/// The network of ours that the NIC of a VMI on this network of its spec is on.
pub async fn addressing(context: &Context, vmi: &VirtualMachineInstance, name: &str) -> Result<Addressing, Trouble> {
    let Some(wanted) = wanted(vmi)?.into_iter().find(|wanted| wanted.network.name == name) else {
        return Err(NicError::network(format!("the virtual machine has no NIC on network `{name}` any more")).into());
    };
    match network(context, &wanted).await? {
        Network::Ours(network) => Ok(network),
        Network::Foreign { source, .. } => {
            Err(NicError::network(format!("{source} is not of CNI type `holdfast` any more")).into())
        }
    }
}

/// What a NIC's network is.
enum Network {
    Ours(Addressing),
    /// Somebody else's. `source` says in messages where `list` comes from.
    Foreign {
        list: NetworkList,
        source: String,
    },
}

async fn network(context: &Context, wanted: &Wanted) -> Result<Network, Trouble> {
    let Some((namespace, name)) = wanted.definition() else {
        let list = NetworkList { name: "pods".to_owned(), cni_version: String::new(), plugins: Vec::new() };
        return Ok(Network::Foreign { list, source: "the pod network".to_owned() });
    };
    let source = format!("NetworkAttachmentDefinition `{namespace}/{name}`");
    let definitions: Api<NetworkAttachmentDefinition> = Api::namespaced(context.client.clone(), namespace);
    let Some(nad) = ask(&source, definitions.get_opt(name)).await? else {
        return Err(NicError::network(format!("{source} does not exist")).into());
    };
    let list = NetworkList::parse(&nad.spec.config, name)
        .map_err(|error| NicError::network(format!("{source}: {}", chain(&error))))?;
    let Some(config) = list.ours() else { return Ok(Network::Foreign { list, source }) };
    let invalid = |error| NicError::network(format!("{source}: {error}"));
    let config = NetConf::parse(&config).map_err(invalid)?;
    let underlay = match &config.network {
        Some(name) => {
            let networks: Api<UnderlayNetwork> = Api::all(context.client.clone());
            ask(&format!("UnderlayNetwork `{name}`"), networks.get_opt(name)).await?
        }
        None => None,
    };
    let network = config.addressing(underlay.as_ref()).map_err(invalid)?;
    let underlays = context.underlays.select(|_, _| true);
    let network = config.beside(network, underlays.iter().map(|underlay| &**underlay)).map_err(invalid)?;
    Ok(Network::Ours(network))
}

async fn ask<K: Debug>(
    what: &str,
    request: impl Future<Output = kube::Result<Option<K>>>,
) -> Result<Option<K>, Trouble> {
    match tokio::time::timeout(DEADLINE, request).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) => Err(Trouble::Unknown(format!("failed to get {what}: {}", chain(&error)))),
        Err(_) => Err(Trouble::Unknown(format!("failed to get {what}: no answer in {} s", DEADLINE.as_secs()))),
    }
}
