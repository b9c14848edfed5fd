//! A host of a test's own: network and mount namespaces, folders, a switch, a machine on the wire, holdfastd in it.
//!
//! Everything that is made here goes when the value is dropped, also after a failure.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long something that takes a boot may take on a machine that is busy.
pub const LONG: Duration = Duration::from_secs(90);

/// A namespace of processes' own network and mounts, held by a process that waits.
pub struct Namespace(Child);

impl Namespace {
    pub fn new() -> Self {
        let child = Command::new("unshare")
            .args([
                "-n",
                "-m",
                "--propagation",
                "private",
                "sh",
                "-c",
                "ip link set lo up && echo up && exec sleep 3600",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut namespace = Self(child);
        let mut word = [0; 3];
        std::io::Read::read_exact(namespace.0.stdout.as_mut().unwrap(), &mut word).unwrap();
        namespace
    }

    /// A command in the namespace.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-n", "-m", "-t", &self.0.id().to_string(), "--"]).arg(program);
        command
    }

    /// Runs a shell line that must succeed; returns what it prints.
    pub fn sh(&self, line: &str) -> String {
        let output = self.command("sh").args(["-c", line]).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{line}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }

    /// Whether a shell line succeeds.
    pub fn try_sh(&self, line: &str) -> bool {
        self.command("sh").args(["-c", line]).output().unwrap().status.success()
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// The programs that belong to holdfastd, built once.
fn programs() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let run = |arguments: &[&str]| {
            let status = Command::new(env!("CARGO")).args(arguments).status().unwrap();
            assert!(status.success(), "cargo {arguments:?}");
        };
        // In a lane they are built before: there is nothing to build with.
        if std::env::var_os("HOLDFAST_LANE").is_none() {
            run(&["build", "--quiet", "-p", "holdfast-launcher", "-p", "holdfast-cni", "-p", "holdfast-cli"]);
            run(&["run", "--quiet", "-p", "xtask", "--", "guest"]);
        }
        Path::new(env!("CARGO_BIN_EXE_holdfastd")).parent().unwrap().to_owned()
    })
}

/// A host with a network `lan` (192.0.2.0/24) whose wire leads to a machine at 192.0.2.1.
pub struct World {
    holdfastd: Option<Child>,
    pub machine: Namespace,
    pub host: Namespace,
    switch: Vec<Child>,
    folder: tempfile::TempDir,
}

