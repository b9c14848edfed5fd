//! A rehearsal: the wiring of a VM's NIC, from the node's bridge to the tap, in namespaces that nobody else sees. What
//! a kernel lacks (bridges, veth, taps, nftables and their translation) is found out before a VM needs it.
//!
//! Invariant: the namespaces have no name, so all of it goes with the last handle to them, also after a crash.

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

use super::changes::Source;
use super::{Wiring, WiringError};
use crate::attachment;
use crate::binding::{self, BindingError};
use crate::model::{
    Attachment, AttachmentId, Backend, Bandwidth, Binding, BindingMethod, BridgeGateway, IfName, IfNameError, MacAddr,
    Vlan,
};

/// Why VMs cannot be wired on this node.
#[derive(Debug, thiserror::Error)]
pub enum RehearsalError {
    /// The kernel makes no network namespaces.
    #[error("failed to make a network namespace")]
    Namespace(#[source] io::Error),
    /// A step failed.
    #[error(transparent)]
    Wiring(#[from] WiringError),
    /// What is wired here cannot be described: a defect of ours.
    #[error(transparent)]
    Binding(#[from] BindingError),
    /// As above.
    #[error(transparent)]
    Name(#[from] IfNameError),
    /// As above.
    #[error(transparent)]
    Network(#[from] ipnetwork::IpNetworkError),
}

/// Wires a masqueraded NIC of a pod on a bridge, and forgets it. Needs a tokio runtime.
///
/// # Errors
/// At the first step that fails.
pub async fn rehearse() -> Result<(), RehearsalError> {
    let (node, pod) = (namespace()?, namespace()?);
    let wiring = Wiring {
        host: Arc::new(node),
        idle: Arc::default(),
        ovs: None,
        shared: Arc::default(),
        changes: Source::silent(),
    };
    let netns = PathBuf::from(format!("/proc/self/fd/{}", pod.as_raw_fd()));
    let ifname: IfName = "eth0".parse()?;
    let mac = MacAddr([2, 0, 0, 0, 0, 1]);
    let attachment = Attachment {
        id: AttachmentId { container_id: "rehearsal".to_owned(), ifname: ifname.clone() },
        netns: netns.clone(),
        backend: Backend::LinuxBridge {
            bridge: "rehearsal".parse()?,
            vlan: Vlan::Untagged,
            gateway: Some(BridgeGateway { addresses: vec!["192.0.2.1/24".parse()?], masquerade: true }),
        },
        mac,
        mtu: 1500,
        addresses: vec!["192.0.2.2/24".parse()?],
        routes: Vec::new(),
        owner: "rehearsal".to_owned(),
        security: None,
        bandwidth: Bandwidth::default(),
    };
    wiring.reconcile(&attachment::desired(&attachment)).await?;
    let binding = Binding {
        nic: "default".to_owned(),
        netns: netns.clone(),
        pod: wiring.observe_pod_interface(&netns, &ifname).await?,
        pod_interface: ifname,
        method: BindingMethod::Masquerade {
            cidr: ipnetwork::Ipv4Network::new(Ipv4Addr::new(10, 0, 2, 0), 24)?,
            cidr_v6: "fd10:0:2::/120".parse()?,
            ports: Vec::new(),
        },
        guest_mac: mac,
        tap_owner: (geteuid().as_raw(), getegid().as_raw()),
        queues: 1,
        link_up: true,
        delivery: None,
        hostname: String::new(),
    };
    wiring.reconcile(&binding::desired(&binding)?).await?;
    Ok(())
}

/// A network namespace without a name, which lasts as long as its handle.
fn namespace() -> Result<File, RehearsalError> {
    let make = || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        File::open("/proc/thread-self/ns/net")
    };
    // By a thread of its own, which ends in it.
    let made = std::thread::Builder::new().name("rehearsal".to_owned()).spawn(make).map(std::thread::JoinHandle::join);
    let made = made.map_err(RehearsalError::Namespace)?;
    made.unwrap_or_else(|_| Err(io::Error::other("the thread that makes it panicked")))
        .map_err(RehearsalError::Namespace)
}
