//! A node made for one test: a network namespace with an agent in it, bridges, pods, Open vSwitch.
//!
//! Everything is in a folder of its own and goes when the host is dropped, also after a panic. The agent runs on
//! a runtime whose threads were all born in the host's namespace.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use holdfast_agent::workloads::{PlainPods, Workloads};
use holdfast_agent::{Agent, AgentOptions, HttpAddress, StartError};
use holdfast_ipam::leases::{FileStore, LeaseStore};
use holdfast_ipam::network::Networks;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::ovs::Ovs;

/// How long anything may take to come about.
pub const DEADLINE: Duration = Duration::from_secs(20);

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A name that nothing else on the machine has.
pub fn unique(prefix: &str) -> String {
    format!("{prefix}{}x{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed))
}

/// A network namespace, bound to a path for as long as this lives.
pub struct Netns {
    pub path: PathBuf,
}

impl Netns {
    /// Makes a namespace with its loopback up and binds it to `path`.
    pub fn at(path: &Path) -> Self {
        File::create(path).unwrap();
        let at = path.to_owned();
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            mount(Some("/proc/thread-self/ns/net"), &at, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        })
        .join()
        .unwrap();
        let netns = Self { path: path.to_owned() };
        netns.run("ip link set lo up");
        netns
    }

    /// Runs a command line in the namespace; its standard output.
    pub fn run(&self, line: &str) -> String {
        let output = self.command(line).output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs `work` on a thread in the namespace; a socket that it makes stays there.
    pub fn inside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let path = self.path.clone();
        let there = move || {
            setns(File::open(path).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
            work()
        };
        thread::spawn(there).join().unwrap()
    }

    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path.display())).arg("--").args(line.split_whitespace());
        command
    }

    /// What `ip -j` prints.
    pub fn ip(&self, line: &str) -> Vec<Value> {
        let text = self.run(&format!("ip -j {line}"));
        if text.trim().is_empty() { Vec::new() } else { serde_json::from_str(&text).unwrap() }
    }

    /// Names of the links but for the loopback, sorted.
    pub fn links(&self) -> Vec<String> {
        let links = self.ip("link show");
        let mut names: Vec<_> = links.iter().map(|link| link["ifname"].as_str().unwrap().to_owned()).collect();
        names.retain(|name| name != "lo");
        names.sort();
        names
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = umount2(&self.path, MntFlags::MNT_DETACH);
        let _ = fs::remove_file(&self.path);
    }
}

/// A node.
pub struct Host {
    runtime: Option<Runtime>,
    agent: Option<Agent>,
    pub leases: Option<FileStore>,
    pub networks: Networks,
    /// How often its agent compares everything with the kernel.
    pub resync: Duration,
    ovs: Option<Ovs>,
    pub netns: Netns,
    // Last, as the namespace is bound in it.
    pub folder: tempfile::TempDir,
}

