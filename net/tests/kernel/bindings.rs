//! Bindings of VM interfaces to pod interfaces. A namespace with a veth on the binding's bridge plays the guest where
//! traffic matters; the tap itself is opened where the hypervisor's side matters.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::time::Duration;

use holdfast_net::attachment;
use holdfast_net::binding::{self, bridge_name, tap_name};
use holdfast_net::desired::DesiredState;
use holdfast_net::kernel::Wiring;
use holdfast_net::model::{
    Attachment, Backend, Binding, BindingMethod, BridgeGateway, Delivery, ForwardedPort, PodInterface, Protocol, Vlan,
};
use holdfast_net::plan::Plan;

use crate::traffic::{assert_reaches, assert_streams, echo_udp, seen_as};
use crate::world::{Netns, World, chain, ifname, settle};

const GUEST_MAC: &str = "02:00:00:00:01:0b";

fn pod_network() -> Backend {
    let addresses = vec!["10.7.0.1/24".parse().unwrap()];
    Backend::LinuxBridge {
        bridge: ifname("hf-pod0"),
        vlan: Vlan::Untagged,
        gateway: Some(BridgeGateway { addresses, masquerade: true }),
    }
}

/// Makes attachments, and binds a guest to the one of this pod.
async fn bound(wiring: &Wiring, pod: &Netns, attachments: &[Attachment], method: BindingMethod) -> Binding {
    for attachment in attachments {
        settle(wiring, &attachment::desired(attachment)).await;
    }
    let interface = wiring.observe_pod_interface(pod.path(), &ifname("eth0")).await.unwrap();
    let binding = bind(pod, interface, method);
    settle(wiring, &binding::desired(&binding).unwrap()).await;
    binding
}

fn bind(pod: &Netns, interface: PodInterface, method: BindingMethod) -> Binding {
    Binding {
        nic: "default".to_owned(),
        netns: pod.path().to_owned(),
        pod_interface: ifname("eth0"),
        pod: interface,
        method,
        guest_mac: GUEST_MAC.parse().unwrap(),
        tap_owner: (107, 107),
        queues: 1,
        link_up: true,
        delivery: None,
        hostname: "guest".to_owned(),
    }
}

fn masquerade(ports: Vec<ForwardedPort>) -> BindingMethod {
    BindingMethod::Masquerade {
        cidr: "10.0.2.0/24".parse().unwrap(),
        cidr_v6: "fd10:0:2::/120".parse().unwrap(),
        ports,
    }
}

/// A guest: on the binding's bridge, with the guest's own MAC.
fn guest(world: &World, pod: &Netns, binding: &Binding, address: &str, gateway: &str) -> Netns {
    let guest = world.netns();
    let bridge = bridge_name(&binding.pod_interface);
    pod.ip(&format!("link add guest0 mtu 1400 type veth peer name eth0 netns {}", guest.path().display()));
    pod.ip(&format!("link set guest0 up master {bridge}"));
    guest.ip(&format!("link set eth0 address {} mtu 1400 up", binding.guest_mac));
    guest.ip(&format!("addr add {address} dev eth0"));
    guest.ip(&format!("route add default via {gateway}"));
    guest
}

/// Opens a tap as a hypervisor does.
fn open_tap(pod: &Netns, name: &str, multi_queue: bool) -> std::io::Result<std::fs::File> {
    pod.run(|| {
        let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
        let mut request = [0u8; 40];
        request[..name.len()].copy_from_slice(name.as_bytes());
        // IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, and IFF_MULTI_QUEUE.
        let flags: u16 = 0x0002 | 0x1000 | 0x4000 | if multi_queue { 0x0100 } else { 0 };
        request[16..18].copy_from_slice(&flags.to_ne_bytes());
        // SAFETY: TUNSETIFF reads a struct ifreq, of 40 bytes, and writes the name back to it.
        let result = unsafe { nix::libc::ioctl(file.as_raw_fd(), 0x4004_54ca, request.as_mut_ptr()) };
        if result == 0 { Ok(file) } else { Err(std::io::Error::last_os_error()) }
    })
}

