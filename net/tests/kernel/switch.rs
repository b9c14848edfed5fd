//! An Open vSwitch of a test's own: database, switch and folders; userspace datapath.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::world::World;

/// How long a daemon may take to be there.
const DEADLINE: Duration = Duration::from_secs(20);

pub struct Switch<'a> {
    world: &'a World,
    dir: PathBuf,
    daemons: Vec<Child>,
}

impl<'a> Switch<'a> {
    /// Starts a switch in the world's host namespace, with the bridge `br0`.
    pub fn start(world: &'a World) -> Self {
        let dir = world.dir.path().join("ovs");
        std::fs::create_dir(&dir).unwrap();
        let database = dir.join("conf.db");
        let tool = Command::new("ovsdb-tool")
            .args(["create".as_ref(), database.as_os_str(), "/usr/share/openvswitch/vswitch.ovsschema".as_ref()])
            .status();
        assert!(tool.unwrap().success(), "ovsdb-tool");
        let mut switch = Self { world, dir, daemons: Vec::new() };
        switch.boot();
        switch.vsctl("--no-wait init");
        switch.vsctl("add-br br0 -- set bridge br0 datapath_type=netdev");
        switch
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.join("db.sock")
    }

    /// Starts both daemons.
    pub fn boot(&mut self) {
        let socket = self.socket();
        let remote = format!("--remote=punix:{}", socket.display());
        self.daemon("ovsdb-server", &[&self.dir.join("conf.db").display().to_string(), &remote]);
        let until = Instant::now() + DEADLINE;
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            assert!(Instant::now() < until, "ovsdb-server does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        self.daemon("ovs-vswitchd", &[&format!("unix:{}", socket.display())]);
    }

    fn daemon(&mut self, name: &str, arguments: &[&str]) {
        let file = |suffix: &str| self.dir.join(format!("{name}.{suffix}"));
        let child = self.world.host.run(|| {
            Command::new(name)
                .args(arguments)
                .arg(format!("--log-file={}", file("log").display()))
                .arg(format!("--unixctl={}", file("ctl").display()))
                .arg("-vconsole:off")
                .env("OVS_RUNDIR", &self.dir)
                .env("OVS_LOGDIR", &self.dir)
                .env("OVS_DBDIR", &self.dir)
                .stdin(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        });
        self.daemons.push(child);
    }

    /// Ends both daemons, as a crash would.
    pub fn kill(&mut self) {
        for mut daemon in self.daemons.drain(..).rev() {
            daemon.kill().ok();
            daemon.wait().ok();
        }
    }

    /// Runs ovs-vsctl; it waits until the switch has done what it says.
    pub fn vsctl(&self, arguments: &str) -> String {
        self.world.host.command(&format!("ovs-vsctl --timeout=20 --db=unix:{} {arguments}", self.socket().display()))
    }

    /// Runs ovs-ofctl.
    pub fn ofctl(&self, arguments: &str) -> String {
        let (command, rest) = arguments.split_once(' ').unwrap();
        let rest = rest.replacen("br0", &self.dir.join("br0.mgmt").display().to_string(), 1);
        self.world.host.command(&format!("ovs-ofctl --timeout=20 {command} unix:{rest}"))
    }

    /// The flows of `br0`.
    pub fn flows(&self) -> Vec<String> {
        self.ofctl("dump-flows br0").lines().filter(|line| line.contains("cookie=")).map(str::to_owned).collect()
    }

    /// Names of the ports of `br0`.
    pub fn ports(&self) -> Vec<String> {
        self.vsctl("list-ports br0").lines().map(str::to_owned).collect()
    }
}

impl Drop for Switch<'_> {
    fn drop(&mut self) {
        self.kill();
    }
}
