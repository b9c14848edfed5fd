//! deploy/examples/macvtap.yaml on a host with such a link, whose other end is a machine with a DHCP server.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, kill};

use crate::world::{IMAGE, LONG, World, eventually, image};

/// What the server of the segment gives the Ethernet address of the example.
const ADDRESS: &str = "198.51.100.10";

/// The example, with the guest that is built here.
fn example() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = fs::read_to_string(root.join("deploy/examples/macvtap.yaml")).unwrap();
    assert!(text.contains(IMAGE));
    text.replace(IMAGE, &image())
}

/// Makes the wire from the host's `eth1` to the machine's `far`.
fn make_wire(world: &World) {
    let wire = format!("ip link add eth1 type veth peer name far netns {}", world.machine.pid());
    world.host.sh(&format!("{wire}; ip link set eth1 up"));
    world.machine.sh("ip addr add 198.51.100.1/24 dev far; ip link set far up");
}

/// The DHCP server of a segment.
pub struct Server(Child);

impl Server {
    /// It serves a link of the machine, and gives each Ethernet address the IP address that is paired with it.
    pub fn start(world: &World, link: &str, given: &[(String, String)]) -> Self {
        let config = world.path("udhcpd.conf");
        let leases = world.path("udhcpd.leases");
        fs::write(&leases, "").unwrap();
        let mut text = format!(
            "start {}\nend {}\ninterface {link}\nlease_file {}\npidfile {}\nopt subnet 255.255.255.0\n",
            given[0].1,
            given[given.len() - 1].1,
            leases.display(),
            world.path("udhcpd.pid").display()
        );
        for (mac, address) in given {
            text += &format!("static_lease {mac} {address}\n");
        }
        fs::write(&config, text).unwrap();
        let mut server = world.machine.command("busybox");
        server.arg("udhcpd").arg("-f").arg(config);
        Self(server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// The network namespace of the only sandbox.
fn sandbox(world: &World) -> String {
    let mut names = fs::read_dir(world.path("r/netns")).unwrap();
    names.next().unwrap().unwrap().path().display().to_string()
}

fn links(world: &World) -> String {
    world.host.sh(&format!("nsenter --net={} ip -d -o link", sandbox(world)))
}

/// On the wire with its own Ethernet address, over the death of each of our processes, until it is deleted.
#[test]
fn a_guest_on_a_macvtap_is_on_the_wire() {
    let mut world = World::new();
    make_wire(&world);
    let _server = Server::start(&world, "far", &[("02:00:00:00:02:0b".to_owned(), ADDRESS.to_owned())]);
    world.write("macvtap.yaml", &example());
    let vmi = world.running("direct", None);
    world.answers(ADDRESS);
    let known = world.machine.sh(&format!("ip neigh show {ADDRESS}"));
    assert!(known.contains("02:00:00:00:02:0b"), "{known}");
    let nic = crate::nic(&vmi, "wire");
    assert_eq!(nic["mac"], "02:00:00:00:02:0b");
    assert!(links(&world).contains("macvtap mode bridge"), "{}", links(&world));
    carries(&world);

    // The agent dies and comes back, and so does the launcher: the one queue stays QEMU's.
    world.kill();
    world.start();
    world.running("direct", None);
    world.answers(ADDRESS);
    let before = crate::workers(&world);
    before.iter().for_each(|worker| kill(*worker, Signal::SIGKILL).unwrap());
    eventually("a launcher takes over", LONG, || {
        let now = crate::workers(&world);
        (now.len() == before.len() && now.iter().all(|pid| !before.contains(pid))).then_some(())
    });
    eventually("it does what it is told", LONG, || {
        world.virtctl(&["pause", "vmi", "direct"]).status.success().then_some(())
    });
    world.condition("vmi", "direct", "Paused", "PausedByUser");
    world.must(&["unpause", "vmi", "direct"]);
    let pings = world.machine.sh(&format!("busybox ping -q -c 50 -W 1 -i 0.05 {ADDRESS}"));
    assert!(pings.contains(" 0% packet loss"), "{pings}");

    // A restart, with the same Ethernet address.
    world.must(&["restart", "direct"]);
    let again = world.running("direct", vmi["metadata"]["uid"].as_str());
    assert_eq!(crate::nic(&again, "wire")["mac"], nic["mac"]);
    world.answers(ADDRESS);

    world.remove("macvtap.yaml");
    world.host.sh("ip link show eth1");
    eventually("nothing is left", LONG, || {
        world.leftovers().iter().all(|left| left.starts_with("link eth1")).then_some(())
    });
    world.stop();
}

/// A file goes to the guest, whose port 7 sends back what comes, and comes back the same.
fn carries(world: &World) {
    let file = world.path("sent").display().to_string();
    world.machine.sh(&format!("head -c 8M /dev/urandom > {file}"));
    let there_and_back =
        format!("exec 3<>/dev/tcp/{ADDRESS}/7; cat {file} >&3 & timeout 60 head -c 8M <&3 | cmp - {file}");
    let echoed = world.machine.command("bash").args(["-c", &there_and_back]).output().unwrap();
    assert!(echoed.status.success(), "{}", String::from_utf8_lossy(&echoed.stderr));
}

/// What cannot be: the network with a bridge's binding and the other way round, a plugin that nobody knows, an uplink
/// that is not there; each is said, by field and value, with what would be valid.
#[test]
fn what_a_macvtap_cannot_do_is_said() {
    let world = World::new();
    let text = example();
    world.host.sh("ip link add eth1 type veth peer name far; ip link set eth1 up; ip link set far up");
    world.write("macvtap.yaml", &text.replace("portSecurity: false", "portSecurity: true"));
    eventually("port security is refused", LONG, || {
        let listed = world.virtctl(&["get", "vm"]);
        String::from_utf8_lossy(&listed.stderr).contains("spec.portSecurity").then_some(())
    });
    start_over(&world);
    world.write("macvtap.yaml", &text.replace("name: macvtap\n", "name: passt\n"));
    let message = world.condition("vm", "direct", "Failure", "InvalidManifest");
    assert!(message.contains("interfaces[1].binding.name") && message.contains("macvtap"), "{message}");
    start_over(&world);
    world.write("macvtap.yaml", &text.replace("binding:\n                name: macvtap", "bridge: {}"));
    let message = world.condition("vmi", "direct", "Synchronized", "FailedAttachNetwork");
    assert!(message.contains("`wire` is `macvtap`") && message.contains("`binding: {name: macvtap}`"), "{message}");
    start_over(&world);
    world.write("macvtap.yaml", &text.replace("uplink: eth1", "uplink: eth7"));
    let message = eventually("the uplink is missed", LONG, || {
        let message = world.condition("vmi", "direct", "Synchronized", "FailedAttachNetwork");
        message.contains("eth7").then_some(message)
    });
    assert!(message.contains("uplink `eth7` of network"), "{message}");
}

/// Takes the example away, and waits until nothing of it is left that the next could be taken for.
fn start_over(world: &World) {
    world.remove("macvtap.yaml");
    let there = |kind| world.get(kind, "direct").is_some();
    eventually("the example goes", LONG, || (!there("vm") && !there("vmi")).then_some(()));
}