impl World {
    pub fn new() -> Self {
        programs();
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = tempfile::Builder::new().prefix(&format!("hfd{count}")).tempdir_in("/tmp").unwrap();
        for name in ["m", "s", "r", "ovs"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let (host, machine) = (Namespace::new(), Namespace::new());
        let mut world = Self { holdfastd: None, machine, host, switch: Vec::new(), folder };
        world.make_lan();
        world.start();
        world
    }

    fn make_lan(&mut self) {
        let folder = self.folder.path().join("ovs");
        let at = |name: &str| folder.join(name).display().to_string();
        self.host.sh(&format!("ovsdb-tool create {} /usr/share/openvswitch/vswitch.ovsschema", at("conf.db")));
        self.start_switch();
        self.host.sh(&format!(
            "ip link add up0 type veth peer name wire netns {}; ip link set up0 up; ethtool -K up0 tx off >/dev/null",
            self.machine.pid()
        ));
        self.machine.sh("ip addr add 192.0.2.1/24 dev wire; ip link set wire up; ethtool -K wire tx off >/dev/null");
        self.vsctl("--no-wait init");
        self.vsctl("add-br br-lan -- set bridge br-lan datapath_type=netdev -- add-port br-lan up0");
    }

    fn start_switch(&mut self) {
        let folder = self.folder.path().join("ovs");
        let at = |name: &str| folder.join(name).display().to_string();
        self.daemon("ovsdb-server", &[&at("conf.db"), &format!("--remote=punix:{}", at("db.sock"))]);
        eventually("ovsdb-server listens", LONG, || folder.join("db.sock").exists().then_some(()));
        self.start_vswitchd();
    }

    fn start_vswitchd(&mut self) {
        let socket = self.folder.path().join("ovs/db.sock");
        self.daemon("ovs-vswitchd", &[&format!("unix:{}", socket.display())]);
    }

    /// The switch dies, alone or with its database, and comes back.
    pub fn restart_switch(&mut self, with_database: bool) {
        let first = usize::from(!with_database);
        for mut daemon in self.switch.drain(first..).rev() {
            daemon.kill().unwrap();
            daemon.wait().unwrap();
        }
        if with_database {
            fs::remove_file(self.folder.path().join("ovs/db.sock")).unwrap();
            self.start_switch();
        } else {
            self.start_vswitchd();
        }
    }

    /// The flows of `br-lan`.
    pub fn flows(&self) -> Vec<String> {
        let bridge = self.path("ovs/br-lan.mgmt");
        let flows = self.host.command("ovs-ofctl").arg("dump-flows").arg(format!("unix:{}", bridge.display())).output();
        let flows = String::from_utf8(flows.unwrap().stdout).unwrap();
        flows.lines().filter(|line| line.contains("cookie=")).map(str::to_owned).collect()
    }

    fn daemon(&mut self, name: &str, arguments: &[&str]) {
        let folder = self.folder.path().join("ovs");
        let child = self
            .host
            .command(name)
            .args(arguments)
            .arg(format!("--log-file={}/{name}.log", folder.display()))
            .arg(format!("--unixctl={}/{name}.ctl", folder.display()))
            .arg("-vconsole:off")
            .env("OVS_RUNDIR", &folder)
            .env("OVS_LOGDIR", &folder)
            .env("OVS_DBDIR", &folder)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        self.switch.push(child);
    }

    pub fn vsctl(&self, arguments: &str) -> String {
        self.host
            .sh(&format!("ovs-vsctl --timeout=20 --db=unix:{}/ovs/db.sock {arguments}", self.folder.path().display()))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts holdfastd, with the pod network of the file `pods.json` where there is one, and waits until it answers.
    pub fn start(&mut self) {
        let pods = self.path("pods.json");
        let log = fs::OpenOptions::new().append(true).create(true).open(self.path("log")).unwrap();
        let child = self
            .host
            .command(env!("CARGO_BIN_EXE_holdfastd"))
            .arg("--manifests")
            .arg(self.path("m"))
            .arg("--state")
            .arg(self.path("s"))
            .arg("--run")
            .arg(self.path("r"))
            .arg("--ovsdb")
            .arg(self.path("ovs/db.sock"))
            .args(["--emulation", "always", "--quarantine", "1", "--node", "here"])
            .args(pods.exists().then(|| format!("--pod-network={}", pods.display())))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.holdfastd = Some(child);
        eventually("holdfastd answers", LONG, || self.virtctl(&["get", "vm"]).status.success().then_some(()));
    }

    /// Ends holdfastd as a crash would.
    pub fn kill(&mut self) {
        let mut child = self.holdfastd.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Asks holdfastd to end, and waits for it.
    pub fn stop(&mut self) {
        let mut child = self.holdfastd.take().unwrap();
        let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        let status = eventually("holdfastd ends", LONG, || child.try_wait().unwrap());
        assert!(status.success(), "{status}");
    }

    pub fn write(&self, file: &str, text: &str) {
        fs::write(self.path("m").join(file), text).unwrap();
    }

    pub fn remove(&self, file: &str) {
        fs::remove_file(self.path("m").join(file)).unwrap();
    }

    pub fn virtctl(&self, arguments: &[&str]) -> Output {
        self.host
            .command(programs().join("virtctl"))
            .arg("--standalone")
            .arg("--run")
            .arg(self.path("r"))
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Runs virtctl, which must succeed; returns its standard output.
    pub fn must(&self, arguments: &[&str]) -> String {
        let output = self.virtctl(arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "virtctl {arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    pub fn get(&self, kind: &str, name: &str) -> Option<Value> {
        let output = self.virtctl(&["get", kind, name, "-o", "json"]);
        output.status.success().then(|| serde_json::from_slice(&output.stdout).unwrap())
    }

    /// Waits until a VMI runs and is ready; returns it. `not` is a uid that it must not have.
    pub fn running(&self, name: &str, not: Option<&str>) -> Value {
        eventually(&format!("{name} runs"), LONG, || {
            let vmi = self.get("vmi", name)?;
            let ready =
                vmi["status"]["conditions"].as_array()?.iter().any(|c| c["type"] == "Ready" && c["status"] == "True");
            let other = not.is_none_or(|uid| vmi["metadata"]["uid"] != uid);
            (vmi["status"]["phase"] == "Running" && ready && other).then_some(vmi)
        })
    }

    /// Waits for a condition of an object; returns its message.
    pub fn condition(&self, kind: &str, name: &str, condition: &str, reason: &str) -> String {
        eventually(&format!("{kind} {name} has {condition} with {reason}"), LONG, || {
            let object = self.get(kind, name)?;
            let found = object["status"]["conditions"].as_array()?.iter().find(|c| c["type"] == condition)?.clone();
            (found["reason"] == reason).then(|| found["message"].as_str().unwrap_or_default().to_owned())
        })
    }

    /// Waits until the machine on the wire gets answers to ping and HTTP from an address.
    pub fn answers(&self, address: &str) {
        self.answers_from(&self.machine, address);
    }

    /// The same from where an address is reached.
    pub fn answers_from(&self, from: &Namespace, address: &str) {
        let request = format!(
            "exec 3<>/dev/tcp/{address}/80 && printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3 && timeout 2 grep -q '200 OK' <&3"
        );
        eventually(&format!("{address} answers"), LONG, || {
            let ping = from.try_sh(&format!("busybox ping -q -c 1 -W 1 {address}"));
            let http = ping && from.command("bash").args(["-c", &request]).output().unwrap().status.success();
            http.then_some(())
        });
    }

    /// What a guest has printed on its serial console so far.
    pub fn guest_log(&self, uid: &str) -> String {
        let folder = self.path("s/vms").join(uid).join("private").join(uid);
        let bytes = fs::read(folder.join("virt-serial0-log")).unwrap();
        String::from_utf8_lossy(&bytes).replace('\r', "")
    }

    /// What a test leaves on its host, if anything: links, tables, namespaces, processes, files, control groups.
    pub fn leftovers(&self) -> Vec<String> {
        let mut found = Vec::new();
        let links = self.host.sh("ip -o link | cut -d' ' -f2");
        let known = ["lo:", "up0@", "br-lan:", "ovs-netdev:"];
        found.extend(
            links.lines().filter(|link| !known.iter().any(|k| link.starts_with(k))).map(|l| format!("link {l}")),
        );
        found.extend(self.host.sh("nft list tables").lines().map(|table| format!("nft {table}")));
        let ports = self.vsctl("list-ports br-lan");
        found.extend(ports.lines().filter(|port| *port != "up0").map(|port| format!("OVS port {port}")));
        let run = self.path("r").display().to_string();
        found.extend(
            self.host.sh("cat /proc/self/mounts").lines().filter(|m| m.contains(&run)).map(|m| format!("mount {m}")),
        );
        for folder in [
            "r/netns",
            "s/vms",
            "s/attachments",
            "s/bindings",
            "s/revisions",
            "s/leases/ipleases",
            "s/leases/macleases",
        ] {
            let entries = fs::read_dir(self.path(folder)).into_iter().flatten().flatten();
            found.extend(entries.map(|entry| format!("file {}", entry.path().display())));
        }
        for process in processes_of(&self.path("s")) {
            found.push(format!("process {process}"));
        }
        found
    }

    /// The launchers' processes, by pid.
    pub fn launchers(&self) -> Vec<i32> {
        let folders = fs::read_dir(self.path("s/vms")).into_iter().flatten().flatten();
        let pid = |folder: fs::DirEntry| {
            let record: Value = serde_json::from_slice(&fs::read(folder.path().join("sandbox.json")).ok()?).ok()?;
            i32::try_from(record["launcher"]["pid"].as_i64()?).ok()
        };
        folders.filter_map(pid).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let text = fs::read_to_string(self.path("log")).unwrap_or_default();
            let start = text.len().saturating_sub(6000);
            eprintln!("--- log\n{}", text.get(start..).unwrap_or(&text));
            eprintln!("{}", String::from_utf8_lossy(&self.virtctl(&["get", "vm,vmi,events"]).stdout));
        }
        if let Some(child) = &mut self.holdfastd {
            child.kill().ok();
            child.wait().ok();
        }
        for pid in self.launchers() {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).ok();
        }
        for daemon in self.switch.iter_mut().rev() {
            daemon.kill().ok();
            daemon.wait().ok();
        }
        let folders = fs::read_dir(self.path("s/vms")).into_iter().flatten().flatten();
        for uid in folders.filter_map(|folder| folder.file_name().into_string().ok()) {
            for hierarchy in ["/sys/fs/cgroup/memory", "/sys/fs/cgroup/pids", "/sys/fs/cgroup"] {
                remove_group(&Path::new(hierarchy).join("holdfast").join(&uid));
            }
        }
    }
}

/// Removes a control group; the processes that were killed in it take a moment to go.
fn remove_group(group: &Path) {
    let start = Instant::now();
    while fs::remove_dir(group).is_err_and(|error| error.kind() == std::io::ErrorKind::ResourceBusy) {
        if start.elapsed() > LONG {
            eprintln!("{} stays busy", group.display());
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Processes that use a folder: as root, or by a descriptor or mapping in it.
fn processes_of(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().replace('\0', " ");
        let needle = format!("{}/vms", folder.display());
        if mounts.contains(&needle) && command.contains("virt-launcher") {
            found.push(format!("{pid} {command}"));
        }
    }
    found
}

/// Waits until `look` finds something; fails with the name of what it waited for.
pub fn eventually<T>(what: &str, deadline: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + deadline;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "{what}: not within {} s", deadline.as_secs());
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The network `lan` and the way to it.
pub const LAN: &str = r#"
apiVersion: holdfast.io/v1alpha1
kind: UnderlayNetwork
metadata:
  name: lan
spec:
  backend: ovs
  bridge: br-lan
  datapath: netdev
  subnets:
  - cidr: 192.0.2.0/24
    gateway: 192.0.2.1
    ranges:
    - {start: 192.0.2.100, end: 192.0.2.120}
---
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata:
  name: lan
spec:
  config: '{"cniVersion": "1.0.0", "type": "holdfast", "network": "lan"}'
"#;

/// Where examples and documents have the test guest.
pub const IMAGE: &str = "oci:/usr/local/share/holdfast/guest";

/// Where it is here.
pub fn image() -> String {
    format!("oci:{}", Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("target/guest/oci").display())
}

/// A VM with a NIC on the pod network and one on `lan`.
pub fn vm(name: &str, strategy: &str, annotation: &str, network: &str) -> String {
    format!(
        r#"
apiVersion: kubevirt.io/v1
kind: VirtualMachine
metadata:
  name: {name}
spec:
  runStrategy: {strategy}
  template:
    metadata:
      annotations: {annotation}
    spec:
      domain:
        memory: {{guest: 128Mi}}
        devices:
          disks:
          - {{name: root, disk: {{bus: virtio}}}}
          interfaces:
          - {{name: default, masquerade: {{}}}}
          - {{name: lan, bridge: {{}}}}
      networks:
      - {{name: default, pod: {{}}}}
      - {{name: lan, multus: {{networkName: {network}}}}}
      terminationGracePeriodSeconds: 5
      volumes:
      - name: root
        containerDisk: {{image: "{}"}}
"#,
        image()
    )
}
