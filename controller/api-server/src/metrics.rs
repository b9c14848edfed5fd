//! What is counted.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::verbs::Verb;

/// Everything that is counted. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    requests: Family<RequestLabels, Histogram, fn() -> Histogram>,
    console: Streams,
    vnc: Streams,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    verb: &'static str,
    code: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StreamLabels {
    namespace: String,
    vmi: String,
}

/// Open streams by VMI. The lock keeps a VMI's gauge from being taken away while somebody else counts on it.
#[derive(Clone, Default)]
struct Streams {
    open: Family<StreamLabels, Gauge>,
    lock: Arc<Mutex<()>>,
}

/// A stream that is open, until it is dropped.
pub struct Active {
    streams: Streams,
    labels: StreamLabels,
}

impl Metrics {
    /// With the registry that they are in.
    pub fn new() -> (Self, Registry) {
        // From 1 ms to 32 s; within a cluster most answers take a few milliseconds.
        let histogram: fn() -> Histogram = || Histogram::new(exponential_buckets(0.001, 2.0, 16));
        let metrics = Self {
            requests: Family::new_with_constructor(histogram),
            console: Streams::default(),
            vnc: Streams::default(),
        };
        let mut registry = Registry::default();
        registry.register_with_unit(
            "holdfast_api_request_duration",
            "Answered requests by subresource or webhook and by code",
            Unit::Seconds,
            metrics.requests.clone(),
        );
        registry.register("kubevirt_console_active_connections", "Open serial consoles", metrics.console.open.clone());
        registry.register("kubevirt_vnc_active_connections", "Open screens", metrics.vnc.open.clone());
        (metrics, registry)
    }

    /// Counts an answer.
    pub fn answered(&self, verb: &'static str, code: StatusCode, took: Duration) {
        let labels = RequestLabels { verb, code: code.as_u16() };
        self.requests.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// Counts an open stream.
    pub fn stream(&self, verb: Verb, namespace: &str, vmi: &str) -> Active {
        let streams = if verb == Verb::Vnc { &self.vnc } else { &self.console };
        let labels = StreamLabels { namespace: namespace.to_owned(), vmi: vmi.to_owned() };
        let _lock = streams.lock.lock().unwrap_or_else(PoisonError::into_inner);
        streams.open.get_or_create(&labels).inc();
        Active { streams: streams.clone(), labels }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        let _lock = self.streams.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let left = self.streams.open.get_or_create(&self.labels).dec() - 1;
        if left <= 0 {
            self.streams.open.remove(&self.labels);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn streams_are_counted_while_they_are_open() {
        let (metrics, registry) = Metrics::new();
        let text = || {
            let mut text = String::new();
            encode(&mut text, &registry).unwrap();
            text
        };
        let count = |n: u8| format!("kubevirt_console_active_connections{{namespace=\"n\",vmi=\"a\"}} {n}");
        let first = metrics.stream(Verb::Console, "n", "a");
        let second = metrics.stream(Verb::Console, "n", "a");
        let _other = metrics.stream(Verb::Vnc, "n", "a");
        assert!(text().contains(&count(2)), "{}", text());
        drop(first);
        assert!(text().contains(&count(1)), "{}", text());
        drop(second);
        assert!(!text().contains("kubevirt_console_active_connections{"), "{}", text());
        metrics.answered("virtualmachines/start", StatusCode::ACCEPTED, Duration::from_millis(3));
        let sum = "holdfast_api_request_duration_seconds_count{verb=\"virtualmachines/start\",code=\"202\"} 1";
        assert!(text().contains(sum), "{}", text());
    }
}
