//! ADD: addresses, then the record, then the devices, then the answer.
//!
//! Invariants: nothing is touched before everything that can be known to be wrong has been refused; lease and record
//! are written before a device is made; an ADD that fails leaves nothing (its removal goes on behind the answer, and the
//! next ADD of the key waits for it).
//!
//! Nothing waits for the disk: a power cut ends the sandbox, and with it the devices, the use of the record, and the
//! lease of a plain pod, who is a new claim when it is started anew. The leases of a VM are older than its pod.

use std::net::IpAddr;

use holdfast_agent_api::cni::code;
use holdfast_api::lease::Claim;
use holdfast_net::kernel::WiringError;
use holdfast_net::model::{Attachment, Backend, MacAddr, StaticRoute};
use holdfast_net::plan::PlanError;
use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

use super::call::{Call, Target};
use super::result::{CniResult, Dns, Interface, Ip, Route};
use super::{Done, Fault};
use crate::context::Context;
use crate::netns::NetnsId;
use crate::registry::{Entry, Hold, Key, Outcome, Record, Registry};
use crate::workloads::VmNic;
use holdfast_ipam::leases::{NODE_LABEL, Request, reserve};
use holdfast_ipam::network::{NetworkConfig, routes};

pub(super) async fn add(context: &Context, registry: &Registry, call: &Call) -> Result<Done, Fault> {
    let record = attach(context, registry, call).await?;
    let added = vec![record.key];
    let result = chained(call.prev_result.clone(), record.result).print(call.version)?;
    Ok(Done { result, added, joined: None })
}

/// Makes the attachment and returns its record.
pub(super) async fn attach(context: &Context, registry: &Registry, call: &Call) -> Result<Record, Fault> {
    let target = call.target()?;
    let netns = netns(context, target).await?;
    let mut hold = registry.hold(&target.key, &target.id).await?;
    if registry.take_note(&context.options.run, &hold, &target.key)? {
        drop(hold);
        hold = registry.hold(&target.key, &target.id).await?;
    }
    let (record, is_new) = match registry.get(&target.key) {
        Some(entry) => (resume(entry, &netns, call)?, false),
        None => (prepare(context, registry, call, &hold, netns).await?, true),
    };
    let desired = context.desired(&record);
    let wired = if is_new { context.wiring.make(&desired).await } else { context.wiring.reconcile(&desired).await };
    let fault = match wired {
        Ok(_) => {
            registry.set_outcome(&target.key, Outcome::Converged);
            return Ok(record);
        }
        Err(error @ WiringError::Plan(PlanError::MissingOvsBridge(_) | PlanError::MissingBridge { .. })) => {
            no_bridge(context, call, &error).await
        }
        Err(error) => error.into(),
    };
    registry.drop_key(&hold, &target.key, target.id.clone())?;
    Err(fault)
}

/// A network names a bridge that its node does not have: which field says so, and what the node has.
async fn no_bridge(context: &Context, call: &Call, error: &WiringError) -> Fault {
    let NetworkConfig { bridge_field, backend, .. } = &call.network;
    let (kind, name, ovs) = match backend {
        // It is on no bridge; what is missing there is said by `error`.
        Backend::Macvtap { .. } => return Fault::new(code::NODE, crate::chain(error), ""),
        Backend::Ovs { bridge, .. } => ("OVS bridge", bridge.clone(), true),
        Backend::LinuxBridge { bridge, .. } => ("Linux bridge", bridge.to_string(), false),
    };
    let there = match context.wiring.bridges(ovs).await {
        Ok(there) if there.is_empty() => "it has none".to_owned(),
        Ok(there) => format!("it has `{}`", there.join("`, `")),
        // That it is missing is known anyhow.
        Err(_) => crate::chain(error),
    };
    let node = &context.options.node;
    let msg = format!("{bridge_field} is `{name}`, and node `{node}` has no {kind} of that name: {there}");
    Fault::new(code::NODE, msg, "")
}

/// The pod's namespace; it must be one, and not the node's own.
async fn netns(context: &Context, target: &Target) -> Result<NetnsId, Fault> {
    let id = context.visitor.identify(&target.netns).await?;
    if id == context.own_netns && !target.netns_override {
        let msg = format!("CNI_NETNS `{}` is the node's own network namespace", target.netns.display());
        return Err(Fault::new(code::NETNS, msg, "set CNI_NETNS_OVERRIDE where that is meant"));
    }
    Ok(id)
}

