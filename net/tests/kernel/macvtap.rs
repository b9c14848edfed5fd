//! Macvlans for pods and macvtaps for guests, on a link of the host whose other end is a machine on the wire.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use holdfast_net::attachment;
use holdfast_net::binding;
use holdfast_net::desired::DesiredState;
use holdfast_net::kernel::Wiring;
use holdfast_net::model::{Attachment, Backend, Binding, BindingMethod, MacAddr, MacvlanMode};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::traffic::{assert_reaches, assert_streams, echo_udp, seen_as};
use crate::world::{Netns, World, chain, ifname, settle};

/// Before each frame: struct virtio_net_hdr, all zero.
const HEADER: usize = 10;
const MACHINE: [u8; 4] = [10, 7, 0, 1];

fn on_uplink(mode: MacvlanMode, guest: bool) -> Backend {
    Backend::Macvtap { uplink: ifname("up0"), mode, guest }
}

/// The machine on the wire, at 10.7.0.1.
fn machine(world: &World) -> Netns {
    let machine = world.netns();
    world.host.ip(&format!("link add up0 mtu 1500 type veth peer name wire netns {}", machine.path().display()));
    world.host.ip("link set up0 up");
    machine.ip("addr add 10.7.0.1/24 dev wire");
    machine.ip("link set wire up");
    machine
}

/// An attachment of a guest, with its binding; wired.
async fn guest(wiring: &Wiring, world: &World, pod: &Netns, number: u8) -> (Attachment, Binding) {
    let whole = world.attachment(pod, number, on_uplink(MacvlanMode::Bridge, true));
    let attachment = Attachment { addresses: Vec::new(), routes: Vec::new(), ..whole };
    settle(wiring, &attachment::desired(&attachment)).await;
    let interface = wiring.observe_pod_interface(pod.path(), &ifname("eth0")).await.unwrap();
    let binding = Binding {
        nic: "lan".to_owned(),
        netns: pod.path().to_owned(),
        pod_interface: ifname("eth0"),
        pod: interface,
        method: BindingMethod::Macvtap,
        guest_mac: attachment.mac,
        tap_owner: (107, 107),
        queues: 1,
        link_up: true,
        delivery: None,
        hostname: "guest".to_owned(),
    };
    let both = attachment::desired(&attachment).merge(binding::desired(&binding).unwrap()).unwrap();
    settle(wiring, &both).await;
    (attachment, binding)
}

/// An ARP packet of a guest at 10.7.0.11 for the machine.
fn arp(kind: u8, from: MacAddr, to: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; HEADER];
    frame.extend([0xff; 6].iter().chain(&from.octets()).chain(&[8, 6, 0, 1, 8, 0, 6, 4, 0, kind]));
    frame.extend(from.octets().iter().chain(&[10, 7, 0, 11]).chain(&[0; 6]).chain(to));
    frame
}

/// What of the frames that come in within the deadline is an ARP reply: its sender's address.
fn replies(tap: &mut File, within: Duration) -> Option<[u8; 4]> {
    let until = Instant::now() + within;
    let mut buffer = [0; 2048];
    while Instant::now() < until {
        let mut polled = [PollFd::new(tap.as_fd(), PollFlags::POLLIN)];
        poll(&mut polled, PollTimeout::from(100u8)).unwrap();
        let Ok(length) = tap.read(&mut buffer) else { continue };
        let frame = &buffer[HEADER..length];
        if frame[12..14] == [8, 6] && frame[21] == 2 {
            return frame[28..32].try_into().ok();
        }
    }
    None
}

