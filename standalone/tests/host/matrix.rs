//! The matrix: each way of attaching a NIC that a kernel can carry, by a guest that boots. Of each row, in each IP
//! family: the guest got its address and its MTU, frames of that size arrive whole, and 100 MB by TCP arrive as they were
//! sent: to the guest by IPv4, from it by IPv6.
//!
//! A row that this kernel cannot carry is skipped and named; in the lane `node-vm`, which promises all of them, it fails.

use std::fs;
use std::process::Stdio;
use std::time::Instant;

use serde_json::{Value, json};

use crate::console::Console;
use crate::macvtap::Server;
use crate::world::{LONG, Namespace, World, eventually, image};

use Backend::{LinuxBridge, Macvtap, Ovs, OvsInKernel, PodNetwork};
use Family::{V4, V6};
use Vlan::{Access, Trunk, Untagged};

/// What carries the NIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Backend {
    PodNetwork,
    LinuxBridge,
    /// Open vSwitch with its datapath in user space.
    Ovs,
    /// Open vSwitch with the kernel's datapath.
    OvsInKernel,
    Macvtap,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Vlan {
    Untagged,
    Access,
    Trunk,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

struct Row {
    binding: &'static str,
    backend: Backend,
    vlan: Vlan,
    mtu: u32,
    families: &'static [Family],
}

const fn row(binding: &'static str, backend: Backend, vlan: Vlan, mtu: u32, families: &'static [Family]) -> Row {
    Row { binding, backend, vlan, mtu, families }
}

const BOTH: &[Family] = &[V4, V6];

/// The table. The pod network of one host is IPv4, with the MTU of an Ethernet.
const ROWS: &[Row] = &[
    row("masquerade", PodNetwork, Untagged, 1500, &[V4]),
    row("bridge", PodNetwork, Untagged, 1500, &[V4]),
    row("bridge", LinuxBridge, Untagged, 1500, BOTH),
    row("bridge", LinuxBridge, Untagged, 9000, BOTH),
    row("bridge", LinuxBridge, Access, 1500, BOTH),
    row("bridge", LinuxBridge, Access, 9000, BOTH),
    row("bridge", LinuxBridge, Trunk, 1500, BOTH),
    row("bridge", LinuxBridge, Trunk, 9000, BOTH),
    row("bridge", Ovs, Untagged, 1500, BOTH),
    row("bridge", Ovs, Untagged, 9000, BOTH),
    row("bridge", Ovs, Access, 1500, BOTH),
    row("bridge", Ovs, Access, 9000, BOTH),
    row("bridge", Ovs, Trunk, 1500, BOTH),
    row("bridge", Ovs, Trunk, 9000, BOTH),
    row("bridge", OvsInKernel, Untagged, 1500, BOTH),
    row("bridge", OvsInKernel, Untagged, 9000, BOTH),
    row("bridge", OvsInKernel, Access, 1500, BOTH),
    row("bridge", OvsInKernel, Access, 9000, BOTH),
    row("bridge", OvsInKernel, Trunk, 1500, BOTH),
    row("bridge", OvsInKernel, Trunk, 9000, BOTH),
    row("macvtap", Macvtap, Untagged, 1500, BOTH),
    row("macvtap", Macvtap, Untagged, 9000, BOTH),
];

/// The VLAN of the rows that have one.
const TAG: u16 = 10;
/// The guests, and so how many NICs one has: the rows go to them in turns.
const GUESTS: [&str; 2] = ["even", "odd"];
/// At least how much goes each way.
const BYTES: u64 = 100_000_000;

impl Backend {
    /// What the kernel has to have for it, as a test in a namespace of its own; none where every kernel has it.
    fn needs(self, vlan: Vlan) -> Option<(&'static str, &'static str)> {
        match (self, vlan) {
            (OvsInKernel, _) => Some(("the kernel's openvswitch", "test -e /sys/module/openvswitch")),
            (LinuxBridge, Access | Trunk) => {
                Some(("bridges with VLANs", "unshare --net ip link add t0 type bridge vlan_filtering 1"))
            }
            _ => None,
        }
    }

    fn bridge(self) -> &'static str {
        match self {
            Ovs => "br-lan",
            OvsInKernel => "br-kernel",
            LinuxBridge => "br0",
            PodNetwork | Macvtap => "",
        }
    }

    /// The link at the machine whose other end is on this backend; tagged frames come out of it untagged.
    fn far(self, vlan: Vlan) -> String {
        let begin = match self {
            Ovs => "ovs",
            OvsInKernel => "krn",
            LinuxBridge => "lb",
            Macvtap => "far",
            PodNetwork => unreachable!("the machine is not on it"),
        };
        if vlan == Untagged { begin.to_owned() } else { format!("{begin}{TAG}") }
    }
}

