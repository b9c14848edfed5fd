//! Numbers about virt-controller itself, under the names that dashboards of KubeVirt know where there are such.

use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Named {
    name: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Looked {
    name: &'static str,
    result: &'static str,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    leading: Gauge<i64, AtomicI64>,
    ready: Gauge<i64, AtomicI64>,
    depth: Family<Named, Gauge<i64, AtomicI64>>,
    looked: Family<Looked, Counter<u64, AtomicU64>>,
}

/// Those of one queue.
#[derive(Clone, Debug)]
pub struct QueueMetrics {
    name: &'static str,
    all: Metrics,
}

impl Metrics {
    /// Puts them under their names.
    pub fn register(&self, registry: &mut Registry) {
        let leading = "Indication for an operating virt-controller";
        registry.register("kubevirt_virt_controller_leading_status", leading, self.leading.clone());
        let ready = "Indication for a virt-controller that is ready to take the lead";
        registry.register("kubevirt_virt_controller_ready_status", ready, self.ready.clone());
        registry.register("kubevirt_workqueue_depth", "Objects that wait to be looked at", self.depth.clone());
        registry.register("holdfast_reconciles", "Objects that were looked at", self.looked.clone());
        self.ready.set(1);
    }

    /// Whether this process works.
    pub fn leads(&self, leads: bool) {
        self.leading.set(i64::from(leads));
    }

    /// Those of the queue of that name.
    pub fn queue(&self, name: &'static str) -> QueueMetrics {
        QueueMetrics { name, all: self.clone() }
    }
}

impl QueueMetrics {
    pub(crate) fn depth(&self, waiting: usize) {
        let depth = i64::try_from(waiting).unwrap_or(i64::MAX);
        self.all.depth.get_or_create(&Named { name: self.name }).set(depth);
    }

    pub(crate) fn looked(&self, well: bool) {
        let result = if well { "success" } else { "error" };
        self.all.looked.get_or_create(&Looked { name: self.name, result }).inc();
    }
}
