//! A sandbox such as a runtime would make, for one launcher: namespaces, an ordinary user, a tap.
//!
//! All of it hangs on one process, pid 1 of a pid namespace: when that ends, the kernel takes the rest away.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use holdfast_agent_api::frame;
use holdfast_agent_api::launcher::{DomainState, DomainStatus, Envelope, Event, Request, Response, Sync};
use holdfast_net::model::{DhcpV4, GuestNic};
use serde_json::{Value, json};

/// Longest wait for a condition: emulated guests on busy machines are slow.
pub const DEADLINE: Duration = Duration::from_secs(120);
pub const UID: &str = "6f2c9a6c-5b07-4e5f-9c1c-6a5b4c3d2e1f";
/// Makes what a runtime makes of a container's file system (a read-only root with empty volumes in the places of a
/// pod's), then becomes the launcher. $1: folder on the host.
const ENTER: &str = r#"
set -e
R=$1; shift
mount --make-rprivate /
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs $R/dev
for n in null zero full random urandom; do touch $R/dev/$n; mount --bind /dev/$n $R/dev/$n; done
mkdir $R/dev/net $R/dev/pts $R/dev/shm
mknod $R/dev/net/tun c 10 200; chmod 666 $R/dev/net/tun
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts $R/dev/pts; ln -s pts/ptmx $R/dev/ptmx
mount -t tmpfs -o mode=1777 tmpfs $R/dev/shm
mount --rbind $R/dev /dev
printf 'root:x:0:0::/:/bin/false\nqemu:x:107:107::/:/bin/false\n' > $R/passwd; mount --bind $R/passwd /etc/passwd
printf 'root:x:0:\nqemu:x:107:\n' > $R/group; mount --bind $R/group /etc/group
mount -t tmpfs tmpfs /run
mkdir -p /run/kubevirt /run/kubevirt-private /run/kubevirt-ephemeral-disks /run/libvirt
mount --bind $R/share /run/kubevirt
mount --bind $R/private /run/kubevirt-private
mount --bind $R/disks /run/kubevirt-ephemeral-disks
mount --bind $R/libvirt /run/libvirt
mount -o remount,ro /run
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -o remount,bind,ro /
ip link set lo up
ip tuntap add dev tap0 mode tap user 107 group 107
ip link set tap0 up
exec setpriv --reuid 107 --regid 107 --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all "$@"
"#;

pub struct Sandbox {
    folder: tempfile::TempDir,
    unshare: Child,
    /// The launcher's first process, as the host counts.
    pub pid: u32,
}

impl Sandbox {
    /// Starts a launcher for the VMI `name`; `prepare` may put files into the sandbox's folder before.
    pub fn start(name: &str, prepare: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::Builder::new().prefix("hfl").tempdir().unwrap();
        for (sub, owner) in [("dev", 0), ("share", 107), ("private", 107), ("disks", 107), ("libvirt", 107)] {
            std::fs::create_dir(folder.path().join(sub)).unwrap();
            std::os::unix::fs::chown(folder.path().join(sub), Some(owner), Some(owner)).unwrap();
        }
        std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        prepare(folder.path());
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let unshare = Command::new("unshare")
            .args([
                "--net",
                "--mount",
                "--pid",
                "--uts",
                "--ipc",
                "--fork",
                "--kill-child",
                "/bin/sh",
                "-c",
                ENTER,
                "sh",
            ])
            .arg(folder.path())
            .arg(env!("CARGO_BIN_EXE_virt-launcher"))
            .args(["--name", name, "--namespace", "default", "--uid", UID])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut sandbox = Self { folder, unshare, pid: 0 };
        let socket = sandbox.path("share/sockets/launcher.sock");
        sandbox.wait("the launcher listens", || UnixStream::connect(&socket).is_ok());
        let children = format!("/proc/{0}/task/{0}/children", sandbox.unshare.id());
        sandbox.pid = std::fs::read_to_string(children).unwrap().trim().parse().unwrap();
        sandbox
    }