/// A row that is tried: with its number, which is in its names and addresses.
#[derive(Clone, Copy)]
struct Nic(usize, &'static Row);

impl Nic {
    fn name(self) -> String {
        format!("n{}", self.0)
    }

    fn mac(self) -> String {
        format!("02:00:00:00:09:{:02x}", self.0)
    }

    /// The subnet of the machine's side; macvtaps share one, for one DHCP server serves them.
    fn subnet(self) -> usize {
        if self.1.backend == Macvtap { 200 } else { self.0 }
    }

    fn address(self, family: Family) -> String {
        match family {
            V4 => format!("198.18.{}.{}", self.subnet(), 10 + self.0),
            V6 => format!("2001:db8:{}::{:x}", self.subnet(), 0x10 + self.0),
        }
    }

    fn network(self) -> Value {
        let mut spec = json!({ "backend": "ovs", "bridge": self.1.backend.bridge(), "mtu": self.1.mtu });
        match self.1.backend {
            Ovs => spec["datapath"] = json!("netdev"),
            OvsInKernel => {}
            LinuxBridge => spec["backend"] = json!("linux-bridge"),
            Macvtap => {
                spec = json!({ "backend": "macvtap", "uplink": "eth1", "mtu": self.1.mtu, "portSecurity": false })
            }
            PodNetwork => unreachable!("it is there"),
        }
        if self.1.backend != Macvtap {
            let subnet = self.subnet();
            spec["subnets"] =
                json!([{ "cidr": format!("198.18.{subnet}.0/24") }, { "cidr": format!("2001:db8:{subnet}::/64") }]);
        }
        match self.1.vlan {
            Untagged => {}
            Access => spec["vlan"] = json!({ "access": TAG }),
            Trunk => spec["vlan"] = json!({ "trunk": [TAG] }),
        }
        json!({
            "apiVersion": "holdfast.io/v1alpha1",
            "kind": "UnderlayNetwork",
            "metadata": { "name": self.name() },
            "spec": spec,
        })
    }

    fn definition(self) -> Value {
        let config = json!({ "cniVersion": "1.0.0", "type": "holdfast", "network": self.name() });
        json!({
            "apiVersion": "k8s.cni.cncf.io/v1",
            "kind": "NetworkAttachmentDefinition",
            "metadata": { "name": self.name() },
            "spec": { "config": config.to_string() },
        })
    }

    fn interface(self) -> Value {
        let mut interface = json!({ "name": self.name(), "macAddress": self.mac() });
        match self.1.binding {
            "macvtap" => interface["binding"] = json!({ "name": "macvtap" }),
            binding => interface[binding] = json!({}),
        }
        interface
    }

    fn source(self) -> Value {
        match self.1.backend {
            PodNetwork => json!({ "name": self.name(), "pod": {} }),
            _ => json!({ "name": self.name(), "multus": { "networkName": self.name() } }),
        }
    }
}

/// The VM of these NICs.
fn guest(name: &str, nics: &[Nic]) -> Value {
    let leased = nics.iter().filter(|nic| !matches!(nic.1.backend, PodNetwork | Macvtap));
    let addresses: serde_json::Map<_, _> =
        leased.map(|nic| (nic.name(), json!([nic.address(V4), nic.address(V6)]))).collect();
    json!({
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": { "name": name },
        "spec": {
            "runStrategy": "Always",
            "template": {
                "metadata": {
                    "annotations": { "holdfast.io/ip-addresses": Value::Object(addresses).to_string() },
                },
                "spec": {
                    "domain": {
                        "memory": { "guest": "160Mi" },
                        "devices": {
                            "disks": [{ "name": "root", "disk": { "bus": "virtio" } }],
                            "interfaces": nics.iter().map(|nic| nic.interface()).collect::<Vec<_>>(),
                        },
                    },
                    "networks": nics.iter().map(|nic| nic.source()).collect::<Vec<_>>(),
                    "terminationGracePeriodSeconds": 5,
                    "volumes": [{ "name": "root", "containerDisk": { "image": image() } }],
                },
            },
        },
    })
}

/// The rows that this kernel carries.
fn carried() -> Vec<Nic> {
    let mut nics = Vec::new();
    for (number, row) in ROWS.iter().enumerate() {
        let lacking = row.backend.needs(row.vlan).filter(|(_, test)| {
            let status = std::process::Command::new("sh").args(["-c", test]).stderr(Stdio::null()).status();
            !status.unwrap().success()
        });
        match lacking {
            None => nics.push(Nic(number, row)),
            Some((what, _)) => {
                let Row { binding, backend, vlan, mtu, .. } = row;
                let line = format!("{binding} on {backend:?} {vlan:?} {mtu}: this kernel lacks {what}");
                assert!(std::env::var_os("HOLDFAST_LANE").is_none(), "{line}");
                println!("skipped: {line}");
            }
        }
    }
    nics
}

/// Makes the bridges and the wires that these need, each with room for the largest frames.
fn make_wires(world: &World, nics: &[Nic]) {
    let uses = |backend: Backend| nics.iter().any(|nic| nic.1.backend == backend);
    if uses(LinuxBridge) {
        let filtering = nics.iter().any(|nic| nic.1.backend == LinuxBridge && nic.1.vlan != Untagged);
        let filtering = if filtering { "vlan_filtering 1" } else { "" };
        world.host.sh(&format!("ip link add br0 type bridge {filtering}; ip link set br0 up"));
    }
    if uses(OvsInKernel) {
        world.vsctl("add-br br-kernel");
    }
    // The wire that is there: the smallest of a bridge's uplinks says what a network on it may have.
    world.host.sh("ip link set up0 mtu 9000");
    world.machine.sh("ip link set wire mtu 9000");
    let mut made = Vec::new();
    for nic in nics.iter().filter(|nic| nic.1.backend != PodNetwork) {
        let (backend, far) = (nic.1.backend, nic.1.backend.far(nic.1.vlan));
        if !made.contains(&far) {
            let up = if backend == Macvtap { "eth1".to_owned() } else { format!("u-{far}") };
            let pid = world.machine.pid();
            world.host.sh(&format!(
                "ip link add {up} mtu 9000 type veth peer name {far} mtu 9000 netns {pid}; ip link set {up} up"
            ));
            world.machine.sh(&format!("ip link set {far} up"));
            match backend {
                LinuxBridge => {
                    world.host.sh(&format!("ip link set {up} master br0"));
                    if nic.1.vlan != Untagged {
                        world.host.sh(&format!("bridge vlan del dev {up} vid 1"));
                        world.host.sh(&format!("bridge vlan add dev {up} vid {TAG} pvid untagged"));
                    }
                }
                Ovs | OvsInKernel => {
                    // The datapath in user space trusts checksums that nobody has made yet.
                    world.host.sh(&format!("ethtool -K {up} tx off >/dev/null"));
                    world.machine.sh(&format!("ethtool -K {far} tx off >/dev/null"));
                    let tag = if nic.1.vlan == Untagged { String::new() } else { format!("tag={TAG}") };
                    world.vsctl(&format!("add-port {} {up} {tag}", backend.bridge()));
                }
                Macvtap | PodNetwork => {}
            }
            made.push(far.clone());
        }
        let (subnet, machine) = (nic.subnet(), &world.machine);
        if !machine.try_sh(&format!("ip -o addr show dev {far} | grep -q 198.18.{subnet}.1/24")) {
            machine.sh(&format!(
                "ip addr add 198.18.{subnet}.1/24 dev {far}; ip addr add 2001:db8:{subnet}::1/64 dev {far} nodad"
            ));
        }
    }
}

/// Sets in the guest what no DHCPv4 sets: the address of IPv6, and the link of a trunk's VLAN.
fn set_up(console: &mut Console, nics: &[Nic]) {
    console.run("nc -ll -p 9 -e md5sum & true");
    console.run("echo 'for n in $(seq $1); do cat /bin/busybox; done' >/run/give");
    console.run(&format!("nc -ll -p 10 -e sh /run/give {} & true", copies()));
    for nic in nics {
        let Nic(number, Row { vlan, families, .. }) = *nic;
        console.run(&format!("l=$(grep -l {} /sys/class/net/*/address | cut -d/ -f5)", nic.mac()));
        if *vlan == Trunk {
            console.run(&format!("ip link add link $l name t{number} type vlan id {TAG} && ip addr flush dev $l"));
            console.run(&format!("l=t{number}; ip link set $l up && ip addr add {}/24 dev $l", nic.address(V4)));
        }
        if families.contains(&V6) {
            console.run(&format!("ip addr add {}/64 dev $l", nic.address(V6)));
        }
    }
}

/// How many times a busybox, the same here and in the guest, makes so many bytes.
fn copies() -> u64 {
    BYTES.div_ceil(fs::metadata("/bin/busybox").unwrap().len())
}

/// The bytes of one direction, as a shell makes them.
fn bytes() -> String {
    format!("for n in $(seq {}); do cat /bin/busybox; done", copies())
}

/// Checks a NIC in one family from where it is reached; returns how many bytes a second went. One direction each: 100 MB
/// take a guest without KVM ten seconds.
fn check(from: &Namespace, mtu: u32, address: &str, family: Family, sum: &str) -> f64 {
    let headers = if family == V4 { 28 } else { 48 };
    let ping = format!("ping -n -q -c 2 -i 0.2 -W 1 -M do -s {} {address}", mtu - headers);
    eventually(&format!("whole frames reach {address}"), LONG, || from.try_sh(&ping).then_some(()));
    let begin = Instant::now();
    let arrived = match family {
        V4 => from.sh(&format!("({}) | timeout 120 busybox nc {address} 9", bytes())),
        V6 => from.sh(&format!("timeout 120 busybox nc {address} 10 </dev/null | md5sum")),
    };
    let took = begin.elapsed();
    assert_eq!(arrived.split_whitespace().next(), Some(sum), "100 MB of {address}");
    BYTES as f64 / took.as_secs_f64()
}

/// Checks the NICs of one guest.
fn check_guest(world: &World, name: &str, nics: &[Nic], sum: &str) {
    let vmi = world.running(name, None);
    let mut console = Console::open(world, name);
    let log = world.guest_log(vmi["metadata"]["uid"].as_str().unwrap());
    console.log_in();
    set_up(&mut console, nics);
    for nic in nics {
        let Nic(_, Row { binding, backend, vlan, mtu, families }) = nic;
        let told = log.lines().find(|line| line.starts_with("T-NET ") && line.contains(&nic.mac()));
        let told = told.unwrap_or_else(|| panic!("the guest has no NIC {}: {log}", nic.mac()));
        let leased = match backend {
            // The guest is behind the pod, or is the pod.
            PodNetwork => String::new(),
            _ => format!(" {}/24", nic.address(V4)),
        };
        assert!(told.contains(&format!("mtu={mtu}{leased}")) && !told.contains("none"), "{told}");
        for family in *families {
            let (from, address) = match backend {
                PodNetwork => (&world.host, crate::nic(&vmi, &nic.name())["ipAddress"].as_str().unwrap().to_owned()),
                _ => (&world.machine, nic.address(*family)),
            };
            let rate = check(from, *mtu, &address, *family, sum) / 1e6;
            println!("row {binding} on {backend:?}, {vlan:?}, {family:?}, MTU {mtu}: {rate:.0} MB/s");
        }
    }
    console.close();
}

#[test]
fn each_row_of_the_matrix_carries_what_it_should() {
    let nics = carried();
    let mut world = World::new();
    make_wires(&world, &nics);
    let given: Vec<_> = nics.iter().filter(|n| n.1.backend == Macvtap).map(|n| (n.mac(), n.address(V4))).collect();
    let _server = Server::start(&world, "far", &given);
    let mut objects = Vec::new();
    for nic in nics.iter().filter(|nic| nic.1.backend != PodNetwork) {
        objects.extend([nic.network(), nic.definition()]);
    }
    let of = |guest: usize| nics.iter().filter(|nic| nic.0 % 2 == guest).copied().collect::<Vec<_>>();
    objects.extend(GUESTS.iter().enumerate().map(|(number, name)| guest(name, &of(number))));
    let text: Vec<String> = objects.iter().map(Value::to_string).collect();
    world.write("matrix.yaml", &text.join("\n---\n"));
    let sum = world.host.sh(&format!("({}) | md5sum | cut -d' ' -f1", bytes()));

    std::thread::scope(|scope| {
        for (number, name) in GUESTS.iter().enumerate() {
            let (world, sum, nics) = (&world, sum.trim(), of(number));
            scope.spawn(move || check_guest(world, name, &nics, sum));
        }
    });
    world.remove("matrix.yaml");
    eventually("the guests go", LONG, || world.launchers().is_empty().then_some(()));
    world.stop();
}
