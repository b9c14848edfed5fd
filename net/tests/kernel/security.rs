//! Port security: what a guest makes up does not get out, and what is its own does.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use holdfast_net::attachment::{desired, host_ifname};
use holdfast_net::error::ErrorClass;
use holdfast_net::model::{Attachment, Backend, MacAddr, PortSecurity, Vlan};
use ipnetwork::{Ipv4Network, Ipv6Network};

use crate::frames::{Mac, Wire, arp, ethernet, icmp6, nd, tagged, udp4, udp6};
use crate::switch::Switch;
use crate::traffic::{assert_reaches, assert_streams};
use crate::world::{Netns, World, chain, ifname, settle};

/// How long traffic may take to get through.
const DEADLINE: Duration = Duration::from_secs(10);
const MAC: Mac = [2, 0, 0, 0, 1, 11];
const OTHER_MAC: Mac = [2, 0, 0, 0, 1, 99];
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 11);
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 99);
const NOWHERE: Ipv6Addr = Ipv6Addr::UNSPECIFIED;

fn ipv6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

/// When a frame gets out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Passes {
    Always,
    /// Where any IPv4 address may be used.
    AnyIpv4,
    /// Where any IPv6 address may be used.
    AnyIpv6,
    /// Where any of both may be.
    Any,
    Never,
}

/// What a guest may send: a name, the frame, and when it gets out.
fn frames() -> Vec<(&'static str, Vec<u8>, Passes)> {
    use Passes::{Always, Any, AnyIpv4, AnyIpv6, Never};
    let (own, linked, other) = (ipv6("2001:db8::11"), ipv6("fe80::ff:fe00:10b"), ipv6("2001:db8::99"));
    vec![
        ("own address", udp4(MAC, ADDRESS, (1, 2)), Always),
        ("arp", arp(MAC, (MAC, ADDRESS)), Always),
        ("arp probe", arp(MAC, (MAC, Ipv4Addr::UNSPECIFIED)), Always),
        ("dhcp client", udp4(MAC, Ipv4Addr::UNSPECIFIED, (68, 67)), Always),
        ("own ipv6 address", udp6(MAC, own, (1, 2)), Always),
        ("link-local address", udp6(MAC, linked, (1, 2)), Always),
        ("duplicate address detection", nd(MAC, NOWHERE, 135, own, None), Always),
        ("listener report", icmp6(MAC, NOWHERE, 143, &[0; 4]), Always),
        ("solicitation", nd(MAC, linked, 135, other, Some(MAC)), Always),
        ("advertisement", nd(MAC, linked, 136, own, Some(MAC)), Always),
        ("router solicitation", icmp6(MAC, linked, 133, &[]), Always),
        ("other ipv4 address", udp4(MAC, OTHER, (1, 2)), AnyIpv4),
        ("no ipv4 address", udp4(MAC, Ipv4Addr::UNSPECIFIED, (1, 2)), AnyIpv4),
        ("arp of another address", arp(MAC, (MAC, OTHER)), AnyIpv4),
        ("other ipv6 address", udp6(MAC, other, (1, 2)), AnyIpv6),
        ("advertisement of another's address", nd(MAC, linked, 136, other, Some(MAC)), AnyIpv6),
        ("advertisement from another's address", nd(MAC, other, 136, own, Some(MAC)), AnyIpv6),
        ("advertisement of another's mac", nd(MAC, linked, 136, own, Some(OTHER_MAC)), AnyIpv6),
        ("solicitation with another's mac", nd(MAC, linked, 135, own, Some(OTHER_MAC)), AnyIpv6),
        ("another protocol", ethernet([0xff; 6], MAC, 0x88b5, &[7; 50]), Any),
        ("other mac", udp4(OTHER_MAC, ADDRESS, (1, 2)), Never),
        ("arp from another's mac", arp(OTHER_MAC, (MAC, ADDRESS)), Never),
        ("arp of another's mac", arp(MAC, (OTHER_MAC, ADDRESS)), Never),
        ("vlan tag", tagged(&udp4(MAC, ADDRESS, (3, 4)), 7), Never),
        ("vlan tag of a priority", tagged(&udp4(MAC, ADDRESS, (5, 6)), 0), Never),
        ("dhcp server", udp4(MAC, ADDRESS, (67, 68)), Never),
        ("dhcp server on another port", udp4(MAC, ADDRESS, (1067, 68)), Never),
        ("dhcpv6 server", udp6(MAC, linked, (547, 546)), Never),
        ("router advertisement", icmp6(MAC, linked, 134, &[0; 8]), Never),
        ("redirect", icmp6(MAC, linked, 137, &[0; 32]), Never),
    ]
}