    pub fn path(&self, inside: &str) -> PathBuf {
        self.folder.path().join(inside)
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Waits for a condition; shows the launcher's log where it does not come.
    pub fn wait(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let end = Instant::now() + DEADLINE;
        while !condition() {
            assert!(Instant::now() < end, "{what}: not within {DEADLINE:?}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.path("share/sockets/launcher.sock")).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    pub fn ask_with(&self, request: Request, sockets: &[OwnedFd]) -> Response {
        let stream = self.connect();
        let sockets: Vec<_> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
        let envelope = Envelope { version: holdfast_agent_api::PROTOCOL_VERSION, request };
        frame::send(&stream, &envelope, &sockets).unwrap();
        frame::receive(&stream).unwrap().0
    }

    pub fn ask(&self, request: Request) -> Response {
        self.ask_with(request, &[])
    }

    pub fn domain(&self) -> DomainStatus {
        match self.ask(Request::Domain) {
            Response::Domain(status) => *status,
            other => panic!("{other:?}\n{}", self.log()),
        }
    }

    /// Starts the domain of `vmi` with `nics`, each with a lease also with a DHCP socket.
    pub fn sync(&self, vmi: &Value, nics: &[GuestNic]) -> Response {
        let leased = nics.iter().filter(|nic| nic.dhcp_v4.is_some());
        let sockets: Vec<OwnedFd> = leased.map(|nic| self.packet_socket(nic.tap.as_str())).collect();
        let capabilities = Vec::new();
        let sync = Sync { vmi: vmi.clone(), nics: nics.to_vec(), emulation: true, capabilities };
        self.ask_with(Request::Sync(Box::new(sync)), &sockets)
    }

    pub fn run(&self, vmi: &Value, nics: &[GuestNic]) -> DomainStatus {
        match self.sync(vmi, nics) {
            Response::Domain(status) => {
                assert_eq!(status.state, DomainState::Running, "{}", self.log());
                *status
            }
            other => panic!("{other:?}\n{}", self.log()),
        }
    }

    pub fn watch(&self) -> Events {
        let stream = self.connect();
        let envelope = Envelope { version: holdfast_agent_api::PROTOCOL_VERSION, request: Request::Watch };
        frame::send(&stream, &envelope, &[]).unwrap();
        Events(stream)
    }

    /// A packet socket on a tap of the sandbox, as the agent would open it.
    fn packet_socket(&self, tap: &str) -> OwnedFd {
        let netns = std::fs::File::open(format!("/proc/{}/ns/net", self.pid)).unwrap();
        let tap = tap.to_owned();
        // On a thread of its own: the namespace goes with it.
        let open = move || {
            nix::sched::setns(&netns, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let index = nix::net::if_::if_nametoindex(tap.as_str()).unwrap();
            let protocol = (nix::libc::ETH_P_ALL as u16).to_be();
            // SAFETY: plain system calls on a descriptor and an address that live here.
            unsafe {
                let kind = nix::libc::SOCK_RAW | nix::libc::SOCK_CLOEXEC;
                let socket = nix::libc::socket(nix::libc::AF_PACKET, kind, i32::from(protocol));
                assert!(socket >= 0);
                let socket = OwnedFd::from_raw_fd(socket);
                let mut address: nix::libc::sockaddr_ll = std::mem::zeroed();
                address.sll_family = nix::libc::AF_PACKET as u16;
                address.sll_protocol = protocol;
                address.sll_ifindex = index as i32;
                let length = size_of_val(&address) as u32;
                assert_eq!(nix::libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length), 0);
                socket
            }
        };
        std::thread::spawn(open).join().unwrap()
    }

    /// All processes of the sandbox: pid on the host, name.
    pub fn processes(&self) -> Vec<(u32, String)> {
        let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let own = namespace(&self.pid.to_string());
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let pid = entry.file_name().to_string_lossy().into_owned();
            if pid.parse::<u32>().is_ok() && own.is_some() && namespace(&pid) == own {
                let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                found.push((pid.parse().unwrap(), name.trim().to_owned()));
            }
        }
        found
    }

    pub fn process(&self, name: &str) -> Option<u32> {
        self.processes().into_iter().find(|(_, found)| found.starts_with(name)).map(|(pid, _)| pid)
    }

    pub fn kill(&self, pid: u32, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), signal).unwrap();
    }

