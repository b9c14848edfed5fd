//! An Open vSwitch for one host.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::host::{Host, Netns, eventually};

/// Open vSwitch with a userspace datapath, in the host's namespace.
pub struct Ovs {
    folder: PathBuf,
    daemons: Vec<Child>,
}

impl Ovs {
    pub fn on(host: &Host) -> Self {
        let folder = host.folder.path().join("ovs");
        fs::create_dir(&folder).unwrap();
        let mut ovs = Self { folder, daemons: Vec::new() };
        ovs.start_anew(&host.netns);
        ovs
    }

    /// Starts its daemons on an empty database, and makes the bridge.
    pub fn start_anew(&mut self, netns: &Netns) {
        let database = self.folder.join("conf.db");
        let _ = fs::remove_file(&database);
        let made = Command::new("ovsdb-tool").arg("create").arg(&database).arg(SCHEMA).status().unwrap();
        assert!(made.success());
        self.start(netns);
        self.add_bridge(netns);
    }

    /// Makes the bridge.
    pub fn add_bridge(&self, netns: &Netns) {
        self.vsctl("--timeout=15 add-br ovs0 -- set bridge ovs0 datapath_type=netdev").unwrap();
        netns.run("ip link set ovs0 up");
    }

    /// Asks the bridge's switch.
    pub fn ofctl(&self, verb: &str, rest: &str) -> String {
        let mut command = Command::new("ovs-ofctl");
        command.args(["-O", "OpenFlow13", verb]).arg(format!("unix:{}/ovs0.mgmt", self.folder.display()));
        let output = command.args(rest.split_whitespace()).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// Starts its daemons, on the database that is there.
    pub fn start(&mut self, netns: &Netns) {
        let (database, socket) = (self.folder.join("conf.db"), self.socket());
        self.daemon(netns, &format!("ovsdb-server {} --remote=punix:{}", database.display(), socket.display()));
        eventually("ovsdb-server listens", || self.vsctl("--no-wait init").map(|_| ()));
        self.daemon(netns, &format!("ovs-vswitchd unix:{}", socket.display()));
    }

    /// Ends them.
    pub fn stop(&mut self) {
        // vswitchd first: it would only complain about its database.
        for mut daemon in self.daemons.drain(..).rev() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }

    fn daemon(&mut self, netns: &Netns, line: &str) {
        let name = line.split_whitespace().next().unwrap();
        let folder = self.folder.display();
        let line =
            format!("{line} --unixctl={folder}/{name}.ctl --log-file={folder}/{name}.log -vconsole:off -vsyslog:off");
        let mut command = netns.command(&line);
        for variable in ["OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR", "OVS_SYSCONFDIR"] {
            command.env(variable, &self.folder);
        }
        self.daemons.push(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.join("db.sock")
    }

    pub fn vsctl(&self, line: &str) -> Result<String, String> {
        let mut command = Command::new("ovs-vsctl");
        command.arg(format!("--db=unix:{}", self.socket().display())).arg("--timeout=10").args(line.split_whitespace());
        let output = command.env("OVS_RUNDIR", &self.folder).output().unwrap();
        if output.status.success() {
            Ok(String::from_utf8(output.stdout).unwrap().trim().to_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// Ports of the bridge; none where there is no bridge, or no Open vSwitch.
    pub fn ports(&self) -> Vec<String> {
        if self.daemons.is_empty() || self.vsctl("br-exists ovs0").is_err() {
            return Vec::new();
        }
        self.vsctl("list-ports ovs0").unwrap().lines().map(str::to_owned).collect()
    }
}

/// Where Debian keeps the schema of Open vSwitch's database.
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

impl Drop for Ovs {
    fn drop(&mut self) {
        self.stop();
    }
}
