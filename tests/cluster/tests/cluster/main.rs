//! The product on a real cluster, as its users meet it. `cargo xtask test cluster` brings the cluster up, installs
//! the product with the manifests of deploy/, and runs this in the control plane's network namespace.
#![allow(clippy::unwrap_used, reason = "a test that meets an error shall end")]

mod access;
mod deletes;
mod failure;
mod fencing;
mod machine;
mod meta_plugin;
mod networks;
mod rbac;
mod replays;
mod streams;
mod twice;
mod uninstall;
mod world;