#[test]
fn a_guest_on_a_macvtap_is_on_the_wire_with_its_own_address() {
    let world = World::new();
    let machine = machine(&world);
    let (pod, other) = (world.netns(), world.netns());
    world.wire(None, async |wiring| {
        let (attachment, binding) = guest(&wiring, &world, &pod, 11).await;
        let nic = binding::guest_nic(&binding).unwrap();
        assert_eq!((nic.tap.as_str(), nic.macvtap, &nic.dhcp_v4), ("eth0", true, &None));
        assert_eq!(world.host.links(), ["up0"], "it has no host end");
        let link = pod.ip("-d link show eth0");
        for part in ["macvtap mode bridge", "02:00:00:00:01:0b", "mtu 1400", "ALLMULTI"] {
            assert!(link.contains(part), "{part} is not in {link}");
        }

        let mut tap = File::from(wiring.open_macvtap(pod.path(), &ifname("eth0")).await.unwrap());
        tap.write_all(&arp(1, attachment.mac, &MACHINE)).unwrap();
        assert_eq!(replies(&mut tap, Duration::from_secs(5)), Some(MACHINE));
        let known = machine.ip("neigh show 10.7.0.11");
        assert!(known.contains("lladdr 02:00:00:00:01:0b"), "{known}");

        // What is no macvtap is not opened, and leaves nothing mounted.
        pod.ip("link add plain type veth peer name plain1");
        let error = wiring.open_macvtap(pod.path(), &ifname("plain")).await.unwrap_err();
        assert!(chain(&error).contains("no macvtap"), "{}", chain(&error));
        let error = wiring.open_macvtap(other.path(), &ifname("eth0")).await.unwrap_err();
        assert!(chain(&error).contains("macvtap `eth0`"), "{}", chain(&error));

        // Drift, and the removal of what is there, of what is gone, and where the namespace is none any more.
        pod.ip("link set eth0 address 02:00:00:00:01:77");
        pod.ip("link set eth0 mtu 1300");
        let both = attachment::desired(&attachment).merge(binding::desired(&binding).unwrap()).unwrap();
        settle(&wiring, &both).await;
        pod.ip("link delete eth0");
        settle(&wiring, &both).await;
        drop(tap);
        for removed in [true, false] {
            let report = wiring.remove_inside(pod.path(), &attachment.id).await.unwrap();
            assert_eq!(!report.done.is_empty(), removed);
            assert_eq!(pod.links(), ["plain", "plain1"]);
        }
        wiring.remove_inside(std::path::Path::new("/nowhere"), &attachment.id).await.unwrap();
    });
}

#[test]
fn pods_on_macvlans_reach_the_wire_and_each_other_unless_it_is_private() {
    for mode in [MacvlanMode::Bridge, MacvlanMode::Private] {
        let world = World::new();
        let machine = machine(&world);
        let (first, second) = (world.netns(), world.netns());
        let attachments = [
            world.attachment(&first, 11, on_uplink(mode, false)),
            world.attachment(&second, 12, on_uplink(mode, false)),
        ];
        world.wire(None, async |wiring| {
            for attachment in &attachments {
                settle(&wiring, &attachment::desired(attachment)).await;
            }
        });
        assert!(first.ip("-d link show eth0").contains("macvlan mode"));
        assert_reaches(&first, &machine, "10.7.0.1");
        assert_streams(&machine, &second, "10.7.0.12");
        let _echo = echo_udp(&second, 9);
        let seen = seen_as(&first, "10.7.0.12:9".parse().unwrap(), Duration::from_secs(1));
        assert_eq!(seen.is_some(), mode == MacvlanMode::Bridge, "{mode:?}");
    }
}

#[test]
fn an_uplink_that_is_missing_or_made_anew_is_said_and_mended() {
    let world = World::new();
    let pod = world.netns();
    let attachment = world.attachment(&pod, 11, on_uplink(MacvlanMode::Bridge, false));
    let desired: DesiredState = attachment::desired(&attachment);
    world.wire(None, async |wiring| {
        let error = wiring.reconcile(&desired).await.unwrap_err();
        assert_eq!(error.to_string(), "failed to find uplink `up0` on the node");
        assert_eq!(error.reason(), "UplinkNotFound");
        assert!(pod.links().is_empty());
        let _machine = machine(&world);
        world.host.ip("link add br0 type bridge");
        world.host.ip("link set up0 master br0");
        let error = wiring.reconcile(&desired).await.unwrap_err();
        assert!(chain(&error).contains("`up0` is a port of a bridge"), "{}", chain(&error));
        world.host.ip("link set up0 nomaster");
        settle(&wiring, &desired).await;
        // It takes its macvlans with it.
        world.host.ip("link delete up0");
        assert!(pod.links().is_empty());
        let _machine = machine(&world);
        settle(&wiring, &desired).await;
        // On another link of the same name's place it is made anew.
        // Kernels before 6.2 rename no link that is up.
        world.host.ip("link set up0 down");
        world.host.ip("link set up0 name old");
        world.host.ip("link add up0 type veth peer name other");
        world.host.ip("link set up0 up");
        settle(&wiring, &desired).await;
    });
}
