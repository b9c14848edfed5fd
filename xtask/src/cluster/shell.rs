//! `shell`: a shell or a command where the cluster can be reached. Its exit code is the command's.

use std::os::unix::process::CommandExt as _;

use anyhow::{Context, Result};

use super::layout::Cluster;
use super::machine::{enter_arguments, search_path};
use super::{find_node, up};
use crate::process;

/// Becomes the command.
pub fn run(cluster: Cluster<'_>, place: &str, command: &[String]) -> Result<()> {
    up::nodes(cluster)?;
    let own = std::env::var("PATH").unwrap_or_default();
    let path = format!("PATH={}:{own}", search_path());
    let mut enter = process::command("nsenter");
    match place {
        // The network alone: everything else is the machine's own.
        "cp" | "lan" | "underlay" => {
            let config = format!("KUBECONFIG={}", cluster.kubeconfig("admin").display());
            enter.arg(format!("--net=/run/netns/{}", cluster.netns(place))).args(["--", "env", &path, &config])
        }
        // A node has no credentials but its own.
        node => enter.args(enter_arguments(&find_node(cluster, node)?.machine.running()?)).args(["env", &path]),
    };
    if command.is_empty() {
        enter.arg(std::env::var("SHELL").unwrap_or_else(|_| "/bin/bash".to_owned()));
    } else {
        enter.args(command);
    }
    Err(enter.exec()).context("failed to run nsenter")
}