/// The record of an ADD that has begun before: where the runtime knows nothing of it, it goes on.
fn resume(entry: Entry, netns: &NetnsId, call: &Call) -> Result<Record, Fault> {
    let Entry { record, answered, .. } = entry;
    let same = record.netns == *netns && record.network == call.network.addressing.name;
    if answered || !same {
        let msg =
            format!("interface `{}` of container `{}` exists already", record.key.ifname, record.key.container_id);
        let details = format!(
            "it is attached to network `{}` in `{}`: DEL it first",
            record.network,
            record.attachment.netns.display()
        );
        return Err(Fault::new(code::CONFIG, msg, details));
    }
    Ok(record)
}

/// Settles the addresses and writes the record.
async fn prepare(
    context: &Context,
    registry: &Registry,
    call: &Call,
    hold: &Hold,
    netns: NetnsId,
) -> Result<Record, Fault> {
    let (target, network) = (call.target()?, &call.network);
    let mtu = super::mtu::settle(context, network).await?;
    context.workloads.settled(&target.pod).await;
    let nic = context.workloads.vm_nic(&target.pod, &target.key.ifname)?;
    let claim = nic.as_ref().map_or_else(|| pod_claim(target), |nic| nic.claim.clone());
    // Until the record is there: it is what tells others that the claim is in use.
    let _claim = registry.hold_claim(&claim).await?;
    if let Some(Key { container_id, ifname }) = registry.user_of(&claim) {
        let msg = format!("the addresses of {} are in use", holdfast_ipam::leases::Holder(claim));
        let details = format!("by interface `{ifname}` of container `{container_id}`, which must end first");
        return Err(Fault::new(code::TRY_AGAIN, msg, details));
    }
    let underlays = context.networks.borrow().clone();
    let beside = || call.conf.beside(network.addressing.clone(), underlays.values());
    let pairs = [nic.as_ref().map_or(&[][..], |nic| &nic.pairs), &call.conf.runtime.pairs].concat();
    if !pairs.is_empty() {
        beside()?.check_pairs(&pairs)?;
    }
    let asked = nic.as_ref().and_then(|nic| nic.bandwidth.as_ref()).or(call.conf.runtime.bandwidth.as_ref());
    let bandwidth = network.addressing.bandwidth(asked)?;
    let (mac, addresses, release) = match &nic {
        Some(nic) => (check_asked(call, nic)?.mac, nic.addresses.clone(), false),
        None => {
            let labels = [(NODE_LABEL, context.options.node.as_str())];
            let (mac, ips) = (call.conf.runtime.mac, &call.conf.runtime.ips);
            let request = Request { network: &beside()?, claim: &claim, mac, ips, labels: &labels };
            let allocated = reserve(&*context.leases, &request).await?;
            (allocated.mac, allocated.addresses, true)
        }
    };
    // Of a guest, its own address: the pod interface's is silent.
    let security = network.security(mac, &addresses, &pairs);
    let vm_owned = nic.as_ref().is_some_and(|nic| nic.vm_owned);
    let backend = match &network.backend {
        Backend::Macvtap { uplink, mode, .. } => {
            Backend::Macvtap { uplink: uplink.clone(), mode: *mode, guest: vm_owned }
        }
        backend => backend.clone(),
    };
    // A macvtap is heard by its own address alone, so that is the guest's.
    let stands_before = vm_owned && !matches!(backend, Backend::Macvtap { .. });
    let mac = if stands_before { silent_mac(mac)? } else { mac };
    let routes = if vm_owned { Vec::new() } else { pod_routes(network, &addresses) };
    let owner = format!("{}/{}/{}", target.pod.namespace, target.pod.name, network.addressing.name);
    let record = Record {
        result: result(target, network, mac, mtu, &addresses, &routes),
        key: target.key.clone(),
        network: network.addressing.name.clone(),
        segment: network.addressing.segment.clone(),
        pod: target.pod.name.clone(),
        pod_uid: target.pod.uid.clone(),
        chained: call.chained.clone(),
        netns,
        claim: Some(claim),
        release,
        attachment: Attachment {
            id: target.id.clone(),
            netns: target.netns.clone(),
            backend,
            mac,
            mtu,
            addresses: if vm_owned { Vec::new() } else { addresses },
            routes,
            owner,
            security,
            bandwidth,
        },
    };
    registry.put(hold, record.clone())?;
    Ok(record)
}