impl Host {
    /// A node with a Linux bridge `br0`, and no agent yet.
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix(&unique("hfcni-")).tempdir().unwrap();
        let netns = Netns::at(&folder.path().join("host"));
        netns.run("ip link add br0 type bridge");
        netns.run("ip link set br0 up");
        let (_, networks) = watch::channel(Arc::new(BTreeMap::new()));
        let resync = Duration::from_millis(200);
        Self { folder, netns, runtime: None, agent: None, leases: None, networks, resync, ovs: None }
    }

    /// A node with an agent.
    pub fn started() -> Self {
        let mut host = Self::new();
        host.start();
        host
    }

    /// A node with an agent and an OVS bridge `ovs0`.
    pub fn with_ovs() -> Self {
        let mut host = Self::new();
        host.add_ovs();
        host.start();
        host
    }

    /// Gives it an OVS bridge `ovs0`, before its agent starts.
    pub fn add_ovs(&mut self) {
        self.ovs = Some(Ovs::on(self));
    }

    pub fn ovs(&self) -> &Ovs {
        self.ovs.as_ref().unwrap()
    }

    pub fn stop_ovs(&mut self) {
        self.ovs.as_mut().unwrap().stop();
    }

    /// Starts it again, on the database that it had.
    pub fn start_ovs(&mut self) {
        self.ovs.as_mut().unwrap().start(&self.netns);
    }

    /// The same, on an empty one: what a node has after somebody removed the file.
    pub fn start_ovs_anew(&mut self) {
        self.ovs.as_mut().unwrap().start_anew(&self.netns);
    }

    /// Removes the bridge that networks on this backend name.
    pub fn remove_bridge(&self, backend: &str) {
        match backend {
            "ovs" => drop(self.ovs().vsctl("del-br ovs0").unwrap()),
            _ => drop(self.netns.run("ip link del br0")),
        }
    }

    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("run/cni.sock")
    }

    pub fn http(&self) -> PathBuf {
        self.folder.path().join("http.sock")
    }

    /// Starts the agent.
    pub fn start(&mut self) {
        self.start_with(Arc::new(PlainPods));
    }

    /// Starts the agent over these workloads.
    pub fn start_with(&mut self, workloads: Arc<dyn Workloads>) {
        self.start_over(workloads, |store| Arc::new(store));
    }

    /// Starts the agent over these workloads, with its leases behind `store`.
    pub fn start_over(&mut self, workloads: Arc<dyn Workloads>, store: impl FnOnce(FileStore) -> Arc<dyn LeaseStore>) {
        assert!(self.agent.is_none());
        let runtime = self
            .netns
            .inside(|| tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap());
        let mut agent = None;
        let leases = FileStore::open(&self.state().join("leases")).unwrap();
        let options = || AgentOptions {
            node: "node-1".into(),
            node_labels: BTreeMap::new(),
            state: self.state(),
            run: self.folder.path().join("run"),
            ovsdb: self.ovs.as_ref().map(Ovs::socket),
            http: Some(HttpAddress::Unix(self.http())),
            quarantine: Duration::from_millis(300),
            resync: self.resync,
        };
        let store = store(leases.clone());
        eventually("the agent starts", || {
            let (options, store, workloads, networks) =
                (options(), store.clone(), workloads.clone(), self.networks.clone());
            match on(&runtime, async move { Agent::start(options, store, workloads, networks).await }) {
                Ok(started) => agent = Some(started),
                // Of an agent that was killed just now, a process that a test is about to execute may have the locks.
                Err(error @ (StartError::NamespaceTaken | StartError::Locked(_))) => return Err(error.to_string()),
                Err(error) => panic!("{error}"),
            }
            Ok(())
        });
        self.agent = agent;
        self.leases = Some(leases);
        self.runtime = Some(runtime);
    }

    /// Ends the agent as SIGTERM does.
    pub fn stop(&mut self) {
        if let (Some(runtime), Some(agent)) = (self.runtime.take(), self.agent.take()) {
            on(&runtime, agent.stop());
            self.forget(runtime);
        }
    }

    /// Ends the agent as SIGKILL does: at whatever await it is.
    pub fn kill(&mut self) {
        let runtime = self.runtime.take().unwrap();
        // The tasks go first, or the agent's end would let them go on.
        self.forget(runtime);
        self.agent = None;
    }

    fn forget(&mut self, runtime: Runtime) {
        runtime.shutdown_timeout(Duration::from_secs(10));
        self.leases = None;
    }

    /// A pod's namespace.
    pub fn pod(&self) -> Netns {
        Netns::at(&self.folder.path().join(unique("pod")))
    }

    /// Names of the host ends of our veths.
    pub fn host_ends(&self) -> Vec<String> {
        let mut links = self.netns.links();
        links.retain(|name| name.starts_with("hf"));
        links
    }

    /// Waits until nothing of ours is left: link, OVS port, record, lease.
    pub fn assert_clean(&self) {
        eventually("nothing is left", || {
            let mut left = self.host_ends();
            left.extend(self.ovs.iter().flat_map(Ovs::ports));
            for folder in ["attachments", "leases/ipleases", "leases/macleases"] {
                left.extend(files(&self.state().join(folder)));
            }
            left.extend(files(&self.folder.path().join("run/deleted")));
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        });
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.stop();
        } else if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn on<T: Send + 'static>(runtime: &Runtime, future: impl Future<Output = T> + Send + 'static) -> T {
    let (send, receive) = mpsc::channel();
    // Spawned, not blocked on: it shall run on a thread of the host's namespace.
    runtime.spawn(async move {
        let _ = send.send(future.await);
    });
    receive.recv_timeout(3 * DEADLINE).unwrap()
}

/// Names of the files in a folder, without hidden ones; none where it is not there.
pub fn files(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| !name.starts_with('.')).collect()
}

/// Waits for `check`, and fails with what it says last.
pub fn eventually(what: &str, mut check: impl FnMut() -> Result<(), String>) {
    let start = Instant::now();
    loop {
        match check() {
            Ok(()) => return,
            Err(why) if start.elapsed() > DEADLINE => panic!("{what}: {why}"),
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
}
