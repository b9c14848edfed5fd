//! What a VMI's task says. The whole state each time, so that a reader may miss values.

use holdfast_agent_api::launcher::{DomainState, DomainStatus, Failure, FinalState, GuestInfo};
use holdfast_net::model::{IfName, MacAddr};
use ipnetwork::IpNetwork;

/// A VMI as its task sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmiReport {
    /// The domain; [`DomainState::Final`] also where the launcher was lost.
    pub domain: DomainStatus,
    /// What the guest agent told last; none until it did, and after it disconnected.
    pub guest: Option<GuestInfo>,
    /// The wired NICs in the order of the spec; empty until they are wired. One of `state: absent` is among them until
    /// the guest has let it go.
    pub nics: Vec<NicReport>,
    /// NICs of `state: absent` of which neither device nor wiring is left: their networks can be left.
    pub unplugged: Vec<String>,
    /// Why the last step towards what is wanted failed; none once one succeeds.
    pub failure: Option<Failure>,
    /// Grace of the shutdown that the launcher was told of, in seconds.
    pub stopping: Option<u64>,
    /// How often something of its network was found changed, and mended, since the task began; and what it was last.
    pub repairs: (u64, String),
    /// Process id of the launcher while it is connected.
    pub launcher_pid: Option<u32>,
}

/// A wired NIC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NicReport {
    /// Name of the interface in the spec.
    pub name: String,
    /// The pod's interface.
    pub pod_interface: IfName,
    /// The guest's Ethernet address.
    pub mac: MacAddr,
    /// Whether it is reached by NAT behind the pod's address.
    pub masquerade: bool,
    /// The addresses at which the VM is reached: the pod's for masquerade, else those that the guest is given.
    pub addresses: Vec<IpNetwork>,
    /// Queue pairs.
    pub queues: u32,
    /// Whether the carrier is up.
    pub link_up: bool,
}

impl Default for VmiReport {
    fn default() -> Self {
        Self {
            domain: DomainStatus {
                state: DomainState::None,
                machine: String::new(),
                agent_connected: false,
                volume_targets: Vec::new(),
                emulation: false,
                nics: None,
            },
            guest: None,
            nics: Vec::new(),
            unplugged: Vec::new(),
            failure: None,
            stopping: None,
            repairs: (0, String::new()),
            launcher_pid: None,
        }
    }
}

impl VmiReport {
    /// How the domain ended, if it did. The sandbox may be torn down then.
    pub fn final_state(&self) -> Option<&FinalState> {
        match &self.domain.state {
            DomainState::Final(end) => Some(end),
            DomainState::None | DomainState::Running | DomainState::Paused { .. } | DomainState::ShuttingDown => None,
        }
    }

    /// Whether there is a domain that has not ended.
    pub fn is_alive(&self) -> bool {
        matches!(self.domain.state, DomainState::Running | DomainState::Paused { .. } | DomainState::ShuttingDown)
    }
}
