//! The cluster's network: namespaces, the nodes' own network, and the underlay with a host on it.
//!
//! Every function brings about what it names where that is not there yet, and leaves alone what is.

use std::path::Path;

use anyhow::{Context, Result};

use super::layout::{CONTROL_PLANE, Cluster, LAN_HOST, Node};
use crate::process::Program;

/// The bridge of the nodes' own network, in the control plane's namespace.
const NODES: &str = "nodes";
/// The underlay, in its namespace, and the host's port on it.
const LAN: &str = "lan";
/// The node's port on its own underlay bridge.
pub const UPLINK: &str = "uplink0";

/// Makes a network namespace, and says whether it was not there before.
pub fn make_namespace(name: &str) -> Result<bool> {
    if Path::new("/run/netns").join(name).exists() {
        if inside(name, "true").succeeds() {
            return Ok(false);
        }
        // After a reboot the name is there and the namespace is not.
        remove_namespace(name)?;
    }
    ip(&["netns", "add", name])?;
    ip(&["-n", name, "link", "set", "lo", "up"])?;
    let forward = "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding";
    inside(name, "sh").args(["-c", forward]).output()?;
    Ok(true)
}

/// Removes a network namespace with all links in it. One that is not there is as good.
pub fn remove_namespace(name: &str) -> Result<()> {
    if Path::new("/run/netns").join(name).exists() { ip(&["netns", "del", name]) } else { Ok(()) }
}

/// The control plane's end of the nodes' network.
pub fn join_control_plane(cluster: Cluster<'_>) -> Result<()> {
    let namespace = cluster.control_plane().netns();
    if has_link(&namespace, NODES) {
        return Ok(());
    }
    ip(&["-n", &namespace, "link", "add", NODES, "type", "bridge"])?;
    ip(&["-n", &namespace, "address", "add", &format!("{CONTROL_PLANE}/24"), "dev", NODES])?;
    ip(&["-n", &namespace, "link", "set", NODES, "up"])
}

/// The underlay outside the nodes, and the host on it.
pub fn make_underlay(cluster: Cluster<'_>) -> Result<()> {
    let (underlay, host) = (cluster.netns("underlay"), cluster.netns("lan"));
    make_namespace(&underlay)?;
    make_namespace(&host)?;
    if !has_link(&underlay, LAN) {
        ip(&["-n", &underlay, "link", "add", LAN, "type", "bridge", "mcast_snooping", "0"])?;
        ip(&["-n", &underlay, "link", "set", LAN, "up"])?;
    }
    if !has_link(&host, "eth0") {
        plug(&underlay, "host", LAN, &host, "eth0")?;
        without_offload(&host, "eth0")?;
        ip(&["-n", &host, "address", "add", LAN_HOST, "dev", "eth0"])?;
    }
    Ok(())
}

/// The node's links: eth0 in the nodes' network, and the uplink in the underlay.
pub fn join_node(node: &Node<'_>) -> Result<()> {
    let cluster = node.machine.cluster;
    let (namespace, control_plane) = (node.machine.netns(), cluster.control_plane().netns());
    if !has_link(&namespace, "eth0") {
        plug(&control_plane, &node.machine.name, NODES, &namespace, "eth0")?;
        ip(&["-n", &namespace, "address", "add", &format!("{}/24", node.address()), "dev", "eth0"])?;
        ip(&["-n", &namespace, "route", "add", "default", "via", CONTROL_PLANE])?;
        // Webhooks and aggregated APIs are called by the addresses of pods.
        ip(&["-n", &control_plane, "route", "replace", &node.pods(), "via", &node.address()])?;
    }
    if !has_link(&namespace, UPLINK) {
        plug(&cluster.netns("underlay"), &node.machine.name, LAN, &namespace, UPLINK)?;
        without_offload(&namespace, UPLINK)?;
    }
    Ok(())
}

/// The way from one node to the pods of another.
pub fn route_pods(from: &Node<'_>, to: &Node<'_>) -> Result<()> {
    ip(&["-n", &from.machine.netns(), "route", "replace", &to.pods(), "via", &to.address()])
}

/// A link from a port of a bridge into another namespace.
fn plug(outside: &str, port: &str, bridge: &str, namespace: &str, link: &str) -> Result<()> {
    ip(&["-n", outside, "link", "add", port, "type", "veth", "peer", "name", link, "netns", namespace])?;
    ip(&["-n", outside, "link", "set", port, "master", bridge, "up"])?;
    ip(&["-n", namespace, "link", "set", link, "up"])
}

/// The user-space datapath of Open vSwitch passes on checksums that the kernel has left open, and TCP hangs.
fn without_offload(namespace: &str, link: &str) -> Result<()> {
    inside(namespace, "ethtool").args(["-K", link, "tx", "off"]).output().map(drop)
}

fn has_link(namespace: &str, link: &str) -> bool {
    Program::new("ip").args(["-n", namespace, "link", "show", "dev", link]).succeeds()
}

fn ip(arguments: &[&str]) -> Result<()> {
    Program::new("ip").args(arguments).output().map(drop).context("failed to set up the network")
}

/// A program in a namespace.
pub fn inside(namespace: &str, program: &str) -> Program {
    Program::new("ip").args(["netns", "exec", namespace, program])
}