#[test]
fn masquerade_gives_the_guest_the_address_of_its_pod() {
    let world = World::new();
    let (pod, peer) = (world.netns(), world.netns());
    let attachments = [world.attachment(&pod, 11, pod_network()), world.attachment(&peer, 12, pod_network())];
    let binding = world.wire(None, async |wiring| {
        for attachment in &attachments {
            settle(&wiring, &attachment::desired(attachment)).await;
        }
        let interface = wiring.observe_pod_interface(pod.path(), &ifname("eth0")).await.unwrap();
        assert_eq!(interface.mac, attachments[0].mac);
        assert_eq!(interface.mtu, 1400);
        assert_eq!(interface.addresses, attachments[0].addresses);
        assert_eq!(interface.routes, attachments[0].routes);
        let binding = bind(&pod, interface, masquerade(Vec::new()));
        settle(&wiring, &binding::desired(&binding).unwrap()).await;
        // The attachment's own state is not disturbed, alone or together with its binding.
        let both = attachment::desired(&attachments[0]).merge(binding::desired(&binding).unwrap()).unwrap();
        assert!(wiring.plan(&both).await.unwrap().is_empty());
        assert!(wiring.plan(&attachment::desired(&attachments[0])).await.unwrap().is_empty());
        binding
    });
    let nic = binding::guest_nic(&binding).unwrap();
    assert_eq!(nic.dhcp_v4.as_ref().unwrap().address.to_string(), "10.0.2.2/24");
    let guest = guest(&world, &pod, &binding, "10.0.2.2/24", "10.0.2.1");
    assert_eq!(assert_reaches(&guest, &peer, "10.7.0.12").to_string(), "10.7.0.11", "not masqueraded");
    assert_streams(&guest, &peer, "10.7.0.12");
    // From outside, any port of the pod's address is the guest's; from inside the pod, of its loopback address.
    assert_eq!(assert_reaches(&peer, &guest, "10.7.0.11").to_string(), "10.7.0.12");
    assert_streams(&peer, &guest, "10.7.0.11");
    assert_streams(&pod, &guest, "127.0.0.1");

    world.wire(None, async |wiring| {
        let gone = DesiredState::without_binding(pod.path().to_owned(), "default");
        settle(&wiring, &gone).await;
        assert_eq!(pod.links(), ["eth0", "guest0"]);
        assert_eq!(pod.tables(), "");
        assert!(wiring.plan(&attachment::desired(&attachments[0])).await.unwrap().is_empty());
    });
}

/// A pod with an IPv6 address: with an IPv4 address, and without one.
#[test]
fn masquerade_gives_the_guest_the_ipv6_address_of_its_pod() {
    for with_v4 in [true, false] {
        let world = World::new();
        let (pod, peer) = (world.netns(), world.netns());
        let attachments = [(&pod, 0x11), (&peer, 0x12)].map(|(netns, number)| {
            let mut attachment = world.attachment(netns, number, pod_network());
            attachment.addresses.retain(|_| with_v4);
            attachment.routes.clear();
            attachment.addresses.push(format!("fd00:7::{number:x}/64").parse().unwrap());
            attachment
        });
        let ports = vec![7, 8]
            .into_iter()
            .flat_map(|port| [Protocol::Tcp, Protocol::Udp].map(|protocol| ForwardedPort { protocol, port }));
        let ports: Vec<_> = if with_v4 { ports.collect() } else { Vec::new() };
        let binding = world.wire(None, async |wiring| {
            let binding = bound(&wiring, &pod, &attachments, masquerade(ports)).await;
            let both = attachment::desired(&attachments[0]).merge(binding::desired(&binding).unwrap()).unwrap();
            assert!(wiring.plan(&both).await.unwrap().is_empty());
            binding
        });
        assert_eq!(binding::guest_nic(&binding).unwrap().dhcp_v4.is_some(), with_v4);
        let guest = guest(&world, &pod, &binding, "fd10:0:2::2/120", "fd10:0:2::1");
        assert_eq!(assert_reaches(&guest, &peer, "fd00:7::12").to_string(), "fd00:7::11", "not masqueraded");
        assert_streams(&guest, &peer, "fd00:7::12");
        assert_eq!(assert_reaches(&peer, &guest, "fd00:7::11").to_string(), "fd00:7::12");
        assert_streams(&peer, &guest, "fd00:7::11");
        if with_v4 {
            // Of the ports that are not listed none is the guest's.
            let _echo = echo_udp(&guest, 9);
            assert_eq!(seen_as(&peer, "[fd00:7::11]:9".parse().unwrap(), Duration::from_millis(300)), None);
        }
    }
}

