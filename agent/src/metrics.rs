//! What is counted, in OpenMetrics.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::vmi::VmiMetrics;

/// Everything that is counted.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    cni: Family<CniLabels, Histogram>,
    /// Attachments in the registry.
    pub attachments: Gauge,
    /// Attachments that are not as they shall be, at the last look.
    pub drifted: Gauge,
    /// Attachments that were found changed and were mended.
    pub repairs: Family<RepairLabels, Counter>,
    /// Failed tries to remove what DEL asked for.
    pub removal_failures: Counter,
    /// Leases in the store.
    pub leases: Family<LeaseLabels, Gauge>,
    /// What the tasks of the VMIs count.
    pub vmi: VmiMetrics,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CniLabels {
    verb: &'static str,
    backend: &'static str,
    outcome: String,
}

/// Labels of repairs.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RepairLabels {
    /// `link`, `port`, `address`, `route`, `neighbour`, `setting`, `flows`, `rules` or `bandwidth`.
    pub what: &'static str,
}

/// Labels of the leases.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct LeaseLabels {
    /// `ipleases` or `macleases`.
    pub kind: &'static str,
    /// `held` or `quarantined`.
    pub state: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("holdfast");
        // From 0.5 ms to 32 s: a call is a few milliseconds where nothing is wrong.
        let cni = Family::new_with_constructor(
            (|| Histogram::new(exponential_buckets(0.0005, 2.0, 17))) as fn() -> Histogram,
        );
        let metrics = Self {
            cni,
            attachments: Gauge::default(),
            drifted: Gauge::default(),
            repairs: Family::default(),
            removal_failures: Counter::default(),
            leases: Family::default(),
            vmi: VmiMetrics::default(),
            registry: Registry::default(),
        };
        registry.register_with_unit(
            "cni_duration",
            "Time to serve a CNI call; outcome is `ok` or the error's code",
            Unit::Seconds,
            metrics.cni.clone(),
        );
        registry.register("attachments", "Attachments of this node", metrics.attachments.clone());
        registry.register("attachments_drifted", "Attachments that are not as they shall be", metrics.drifted.clone());
        registry.register(
            "attachment_repairs",
            "Attachments that had drifted and were mended, by the first thing that was wrong",
            metrics.repairs.clone(),
        );
        registry.register(
            "removal_failures",
            "Failed tries to remove devices or to give leases back",
            metrics.removal_failures.clone(),
        );
        registry.register("leases", "Leases in the store", metrics.leases.clone());
        metrics.vmi.register(&mut registry);
        Self { registry, ..metrics }
    }
}

impl Metrics {
    /// Counts one CNI call. `outcome` is `ok`, or the code of its error.
    pub fn cni(&self, verb: &'static str, backend: &'static str, outcome: String, took: Duration) {
        self.cni.get_or_create(&CniLabels { verb, backend, outcome }).observe(took.as_secs_f64());
    }

    /// All of it as OpenMetrics text.
    ///
    /// # Errors
    /// The encoder's.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