/// May use any IP address.
fn unlimited() -> PortSecurity {
    PortSecurity { macs: [MacAddr(MAC)].into(), ipv4: None, ipv6: None }
}

fn limited() -> PortSecurity {
    PortSecurity {
        ipv4: Some([ADDRESS.into()].into()),
        ipv6: Some([ipv6("2001:db8::11").into()].into()),
        ..unlimited()
    }
}

/// An Ethernet address of VRRP, an address that goes with it, and a prefix behind the guest.
const VIRTUAL_MAC: Mac = [0, 0, 0x5e, 0, 1, 10];
const VIRTUAL: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 100);
const BEHIND: Ipv4Addr = Ipv4Addr::new(10, 9, 255, 254);

/// May use addresses beside its own.
fn with_pairs() -> PortSecurity {
    let mut security = limited();
    security.macs.insert(MacAddr(VIRTUAL_MAC));
    let ipv4 = ["10.7.0.100", "10.9.0.0/16", "10.9.8.0/24"].map(|prefix| prefix.parse::<Ipv4Network>().unwrap());
    let ipv6 = ["2001:db8::100", "2001:db8:9::/49"].map(|prefix| prefix.parse::<Ipv6Network>().unwrap());
    security.ipv4.as_mut().unwrap().extend(ipv4);
    security.ipv6.as_mut().unwrap().extend(ipv6);
    security
}

/// What a guest with address pairs may send.
fn frames_of_pairs() -> Vec<(&'static str, Vec<u8>, Passes)> {
    use Passes::{Always, Never};
    let (own, linked, shared) = (ipv6("2001:db8::11"), ipv6("fe80::ff:fe00:10b"), ipv6("2001:db8::100"));
    let (behind, beyond) = (ipv6("2001:db8:9:7fff::1"), ipv6("2001:db8:9:8000::1"));
    vec![
        ("vrrp from its own address", udp4(VIRTUAL_MAC, ADDRESS, (1, 2)), Always),
        ("arp of the virtual address", arp(VIRTUAL_MAC, (VIRTUAL_MAC, VIRTUAL)), Always),
        ("arp of the virtual address from its own mac", arp(MAC, (MAC, VIRTUAL)), Always),
        ("virtual address", udp4(VIRTUAL_MAC, VIRTUAL, (1, 2)), Always),
        ("last address of a prefix", udp4(MAC, BEHIND, (1, 2)), Always),
        ("arp of an address of a prefix", arp(MAC, (MAC, BEHIND)), Always),
        ("advertisement of the shared address", nd(VIRTUAL_MAC, own, 136, shared, Some(VIRTUAL_MAC)), Always),
        ("advertisement in a prefix", nd(MAC, linked, 136, behind, Some(MAC)), Always),
        ("address of an ipv6 prefix", udp6(MAC, behind, (1, 2)), Always),
        ("before the prefix", udp4(MAC, Ipv4Addr::new(10, 8, 255, 255), (1, 2)), Never),
        ("behind the prefix", udp4(MAC, Ipv4Addr::new(10, 10, 0, 0), (1, 2)), Never),
        ("arp from behind the prefix", arp(MAC, (MAC, Ipv4Addr::new(10, 10, 0, 0))), Never),
        ("another virtual mac", udp4([0, 0, 0x5e, 0, 1, 11], VIRTUAL, (1, 2)), Never),
        ("behind the ipv6 prefix", udp6(MAC, beyond, (1, 2)), Never),
        ("advertisement behind the ipv6 prefix", nd(MAC, linked, 136, beyond, Some(MAC)), Never),
        ("router advertisement", icmp6(VIRTUAL_MAC, linked, 134, &[0; 8]), Never),
        ("dhcp server", udp4(VIRTUAL_MAC, VIRTUAL, (67, 68)), Never),
    ]
}

