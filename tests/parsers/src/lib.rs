//! What holds for each parser that meets foreign bytes, whatever the bytes are.
//!
//! A check gives the bytes to one parser and asserts what must come of them: no panic, a value that means the same when
//! it is written and read again, an answer to none but a question. The fuzzer calls the checks with bytes that it makes
//! up (`fuzz/`), the tests of this package with those that it kept (`fuzz/corpus/`), so that what was once found stays
//! found. Invariant: a check depends on its bytes alone.
#![allow(clippy::unwrap_used, reason = "a check fails by a panic, which is what the fuzzer looks for")]

mod annotations;
mod configuration;
mod dhcp;
mod frames;
mod kernel;
mod manifests;
mod switch;

pub use annotations::{addresses_annotation, marks, networks_annotation};
pub use configuration::{cni_config, nad_config, underlay_network};
pub use dhcp::dhcp;
pub use frames::frame;
pub use kernel::netfilter;
pub use manifests::{manifest, network_data};
pub use switch::{openflow, ovsdb};

/// A check of one parser.
pub type Check = fn(&[u8]);

/// All of them by name: that of the fuzz target, and of the folder of its inputs.
pub const CHECKS: &[(&str, Check)] = &[
    ("addresses_annotation", addresses_annotation),
    ("cni_config", cni_config),
    ("dhcp", dhcp),
    ("frame", frame),
    ("manifest", manifest),
    ("marks", marks),
    ("nad_config", nad_config),
    ("netfilter", netfilter),
    ("network_data", network_data),
    ("networks_annotation", networks_annotation),
    ("openflow", openflow),
    ("ovsdb", ovsdb),
    ("underlay_network", underlay_network),
];
