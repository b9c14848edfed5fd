//! The HTTP of probes and metrics.