    /// Runs virsh inside, as the launcher's user.
    pub fn virsh(&self, arguments: &[&str]) -> String {
        let output = Command::new("nsenter")
            .args(["-t", &self.pid.to_string(), "-m", "-n", "-p", "-S", "107", "-G", "107", "virsh", "-c"])
            .arg("qemu+unix:///session?socket=/run/libvirt/run/libvirt/libvirt-sock&mode=legacy")
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "virsh {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What the guest has printed on its serial console.
    pub fn console(&self) -> String {
        let log = std::fs::read(self.path(&format!("private/{UID}/virt-serial0-log"))).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// The record of the VM's end, when the launcher has ended.
    pub fn end(&mut self) -> (ExitStatus, Value) {
        let end = Instant::now() + DEADLINE;
        let status = loop {
            if let Some(status) = self.unshare.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < end, "the launcher does not end\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        };
        let recorded = std::fs::read(self.path("share/final.json")).unwrap_or_default();
        (status, serde_json::from_slice(&recorded).unwrap_or(Value::Null))
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // Pid 1 of the namespace: the kernel ends all others with it.
        if self.pid != 0 && self.unshare.try_wait().is_ok_and(|status| status.is_none()) {
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid as i32), nix::sys::signal::Signal::SIGKILL);
        }
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
    }
}

/// A stream of events.
pub struct Events(UnixStream);

impl Events {
    pub fn next(&self) -> Event {
        frame::receive(&self.0).unwrap().0
    }

    /// Waits for an event of a kind and takes what it wants of it.
    pub fn until<T>(&self, mut pick: impl FnMut(&Event) -> Option<T>) -> T {
        loop {
            let event = self.next();
            if let Some(found) = pick(&event) {
                return found;
            }
        }
    }

    pub fn until_state(&self, wanted: impl Fn(&DomainState) -> bool) -> DomainState {
        self.until(|event| match event {
            Event::Domain(status) if wanted(&status.state) => Some(status.state.clone()),
            _ => None,
        })
    }
}

/// A NIC behind `tap0`, with the lease 10.0.2.2.
pub fn nic(name: &str) -> GuestNic {
    GuestNic {
        name: name.to_owned(),
        pod_interface: "eth0".parse().unwrap(),
        tap: "tap0".parse().unwrap(),
        mac: "02:00:00:00:00:01".parse().unwrap(),
        mtu: 1450,
        queues: 1,
        macvtap: false,
        dhcp_v4: Some(DhcpV4 {
            address: "10.0.2.2/24".parse().unwrap(),
            server: "10.0.2.1".parse().unwrap(),
            router: Some("10.0.2.1".parse().unwrap()),
            dns: vec!["10.96.0.10".parse().unwrap()],
            search: vec!["default.svc.cluster.local".to_owned()],
            routes: Vec::new(),
            hostname: Some("guest".to_owned()),
            lease_seconds: 86400,
        }),
        addresses: vec!["10.0.2.2/24".parse().unwrap()],
    }
}

/// A VMI with a NIC and the disks of `volumes`, each on virtio.
pub fn vmi(name: &str, volumes: Value) -> Value {
    let disks = volumes.as_array().unwrap().iter();
    let disks: Vec<Value> = disks.map(|volume| json!({"name": volume["name"], "disk": {"bus": "virtio"}})).collect();
    json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
        "metadata": {"name": name, "namespace": "default", "uid": UID},
        "spec": {
            "domain": {
                "cpu": {"cores": 1, "sockets": 1, "threads": 1, "maxSockets": 1},
                "memory": {"guest": "128Mi"},
                "machine": {"type": "q35"},
                "devices": {
                    "disks": disks, "rng": {},
                    "interfaces": [{"name": "default", "masquerade": {}, "macAddress": "02:00:00:00:00:01"}],
                },
            },
            "networks": [{"name": "default", "pod": {}}],
            "volumes": volumes,
        },
    })
}

/// Puts the test guest's disk into the sandbox as the containerDisk `volume`.
pub fn put_guest(folder: &Path, volume: &str) {
    let disk = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/guest/disk.qcow2");
    assert!(disk.exists(), "there is no test guest: run `cargo xtask guest` first");
    std::fs::create_dir_all(folder.join("share/container-disks")).unwrap();
    std::fs::copy(disk, folder.join(format!("share/container-disks/{volume}.img"))).unwrap();
}