#[test]
fn masquerade_forwards_the_listed_ports_only() {
    let world = World::new();
    let (pod, peer) = (world.netns(), world.netns());
    let attachments = [world.attachment(&pod, 11, pod_network()), world.attachment(&peer, 12, pod_network())];
    let ports = vec![ForwardedPort { protocol: Protocol::Udp, port: 7 }];
    let binding = world.wire(None, async |wiring| bound(&wiring, &pod, &attachments, masquerade(ports)).await);
    let guest = guest(&world, &pod, &binding, "10.0.2.2/24", "10.0.2.1");
    assert_reaches(&peer, &guest, "10.7.0.11");
    let _echo = echo_udp(&guest, 9);
    assert_eq!(seen_as(&peer, "10.7.0.11:9".parse().unwrap(), Duration::from_millis(300)), None);
    // Another set of ports replaces the table, and nothing else.
    let wider = Binding { method: masquerade(Vec::new()), ..binding };
    world.wire(None, async |wiring| {
        let desired = binding::desired(&wider).unwrap();
        assert_eq!(wiring.plan(&desired).await.unwrap().ops.len(), 1);
        settle(&wiring, &desired).await;
    });
    assert!(seen_as(&peer, "10.7.0.11:9".parse().unwrap(), Duration::from_secs(10)).is_some());
}

/// A pod on a bridge of the host's, its guest the owner of the address, a peer, and the binding.
fn bridged(world: &World, pod: &Netns, peer: &Netns) -> (Attachment, Binding) {
    world.host.ip("link add br0 type bridge");
    world.host.ip("link set br0 up");
    let backend = Backend::LinuxBridge { bridge: ifname("br0"), vlan: Vlan::Untagged, gateway: None };
    let of_guest =
        Attachment { addresses: Vec::new(), routes: Vec::new(), ..world.attachment(pod, 11, backend.clone()) };
    let of_peer = world.attachment(peer, 12, backend);
    world.wire(None, async |wiring| {
        for attachment in [&of_guest, &of_peer] {
            settle(&wiring, &attachment::desired(attachment)).await;
        }
        let interface = wiring.observe_pod_interface(pod.path(), &ifname("eth0")).await.unwrap();
        let mut binding = bind(pod, interface, BindingMethod::Bridge);
        binding.queues = 4;
        binding.delivery = Some(Delivery {
            addresses: vec!["10.7.0.11/24".parse().unwrap()],
            gateways: vec!["10.7.0.1".parse().unwrap()],
            dhcp_v4: true,
            ..Delivery::default()
        });
        settle(&wiring, &binding::desired(&binding).unwrap()).await;
        (of_guest, binding)
    })
}

#[test]
fn bridge_puts_the_guest_on_the_segment_and_keeps_its_dhcp_off_it() {
    let world = World::new();
    let (pod, peer) = (world.netns(), world.netns());
    let (attachment, binding) = bridged(&world, &pod, &peer);
    let guest = guest(&world, &pod, &binding, "10.7.0.11/24", "10.7.0.1");
    assert_eq!(assert_reaches(&guest, &peer, "10.7.0.12").to_string(), "10.7.0.11");
    assert_eq!(assert_reaches(&peer, &guest, "10.7.0.11").to_string(), "10.7.0.12");
    assert_streams(&peer, &guest, "10.7.0.11");
    // A server of the segment cannot speak to the guest.
    let _client = echo_udp(&guest, 68);
    assert_eq!(seen_as(&peer, "10.7.0.11:68".parse().unwrap(), Duration::from_millis(300)), None);

    world.wire(None, async |wiring| {
        let bound = binding::desired(&binding).unwrap();
        let both = attachment::desired(&attachment).merge(bound).unwrap();
        assert!(wiring.plan(&both).await.unwrap().is_empty());
        // Where the network's own server answers, nothing is kept off.
        let mut unguarded = binding.clone();
        unguarded.delivery = Some(Delivery::default());
        settle(&wiring, &binding::desired(&unguarded).unwrap()).await;
    });
    assert!(seen_as(&peer, "10.7.0.11:68".parse().unwrap(), Duration::from_secs(10)).is_some());
}