/// Sends frames from one namespace, and asserts which come out in another.
fn assert_secured(from: &Netns, to: &Netns, security: &PortSecurity, frames: &[(&'static str, Vec<u8>, Passes)]) {
    let (sender, receiver) = (Wire::open(from), Wire::open(to));
    frames.iter().for_each(|(_, frame, _)| sender.send(frame));
    let last = udp4(MAC, ADDRESS, (4242, 4242));
    let seen = sender.see_until(&receiver, &last, DEADLINE);
    for (name, frame, passes) in frames {
        let expected = match passes {
            Passes::Always => true,
            Passes::AnyIpv4 => security.ipv4.is_none(),
            Passes::AnyIpv6 => security.ipv6.is_none(),
            Passes::Any => security.is_unlimited(),
            Passes::Never => false,
        };
        // A tag may be taken off on the way.
        let untagged = frame[12..14] == [0x81, 0x00];
        let body = &frame[if untagged { 16 } else { 12 }..];
        let came = seen.iter().any(|other| other[..12] == frame[..12] && other[12..].starts_with(body));
        assert!(came == expected, "{name}, {security:?}: {}", if came { "got out" } else { "did not get out" });
    }
}

/// Two pods, the first secured in turn in each way.
fn secure_in_turn(world: &World, backend: &Backend, socket: Option<&std::path::Path>) {
    let (one, two) = (world.netns(), world.netns());
    let [first, second] = [world.attachment(&one, 11, backend.clone()), world.attachment(&two, 12, backend.clone())];
    let with = |security| Attachment { security, ..first.clone() };
    world.wire(socket, async |wiring| settle(&wiring, &desired(&second)).await);
    let (ipv4, ipv6) = (PortSecurity { ipv6: None, ..limited() }, PortSecurity { ipv4: None, ..limited() });
    for security in [limited(), unlimited(), ipv4, ipv6, limited()] {
        world.wire(socket, async |wiring| settle(&wiring, &desired(&with(Some(security.clone())))).await);
        assert_secured(&one, &two, &security, &frames());
    }
    let security = with_pairs();
    world.wire(socket, async |wiring| settle(&wiring, &desired(&with(Some(security.clone())))).await);
    let without_others: Vec<_> = frames().into_iter().filter(|(_, _, passes)| *passes == Passes::Always).collect();
    assert_secured(&one, &two, &security, &[frames_of_pairs(), without_others].concat());
    world.wire(socket, async |wiring| settle(&wiring, &desired(&with(Some(limited())))).await);
    assert_secured(&one, &two, &limited(), &frames());
    assert_reaches(&one, &two, "10.7.0.12");
    assert_streams(&two, &one, "10.7.0.11");

    // Without it, all gets out.
    world.wire(socket, async |wiring| settle(&wiring, &desired(&with(None))).await);
    let (sender, receiver) = (Wire::open(&one), Wire::open(&two));
    let forged = arp(OTHER_MAC, (OTHER_MAC, OTHER));
    sender.see_until(&receiver, &forged, DEADLINE);

    world.wire(socket, async |wiring| {
        settle(&wiring, &desired(&with(Some(limited())))).await;
        wiring.remove(&[first.id.clone(), second.id.clone()]).await.unwrap();
    });
    assert_eq!(world.host.tables(), "");
}

#[test]
fn on_a_linux_bridge() {
    let world = World::new();
    world.host.ip("link add br0 type bridge");
    world.host.ip("link set br0 up");
    secure_in_turn(&world, &Backend::LinuxBridge { bridge: ifname("br0"), vlan: Vlan::Untagged, gateway: None }, None);
}

#[test]
fn on_ovs() {
    let world = World::new();
    let switch = Switch::start(&world);
    secure_in_turn(&world, &Backend::Ovs { bridge: "br0".to_owned(), vlan: Vlan::Untagged }, Some(&switch.socket()));
    // The switch's own, and none of ours.
    assert_eq!(switch.flows().len(), 1, "{:?}", switch.flows());
}

#[test]
fn on_an_access_port_of_ovs() {
    let world = World::new();
    let switch = Switch::start(&world);
    secure_in_turn(&world, &Backend::Ovs { bridge: "br0".to_owned(), vlan: Vlan::Access(7) }, Some(&switch.socket()));
}

#[test]
fn what_is_changed_behind_our_back_is_put_right() {
    let world = World::new();
    let mut switch = Switch::start(&world);
    world.host.ip("link add lb0 type bridge");
    world.host.ip("link set lb0 up");
    let (one, two) = (world.netns(), world.netns());
    let on_bridge = Backend::LinuxBridge { bridge: ifname("lb0"), vlan: Vlan::Untagged, gateway: None };
    let on_ovs = Backend::Ovs { bridge: "br0".to_owned(), vlan: Vlan::Untagged };
    let [bridged, switched] = [(&one, on_bridge), (&two, on_ovs)]
        .map(|(pod, backend)| Attachment { security: Some(limited()), ..world.attachment(pod, 11, backend) });
    let socket = switch.socket();
    world.wire(Some(&socket), async |wiring| {
        for attachment in [&bridged, &switched] {
            settle(&wiring, &desired(attachment)).await;
        }
        let port = host_ifname(&bridged.id);
        for harm in [
            "nft delete table bridge holdfast".to_owned(),
            "nft flush chain bridge holdfast port-security".to_owned(),
            format!("nft delete element bridge holdfast ports {{ {port} }}"),
            format!("nft add element bridge holdfast ipv4 {{ {port} . 192.0.2.1 }}"),
            format!("nft add element bridge holdfast ipv4-prefixes {{ {port} . 10.9.0.0/16 }}"),
        ] {
            world.host.command(&harm);
            assert!(!wiring.plan(&desired(&bridged)).await.unwrap().is_empty(), "{harm}");
            settle(&wiring, &desired(&bridged)).await;
        }
        assert_eq!(switch.ofctl("del-flows br0"), "");
        assert!(!wiring.plan(&desired(&switched)).await.unwrap().is_empty());
        settle(&wiring, &desired(&switched)).await;
        switch.kill();
        switch.boot();
        let until = Instant::now() + DEADLINE;
        while let Err(error) = wiring.reconcile(&desired(&switched)).await {
            assert!(error.class() == ErrorClass::Retry && Instant::now() < until, "{}", chain(&error));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(switch.flows().len() > 10, "{:?}", switch.flows());
    });
}

#[test]
fn flows_of_others_stay() {
    let world = World::new();
    let switch = Switch::start(&world);
    let pod = world.netns();
    let attachment = Attachment {
        security: Some(limited()),
        ..world.attachment(&pod, 11, Backend::Ovs { bridge: "br0".to_owned(), vlan: Vlan::Untagged })
    };
    switch.ofctl("add-flow br0 cookie=0x1234,priority=7,in_port=1,actions=drop");
    world.wire(Some(&switch.socket()), async |wiring| {
        settle(&wiring, &desired(&attachment)).await;
        wiring.remove(std::slice::from_ref(&attachment.id)).await.unwrap();
    });
    let flows = switch.flows();
    assert!(flows.len() == 2 && flows.iter().any(|flow| flow.contains("0x1234")), "{flows:?}");
}

/// [`Wiring::make`] looks at less than a comparison does: it must come to the same.
#[test]
fn what_is_made_needs_nothing_more() {
    let world = World::new();
    let switch = Switch::start(&world);
    world.host.ip("link add lb0 type bridge");
    world.host.ip("link set lb0 up");
    let on_bridge = Backend::LinuxBridge { bridge: ifname("lb0"), vlan: Vlan::Untagged, gateway: None };
    let on_ovs = Backend::Ovs { bridge: "br0".to_owned(), vlan: Vlan::Untagged };
    let pods = [world.netns(), world.netns(), world.netns()];
    world.wire(Some(&switch.socket()), async |wiring| {
        for (pod, (backend, last)) in pods.iter().zip([(&on_bridge, 11), (&on_bridge, 12), (&on_ovs, 13)]) {
            let security = Some(limited());
            let desired = desired(&Attachment { security, ..world.attachment(pod, last, backend.clone()) });
            assert!(!wiring.make(&desired).await.unwrap().done.is_empty());
            assert!(wiring.plan(&desired).await.unwrap().is_empty());
            assert!(wiring.make(&desired).await.unwrap().done.is_empty());
        }
    });
    assert!(switch.flows().len() > 10, "{:?}", switch.flows());
}
