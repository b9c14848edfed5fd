//! Ports of every Open vSwitch whose database server runs on this machine.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::processes;
use crate::process::Program;

/// Ports as `<database>/<bridge>/<port>`.
pub fn ports() -> Result<Vec<String>> {
    let mut found = Vec::new();
    for database in databases() {
        // A server that ends while it is asked has no ports any more.
        if let Err(error) = ports_of(&database, &mut found)
            && Path::new(&database).exists()
            && databases().contains(&database)
        {
            return Err(error).with_context(|| format!("failed to list the ports of the OVS at {database}"));
        }
    }
    Ok(found)
}

/// The sockets that ovsdb-servers listen on.
fn databases() -> BTreeSet<String> {
    let servers = processes::all().into_iter().filter(|process| process.program.ends_with("/ovsdb-server"));
    servers
        .flat_map(|server| {
            let sockets = server.arguments.into_iter();
            // Its mounts may be its own.
            sockets.filter_map(move |argument| {
                Some(format!("/proc/{}/root{}", server.pid, argument.strip_prefix("--remote=punix:")?))
            })
        })
        .filter(|socket| Path::new(socket).exists())
        .collect()
}

fn ports_of(database: &str, found: &mut Vec<String>) -> Result<()> {
    let ask = |arguments: &[&str]| {
        Program::new("ovs-vsctl")
            .args([&format!("--db=unix:{database}"), "--timeout=5"])
            .args(arguments)
            .deadline(Duration::from_secs(10))
            .output()
    };
    for bridge in ask(&["list-br"])?.lines() {
        found.extend(ask(&["list-ports", bridge])?.lines().map(|port| format!("{database}/{bridge}/{port}")));
    }
    Ok(())
}
