//! A small world for one test: a namespace that plays the host, and others that play pods, guests and peers. All of it
//! goes with the value, also when the test fails.

use std::fs::File;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use holdfast_net::desired::DesiredState;
use holdfast_net::kernel::{Wiring, WiringOptions};
use holdfast_net::model::{Attachment, AttachmentId, Backend, Bandwidth, IfName, StaticRoute};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use tempfile::TempDir;

/// A network namespace, held by a bind mount.
pub struct Netns {
    path: PathBuf,
}

impl Netns {
    fn new(path: PathBuf) -> Self {
        File::create(&path).unwrap();
        let target = path.clone();
        std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let own = Path::new("/proc/thread-self/ns/net");
            mount(Some(own), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        })
        .join()
        .unwrap();
        let netns = Self { path };
        netns.ip("link set lo up");
        netns
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Does something on a thread inside, and waits for it.
    pub fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        std::thread::scope(|scope| scope.spawn(|| self.enter_and(work)).join().unwrap())
    }

    /// Does something on a thread inside, and does not wait.
    pub fn start<R: Send + 'static>(&self, work: impl FnOnce() -> R + Send + 'static) -> std::thread::JoinHandle<R> {
        let handle = File::open(&self.path).unwrap();
        std::thread::spawn(move || {
            setns(handle, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        })
    }

    fn enter_and<R>(&self, work: impl FnOnce() -> R) -> R {
        setns(File::open(&self.path).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
        work()
    }

    /// Runs `ip` inside, for what the tests themselves need.
    pub fn ip(&self, arguments: &str) -> String {
        self.command(&format!("ip {arguments}"))
    }

    /// Runs a command inside; it must succeed.
    pub fn command(&self, line: &str) -> String {
        let mut words = line.split_whitespace();
        let output = self.run(|| Command::new(words.next().unwrap()).args(words).output().unwrap());
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Names of all links but `lo`, sorted.
    pub fn links(&self) -> Vec<String> {
        let listing = self.ip("-o link show");
        let mut names: Vec<String> = listing
            .lines()
            .filter_map(|line| line.split(": ").nth(1))
            .map(|name| name.split('@').next().unwrap().to_owned())
            .filter(|name| name != "lo")
            .collect();
        names.sort();
        names
    }

    /// Names of all nftables tables.
    pub fn tables(&self) -> String {
        self.command("nft list tables").trim().to_owned()
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        umount2(&self.path, MntFlags::MNT_DETACH).ok();
    }
}

/// The world.
pub struct World {
    pub host: Netns,
    pub dir: TempDir,
    name: String,
    count: AtomicU64,
}

impl World {
    pub fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("t{}x{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = tempfile::Builder::new().prefix("holdfast-net-").tempdir().unwrap();
        let host = Netns::new(dir.path().join("host"));
        Self { host, dir, name, count: AtomicU64::new(0) }
    }

    /// A further namespace.
    pub fn netns(&self) -> Netns {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        Netns::new(self.dir.path().join(format!("ns{number}")))
    }

    /// Runs a test's asynchronous part with a wiring whose host is this world's.
    pub fn wire<R: Send, F: Future<Output = R>>(
        &self,
        ovsdb: Option<&Path>,
        test: impl FnOnce(Wiring) -> F + Send,
    ) -> R {
        let options = WiringOptions { ovsdb: ovsdb.map(Path::to_owned) };
        self.host.run(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { test(Wiring::open(options).unwrap()).await })
        })
    }

    /// An attachment of a pod whose number is in its MAC and address.
    pub fn attachment(&self, pod: &Netns, number: u8, backend: Backend) -> Attachment {
        let container = pod.path().file_name().unwrap().to_string_lossy().into_owned();
        Attachment {
            id: AttachmentId { container_id: format!("{}-{container}", self.name), ifname: ifname("eth0") },
            netns: pod.path().to_owned(),
            backend,
            mac: format!("02:00:00:00:01:{number:02x}").parse().unwrap(),
            mtu: 1400,
            addresses: vec![format!("10.7.0.{number}/24").parse().unwrap()],
            routes: vec![StaticRoute {
                destination: "0.0.0.0/0".parse().unwrap(),
                gateway: Some("10.7.0.1".parse().unwrap()),
            }],
            owner: format!("default/pod{number}/net"),
            security: None,
            bandwidth: Bandwidth::default(),
        }
    }
}

pub fn ifname(name: &str) -> IfName {
    name.parse().unwrap()
}

/// Reconciles, and makes sure that nothing is left to do.
pub async fn settle(wiring: &Wiring, desired: &DesiredState) {
    wiring.reconcile(desired).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    let plan = wiring.plan(desired).await.unwrap();
    assert!(plan.is_empty(), "left to do:\n{plan}");
}

/// An error with all of its causes.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