/// An Ethernet frame with an IPv4 UDP datagram, checksums left out, behind an empty virtio header.
fn frame(from_port: u16, to_port: u16, text: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 10];
    frame.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0, 0, 0, 0x01, 0x0b, 0x08, 0x00]);
    let length = u16::try_from(28 + text.len()).unwrap().to_be_bytes();
    frame.extend_from_slice(&[0x45, 0, length[0], length[1], 0, 0, 0, 0, 64, 17, 0, 0]);
    frame.extend_from_slice(&[0, 0, 0, 0, 255, 255, 255, 255]);
    frame.extend_from_slice(&from_port.to_be_bytes());
    frame.extend_from_slice(&to_port.to_be_bytes());
    frame.extend_from_slice(&(u16::try_from(8 + text.len()).unwrap()).to_be_bytes());
    frame.extend_from_slice(&[0, 0]);
    frame.extend_from_slice(text);
    frame
}

#[test]
fn the_dhcp_socket_hears_the_guest_and_answers_it_alone() {
    let world = World::new();
    let (pod, peer) = (world.netns(), world.netns());
    let (_, binding) = bridged(&world, &pod, &peer);
    let tap = tap_name(&binding.pod_interface);
    // Of four queues; one queue too few would be refused.
    let mut queue = open_tap(&pod, tap.as_str(), true).unwrap();
    assert!(open_tap(&pod, tap.as_str(), false).is_err());
    let details = pod.ip(&format!("-N -d link show {tap}"));
    assert!(details.contains("user 107"), "{details}");
    assert!(details.contains("multi_queue numqueues") && details.contains("mtu 1400"), "{details}");

    let fd = world.wire(None, async |wiring| {
        let missing = wiring.open_dhcp_socket(pod.path(), &ifname("tap9")).await.unwrap_err();
        assert_eq!(missing.reason(), "InterfaceNotFound", "{}", chain(&missing));
        wiring.open_dhcp_socket(pod.path(), &tap).await.unwrap()
    });
    let poll = |fd: &dyn AsRawFd, timeout: u16| {
        // SAFETY: the descriptor is open for as long as its owner, which outlives this call.
        let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd.as_raw_fd()) };
        let mut set = [nix::poll::PollFd::new(fd, nix::poll::PollFlags::POLLIN)];
        nix::poll::poll(&mut set, timeout).unwrap() == 1
    };
    queue.write_all(&frame(68, 53, b"not this")).unwrap();
    queue.write_all(&frame(68, 67, b"discover")).unwrap();
    assert!(poll(&fd, 10_000), "the request is not heard");
    let mut socket = std::fs::File::from(fd);
    let mut buffer = [0; 2048];
    let length = socket.read(&mut buffer).unwrap();
    assert!(buffer[..length].ends_with(b"discover"), "{:?}", &buffer[..length]);

    let answer = frame(67, 68, b"offer");
    socket.write_all(&answer[10..]).unwrap();
    loop {
        assert!(poll(&queue, 10_000), "the answer does not reach the guest");
        let length = queue.read(&mut buffer).unwrap();
        if buffer[..length].ends_with(b"offer") {
            break;
        }
    }
    // Our own answer is not heard back.
    assert!(!poll(&socket, 100));
}

#[test]
fn a_crash_after_any_step_converges() {
    let world = World::new();
    for bridge in [false, true] {
        let mut crash_after = 0;
        loop {
            let pod = world.netns();
            let attachment = world.attachment(&pod, 11, pod_network());
            let method = if bridge { BindingMethod::Bridge } else { masquerade(Vec::new()) };
            let steps = world.wire(None, async |wiring| {
                settle(&wiring, &attachment::desired(&attachment)).await;
                let interface = wiring.observe_pod_interface(pod.path(), &ifname("eth0")).await.unwrap();
                let desired = binding::desired(&bind(&pod, interface, method)).unwrap();
                let Plan { mut ops } = wiring.plan(&desired).await.unwrap();
                let steps = ops.len();
                ops.truncate(crash_after);
                wiring.apply(&desired, &Plan { ops }).await.unwrap();
                if crash_after % 3 != 0 {
                    settle(&wiring, &desired).await;
                }
                settle(&wiring, &DesiredState::without_binding(pod.path().to_owned(), "default")).await;
                steps
            });
            assert_eq!(pod.links(), ["eth0"], "after {crash_after} steps");
            assert_eq!(pod.tables(), "", "after {crash_after} steps");
            if crash_after == steps {
                break;
            }
            crash_after += 1;
        }
    }
}

#[test]
fn a_rehearsal_leaves_nothing() {
    let world = World::new();
    world.wire(None, async |_| holdfast_net::kernel::rehearse().await.unwrap());
    assert_eq!(world.host.links(), Vec::<String>::new());
}
