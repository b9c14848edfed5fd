//! What attachments and bindings of today do not ask for, and the library can: neighbours, port flags, IPv6.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_net::desired::{DesiredState, Link, LinkKind, Netns, PortFlags, Route, Tap};
use holdfast_net::mark::Mark;

use crate::world::{World, ifname, settle};

/// A bridge with a tap on it, with all that a link can have.
fn everything(netns: &Netns) -> DesiredState {
    let mark = Mark::Binding("nic".to_owned());
    let mut bridge = Link::new(LinkKind::Bridge { mark: mark.clone() });
    bridge.mac = Some("02:00:00:00:00:77".parse().unwrap());
    bridge.mtu = Some(1300);
    bridge.up = Some(true);
    bridge.addresses =
        Some(["10.9.0.1/24", "10.9.0.2/24", "2001:db8::1/64"].map(|address| address.parse().unwrap()).into());
    bridge.routes = Some(BTreeSet::from([
        Route { destination: "192.0.2.0/24".parse().unwrap(), gateway: Some("10.9.0.9".parse().unwrap()) },
        Route { destination: "198.51.100.0/24".parse().unwrap(), gateway: None },
        Route { destination: "2001:db8:1::/48".parse().unwrap(), gateway: Some("2001:db8::9".parse().unwrap()) },
        Route { destination: "::/0".parse().unwrap(), gateway: Some("2001:db8::9".parse().unwrap()) },
    ]));
    bridge.neighbours = Some(BTreeMap::from([
        ("10.9.0.9".parse().unwrap(), "02:00:00:00:00:09".parse().unwrap()),
        ("2001:db8::9".parse().unwrap(), "02:00:00:00:00:09".parse().unwrap()),
    ]));
    let tap = Tap { uid: 12, gid: 34, multi_queue: true, vnet_header: false };
    let mut port = Link::new(LinkKind::Tap { mark: mark.clone(), tap });
    port.mac = Some("02:00:00:00:00:78".parse().unwrap());
    port.master = Some(ifname("bridge"));
    port.port = PortFlags { learning: Some(false), isolated: Some(true), hairpin: Some(true) };
    port.up = Some(true);

    let mut state = DesiredState::default();
    state.claim(netns.clone(), mark);
    let namespace = state.namespace(netns);
    namespace.links.insert(ifname("bridge"), bridge);
    namespace.links.insert(ifname("tap"), port);
    state
}

#[test]
fn all_that_a_link_can_have_is_set_read_back_changed_and_removed() {
    let world = World::new();
    let pod = world.netns();
    // Of others, and left alone.
    pod.ip("link add eth0 type veth peer name eth1");
    pod.ip("addr add 203.0.113.1/24 dev eth0");
    pod.ip("link set eth0 up");
    pod.ip("route add 203.0.114.0/24 via 203.0.113.9 proto static");
    let netns = Netns::Path(pod.path().to_owned());
    let full = everything(&netns);
    world.wire(None, async |wiring| {
        settle(&wiring, &full).await;
        pod.ip("route add 203.0.115.0/24 dev bridge proto static");
        pod.ip("neigh add 10.9.0.8 lladdr 02:00:00:00:00:08 dev bridge nud permanent");
        assert!(wiring.plan(&full).await.unwrap().is_empty());

        let mut less = full.clone();
        let links = &mut less.namespace(&netns).links;
        let bridge = links.get_mut(&ifname("bridge")).unwrap();
        bridge.mtu = Some(1400);
        bridge.addresses = Some(BTreeSet::from(["10.9.0.1/24".parse().unwrap()]));
        bridge.routes = Some(BTreeSet::new());
        bridge.neighbours = Some(BTreeMap::from([("10.9.0.9".parse().unwrap(), "02:00:00:00:00:0a".parse().unwrap())]));
        let port = links.get_mut(&ifname("tap")).unwrap();
        port.port = PortFlags { learning: Some(true), isolated: Some(false), hairpin: Some(false) };
        port.master = None;
        settle(&wiring, &less).await;
        // Another owner takes another tap.
        let port = less.namespace(&netns).links.get_mut(&ifname("tap")).unwrap();
        port.kind = LinkKind::Tap {
            mark: Mark::Binding("nic".to_owned()),
            tap: Tap { uid: 56, gid: 78, multi_queue: false, vnet_header: true },
        };
        settle(&wiring, &less).await;
    });
    let neighbours = pod.ip("neigh show dev bridge nud permanent");
    assert!(neighbours.contains("10.9.0.8") && neighbours.contains("10.9.0.9 lladdr 02:00:00:00:00:0a"));
    assert!(pod.ip("route show dev bridge").contains("203.0.115.0/24"));
    world.wire(None, async |wiring| {
        settle(&wiring, &DesiredState::without_binding(pod.path().to_owned(), "nic")).await;
    });
    assert_eq!(pod.links(), ["eth0", "eth1"]);
    assert!(pod.ip("route show").contains("203.0.114.0/24"));
}
