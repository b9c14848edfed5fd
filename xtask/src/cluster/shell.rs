//! `shell`: a shell or a command where the cluster can be reached. Its exit code is the command's.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context, Result};

use super::layout::Cluster;
use super::machine::{enter_arguments, search_path};
use super::{find_node, up};
use crate::workspace;

/// Becomes the command.
pub fn run(cluster: Cluster<'_>, place: &str, command: &[String]) -> Result<()> {
    up::nodes(cluster)?;
    let mut enter = Command::new("nsenter");
    match place {
        // The network alone: everything else is the machine's own.
        "cp" | "lan" | "underlay" => enter.arg(format!("--net=/run/netns/{}", cluster.netns(place))).arg("--"),
        node => enter.args(enter_arguments(&find_node(cluster, node)?.machine.running()?)),
    };
    let own = std::env::var("PATH").unwrap_or_default();
    enter
        .arg("env")
        .arg(format!("PATH={}:{}:{own}", search_path(), workspace::target().join("dist/debug").display()))
        .arg(format!("KUBECONFIG={}", cluster.kubeconfig("admin").display()));
    if command.is_empty() {
        enter.arg(std::env::var("SHELL").unwrap_or_else(|_| "/bin/bash".to_owned()));
    } else {
        enter.args(command);
    }
    Err(enter.exec()).context("failed to run nsenter")
}