/// A pod's own claim: one for each of its interfaces.
fn pod_claim(target: &Target) -> Claim {
    let Target { key: Key { container_id, ifname }, pod, .. } = target;
    let or_container = |text: &str| if text.is_empty() { container_id.clone() } else { text.to_owned() };
    Claim {
        uid: or_container(&pod.uid),
        kind: "Pod".to_owned(),
        namespace: pod.namespace.clone(),
        name: or_container(&pod.name),
        network: ifname.to_string(),
    }
}

/// A VM's addresses are settled: what the runtime asks for beside them must be the same.
fn check_asked<'a>(call: &Call, nic: &'a VmNic) -> Result<&'a VmNic, Fault> {
    let asked = &call.conf.runtime;
    let other_mac = asked.mac.filter(|mac| *mac != nic.mac).map(|mac| mac.to_string());
    let other_ip = asked.ips.iter().find(|ip| !nic.addresses.iter().any(|address| address.ip() == **ip));
    match other_mac.or_else(|| other_ip.map(IpAddr::to_string)) {
        None => Ok(nic),
        Some(asked) => {
            let holder = holdfast_ipam::leases::Holder(nic.claim.clone());
            Err(Fault::new(code::CONFLICT, format!("address {asked} is asked for, but is not one of {holder}"), ""))
        }
    }
}

/// The address of a pod interface that stands before a guest: never the guest's, so that the segment learns the
/// guest's from the guest alone.
fn silent_mac(guest: MacAddr) -> Result<MacAddr, Fault> {
    let mac = holdfast_api::pool::mac_candidates(&format!("pod interface of {guest}")).find_map(|mac| mac.parse().ok());
    mac.ok_or_else(|| Fault::new(code::INTERNAL, "failed to make an Ethernet address", ""))
}

/// Routes of a plain pod: what its subnets say, and the default ones where this is its main network.
fn pod_routes(network: &NetworkConfig, addresses: &[IpNetwork]) -> Vec<StaticRoute> {
    let subnets: Vec<_> = addresses.iter().filter_map(|address| network.addressing.subnet_of(address.ip())).collect();
    let mut all: Vec<_> = subnets.iter().flat_map(|subnet| routes(subnet)).collect();
    if network.default_route {
        all.extend(subnets.iter().filter_map(|subnet| {
            let gateway = subnet.gateway?;
            let any = match gateway {
                IpAddr::V4(_) => Ipv4Network::new([0, 0, 0, 0].into(), 0).map(IpNetwork::V4),
                IpAddr::V6(_) => Ipv6Network::new([0; 8].into(), 0).map(IpNetwork::V6),
            };
            Some(StaticRoute { destination: any.ok()?, gateway: Some(gateway) })
        }));
    }
    all
}

/// What ADD answers for this attachment alone.
fn result(
    target: &Target,
    network: &NetworkConfig,
    mac: MacAddr,
    mtu: u32,
    addresses: &[IpNetwork],
    routes: &[StaticRoute],
) -> CniResult {
    let host = Interface {
        name: holdfast_net::attachment::host_ifname(&target.id).to_string(),
        mtu: Some(mtu),
        ..Interface::default()
    };
    let pod = Interface {
        name: target.id.ifname.to_string(),
        mac: mac.to_string(),
        mtu: Some(mtu),
        sandbox: target.netns.display().to_string(),
        ..Interface::default()
    };
    let gateway = |address: &IpNetwork| network.addressing.subnet_of(address.ip()).and_then(|subnet| subnet.gateway);
    let delivery = network.addressing.delivery(addresses);
    // A macvlan has no host end.
    let interfaces = if matches!(network.backend, Backend::Macvtap { .. }) { vec![pod] } else { vec![host, pod] };
    let own = interfaces.len() - 1;
    CniResult {
        interfaces,
        ips: addresses
            .iter()
            .map(|address| Ip { address: *address, gateway: gateway(address), interface: Some(own) })
            .collect(),
        routes: routes
            .iter()
            .map(|route| Route { dst: route.destination, gw: route.gateway, more: serde_json::Map::new() })
            .collect(),
        dns: Dns {
            nameservers: delivery.dns.iter().map(ToString::to_string).collect(),
            search: delivery.search,
            ..Dns::default()
        },
    }
}

/// The result of the plugins before, with our interface and routes behind it.
///
/// Not our addresses: the reference plugins look for each of a list's `ips` on their own interface when it comes
/// to CHECK, whatever `ips[].interface` says.
fn chained(prev: Option<CniResult>, own: CniResult) -> CniResult {
    let Some(mut all) = prev else { return own };
    all.interfaces.extend(own.interfaces);
    all.routes.extend(own.routes);
    all
}
