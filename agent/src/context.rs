//! What each part of a running agent works with.

use std::collections::BTreeMap;
use std::sync::Arc;

use holdfast_net::desired::DesiredState;
use holdfast_net::kernel::{ApplyReport, Wiring};

use tokio::sync::watch;

use crate::agent::AgentOptions;
use crate::metrics::Metrics;
use crate::netns::{NetnsId, Visitor};
use crate::registry::Record;
use crate::repairs::Repairs;
use crate::workloads::Workloads;
use holdfast_ipam::leases::LeaseStore;
use holdfast_ipam::network::Networks;

/// The surroundings of an agent. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Context {
    pub options: Arc<AgentOptions>,
    pub wiring: Wiring,
    pub leases: Arc<dyn LeaseStore>,
    pub workloads: Arc<dyn Workloads>,
    pub networks: Networks,
    pub metrics: Arc<Metrics>,
    pub repairs: Repairs,
    /// The node's labels as they are now.
    pub node_labels: watch::Receiver<Arc<BTreeMap<String, String>>>,
    /// The agent's own namespace: no pod's.
    pub own_netns: NetnsId,
    pub visitor: Visitor,
}

impl Context {
    /// What shall be for a record.
    ///
    /// A pod interface that is bound to a VM is the binding's from then on: its address, MAC and routes are the
    /// binding's to check, and are left alone here.
    pub fn desired(&self, record: &Record) -> DesiredState {
        let attachment = &record.attachment;
        let mut desired = holdfast_net::attachment::desired(attachment);
        let bound = crate::vmi::record::load(&self.options.state, &attachment.id.container_id);
        // A record of bindings that cannot be read may hold this interface.
        if bound.is_ok_and(|bound| !bound.contains_key(&attachment.id.ifname)) {
            return desired;
        }
        let links = desired.namespaces.values_mut().flat_map(|namespace| &mut namespace.links);
        for (_, link) in links.filter(|(name, _)| **name == attachment.id.ifname) {
            (link.mac, link.addresses, link.routes) = (None, None, None);
        }
        desired
    }

    /// The operations of a report, as text.
    pub fn ops(report: &ApplyReport) -> Vec<String> {
        report.done.iter().map(|(op, _)| op.to_string()).collect()
    }
}
