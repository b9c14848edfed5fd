//! The demo's Open vSwitch: its own daemons with their own folders, in the node's namespace, in user space.

use std::path::PathBuf;

use anyhow::Result;

use super::world::{DEADLINE, World, inside, ip};
use crate::process::{self, Program};

/// The underlay's bridge.
pub const BRIDGE: &str = "br-lan";

/// The socket of its database.
pub fn database(world: &World<'_>) -> PathBuf {
    world.ovs().join("db.sock")
}

/// Starts it, with the bridge and the uplink in it.
pub fn start(world: &World<'_>) -> Result<()> {
    let node = world.node();
    let path = |name: &str| world.ovs().join(name).display().to_string();
    Program::new("ovsdb-tool")
        .args(["create", &path("conf.db"), "/usr/share/openvswitch/vswitch.ovsschema"])
        .output()?;
    let daemon = |name: &str| {
        inside(&node, name)
            .args(["--detach", "--no-chdir", &format!("--pidfile={}", path(&format!("{name}.pid")))])
            .args([
                format!("--log-file={}", path(&format!("{name}.log"))),
                format!("--unixctl={}", path(&format!("{name}.ctl"))),
            ])
            .env("OVS_RUNDIR", world.ovs())
            .deadline(DEADLINE)
    };
    daemon("ovsdb-server").args([path("conf.db"), format!("--remote=punix:{}", path("db.sock"))]).output()?;
    let database = format!("unix:{}", path("db.sock"));
    let vsctl = |arguments: &[&str]| {
        Program::new("ovs-vsctl").args([&format!("--db={database}"), "--timeout=10"]).args(arguments).output()
    };
    vsctl(&["--no-wait", "init"])?;
    daemon("ovs-vswitchd").args([&database]).output()?;
    vsctl(&[
        "add-br",
        BRIDGE,
        "--",
        "set",
        "bridge",
        BRIDGE,
        "datapath_type=netdev",
        "--",
        "add-port",
        BRIDGE,
        "uplink0",
    ])?;
    ip(&["-n", &node, "link", "set", BRIDGE, "up"])
}

/// The ports of the underlay's bridge, a line each.
pub fn ports(world: &World<'_>) -> Result<String> {
    let database = format!("--db=unix:{}", database(world).display());
    Program::new("ovs-vsctl").args([&database, "--timeout=10", "list-ports", BRIDGE]).output()
}

/// Stops it; one that does not run is as good.
pub fn stop(world: &World<'_>) -> Result<()> {
    for name in ["ovs-vswitchd", "ovsdb-server"] {
        process::end_by_pidfile(&world.ovs().join(format!("{name}.pid")), name, DEADLINE)?;
    }
    Ok(())
}
