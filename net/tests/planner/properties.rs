//! What holds for every plan.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use holdfast_net::desired::{DesiredState, Netns};
use holdfast_net::mark::LinkMark;
use holdfast_net::model::{
    Attachment, AttachmentId, Backend, Bandwidth, Binding, BindingMethod, BridgeGateway, Delivery, ForwardedPort,
    MacvlanMode, PodInterface, PortSecurity, Protocol, Rate, StaticRoute, TunnelProtocol, Vlan, VlanFlags,
};
use holdfast_net::observed::{Master, ObservedGuard, ObservedKind, ObservedLink, ObservedState};
use holdfast_net::plan::{Op, Plan, plan};
use holdfast_net::{attachment, binding};
use proptest::prelude::*;

use crate::fake::{Fake, name};

/// One pod of a random world: its attachment, and how a VM is bound to it.
#[derive(Clone, Debug)]
struct Pod {
    attachment: Attachment,
    binding: Option<Binding>,
}

impl Pod {
    fn desired(&self) -> DesiredState {
        let state = attachment::desired(&self.attachment);
        match &self.binding {
            Some(bound) => state.merge(binding::desired(bound).unwrap()).unwrap(),
            None => state,
        }
    }
}

fn vlan() -> impl Strategy<Value = Vlan> {
    prop_oneof![
        Just(Vlan::Untagged),
        (1..4095u16).prop_map(Vlan::Access),
        (proptest::collection::vec(1..4095u16, 1..4), proptest::option::of(1..4095u16))
            .prop_map(|(tags, native)| Vlan::Trunk { tags, native }),
        (1..4095u16, proptest::collection::vec(1..4095u16, 0..3)).prop_map(|(outer, customers)| Vlan::Tunnel {
            outer,
            customers,
            protocol: TunnelProtocol::Ieee8021q,
        }),
    ]
}

fn backend() -> impl Strategy<Value = Backend> {
    let gateway = BridgeGateway { addresses: vec!["10.7.0.1/24".parse().unwrap()], masquerade: true };
    prop_oneof![
        vlan().prop_map(|vlan| Backend::Ovs { bridge: "br0".to_owned(), vlan }),
        vlan()
            .prop_filter("only Open vSwitch tunnels", |vlan| !matches!(vlan, Vlan::Tunnel { .. }))
            .prop_map(|vlan| Backend::LinuxBridge { bridge: name("br0"), vlan, gateway: None }),
        Just(Backend::LinuxBridge { bridge: name("hf-pod0"), vlan: Vlan::Untagged, gateway: Some(gateway) }),
        any::<bool>().prop_map(|guest| Backend::Macvtap { uplink: name("up0"), mode: MacvlanMode::Bridge, guest }),
    ]
}

fn method() -> impl Strategy<Value = BindingMethod> {
    let port = (1..9u16).prop_map(|port| ForwardedPort { protocol: Protocol::Tcp, port });
    prop_oneof![
        Just(BindingMethod::Bridge),
        Just(BindingMethod::Macvtap),
        proptest::collection::vec(port, 0..3).prop_map(|ports| BindingMethod::Masquerade {
            cidr: "10.0.2.0/24".parse().unwrap(),
            cidr_v6: "fd10:0:2::/120".parse().unwrap(),
            ports
        }),
    ]
}

fn security(number: usize) -> impl Strategy<Value = Option<PortSecurity>> {
    let mac = format!("02:00:00:00:00:{number:02x}").parse().unwrap();
    let address: Ipv4Addr = format!("10.7.0.{}", number + 2).parse().unwrap();
    let secured = move |limited: bool| PortSecurity {
        macs: [mac].into(),
        ipv4: limited.then(|| [address.into(), "10.9.0.0/16".parse().unwrap()].into()),
        ipv6: limited.then(Default::default),
    };
    proptest::option::of(any::<bool>().prop_map(secured))
}

fn pod(number: usize) -> impl Strategy<Value = Pod> {
    (backend(), security(number), 576..9000u32, any::<bool>(), proptest::option::of((method(), 1..5u32, any::<bool>())))
        .prop_map(move |(backend, security, mtu, shaped, bound)| {
            let netns = PathBuf::from(format!("/pods/{number}"));
            let routes = vec![StaticRoute {
                destination: "0.0.0.0/0".parse().unwrap(),
                gateway: Some("10.7.0.1".parse().unwrap()),
            }];
            let attachment = Attachment {
                id: AttachmentId { container_id: format!("c{number}"), ifname: name("eth0") },
                netns: netns.clone(),
                backend,
                mac: format!("02:00:00:00:00:{number:02x}").parse().unwrap(),
                mtu,
                addresses: vec![format!("10.7.0.{}/24", number + 2).parse().unwrap()],
                routes,
                owner: format!("default/pod{number}/net"),
                security,
                bandwidth: Bandwidth { ingress: None, egress: shaped.then_some(Rate { rate: 1_000_000, burst: None }) },
            };
            let pod = PodInterface {
                mac: attachment.mac,
                mtu,
                addresses: attachment.addresses.clone(),
                routes: attachment.routes.clone(),
            };
            let binding = bound.map(|(method, queues, delivered)| Binding {
                nic: "default".to_owned(),
                netns,
                pod_interface: name("eth0"),
                pod,
                queues: if method == BindingMethod::Macvtap { 1 } else { queues },
                method,
                guest_mac: attachment.mac,
                tap_owner: (107, 107),
                link_up: true,
                delivery: delivered.then(Delivery::default),
                hostname: "guest".to_owned(),
            });
            Pod { attachment, binding }
        })
}

fn pods() -> impl Strategy<Value = Vec<Pod>> {
    (1..4usize).prop_flat_map(|count| (0..count).map(pod).collect::<Vec<_>>())
}

/// Links of others, here and in pods, some in our bridges' way.
fn strangers() -> impl Strategy<Value = Vec<(Option<usize>, &'static str, bool)>> {
    let link = prop_oneof![Just("eth1"), Just("docker0"), Just("hf0123456789abc"), Just("tap7"), Just("cali1")];
    proptest::collection::btree_map((proptest::option::of(0..3usize), link), any::<bool>(), 0..5)
        .prop_map(|links| links.into_iter().map(|((pod, link), bridge)| (pod, link, bridge)).collect())
}

fn world(count: usize, userspace: bool, strangers: &[(Option<usize>, &str, bool)]) -> Fake {
    let mut fake = Fake::new(count, userspace);
    for (pod, link, bridge) in strangers {
        let netns = pod.map_or(Netns::Host, |pod| Netns::Path(format!("/pods/{}", pod % count).into()));
        let kind = if *bridge {
            ObservedKind::Bridge { ports: 0, vlan_filtering: false }
        } else {
            ObservedKind::Other("dummy".into())
        };
        if !fake.state.namespaces[&netns].links.contains_key(&name(link)) {
            fake.make(&netns, &name(link), kind, LinkMark::Foreign);
            let made = fake.state.namespaces.get_mut(&netns).unwrap().links.get_mut(&name(link)).unwrap();
            made.addresses.insert("198.51.100.1/24".parse().unwrap());
        }
    }
    fake
}

/// Links of others: neither ours nor the other end of ours.
fn foreign(state: &ObservedState) -> BTreeMap<(Netns, String), ObservedLink> {
    let mut found = BTreeMap::new();
    for (netns, namespace) in &state.namespaces {
        for (link, observed) in &namespace.links {
            if observed.mark == LinkMark::Foreign && link.as_str() != "eth0" {
                found.insert((netns.clone(), link.to_string()), observed.clone());
            }
        }
    }
    found
}

/// Plans and applies; the second look must find nothing to do.
fn settle(fake: &mut Fake, desired: &DesiredState) {
    let first = plan(desired, &fake.observe()).unwrap();
    fake.apply(&first);
    // Flows name the number that a port got by the first.
    let second = plan(desired, &fake.observe()).unwrap();
    assert!(second.ops.iter().all(|op| matches!(op, Op::SetOvsFlows { .. })), "after\n{first}\nleft to do:\n{second}");
    fake.apply(&second);
    let left = plan(desired, &fake.observe()).unwrap();
    assert!(left.is_empty(), "after\n{first}\nleft to do:\n{left}");
}

/// Something that somebody else does to what is ours.
fn disturb(fake: &mut Fake, what: u8, which: usize) {
    let mut ours: Vec<(Netns, String)> = Vec::new();
    for (netns, namespace) in &fake.state.namespaces {
        let links = namespace.links.iter().filter(|(_, link)| link.mark != LinkMark::Foreign);
        ours.extend(links.map(|(link, _)| (netns.clone(), link.to_string())));
    }
    let Some((netns, link)) = ours.get(which % ours.len().max(1)).cloned() else { return };
    let link = name(&link);
    if what == 0 {
        fake.unmake(&netns, &link);
        return;
    }
    let namespace = fake.state.namespaces.get_mut(&netns).unwrap();
    let observed = namespace.links.get_mut(&link).unwrap();
    match what {
        1 => observed.mtu = 1234,
        2 => observed.up = false,
        3 => observed.mac = Some("02:ff:ff:ff:ff:ff".parse().unwrap()),
        4 => drop(observed.addresses.insert("203.0.113.9/24".parse().unwrap())),
        5 => observed.addresses.clear(),
        6 => observed.mark = LinkMark::Unnamed,
        7 => (observed.master, observed.port) = (None, None),
        8 => {
            fake.unmake(&netns, &link);
            fake.make(&netns, &link, ObservedKind::Other("ifb".into()), LinkMark::Unnamed);
        }
        9 => namespace.tables.clear(),
        10 => namespace.sysctls.values_mut().for_each(|value| *value = "0".to_owned()),
        11 => observed.master = Some(Master::Index(999)),
        12 => namespace.guard = namespace.guard.take().map(|_| ObservedGuard::default()),
        13 => namespace.guard.iter_mut().for_each(|guard| guard.rules.clear()),
        14 => namespace.guard.iter_mut().for_each(|guard| drop(guard.elements.pop_last())),
        15 => {
            if let Some(vlans) = &mut observed.vlans {
                vlans.insert(4000, VlanFlags { pvid: true, untagged: true });
            }
        }
        16 => {
            for port in fake.state.ovs.as_mut().unwrap().ports.values_mut() {
                port.flows = None;
            }
        }
        _ => {
            for port in fake.state.ovs.as_mut().unwrap().ports.values_mut() {
                port.vlan = None;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn converges_from_nothing_and_from_any_crash(
        pods in pods(), userspace: bool, strangers in strangers(), crash_after: prop::sample::Index,
    ) {
        let mut fake = world(pods.len(), userspace, &strangers);
        let before = foreign(&fake.state);
        for pod in &pods {
            let desired = pod.desired();
            let Plan { mut ops } = plan(&desired, &fake.observe()).unwrap();
            ops.truncate(crash_after.index(ops.len() + 1));
            fake.apply(&Plan { ops });
            settle(&mut fake, &desired);
        }
        for pod in &pods {
            prop_assert!(plan(&pod.desired(), &fake.observe()).unwrap().is_empty());
        }
        prop_assert_eq!(before, foreign(&fake.state));
    }

    #[test]
    fn teardown_leaves_exactly_what_is_foreign(
        pods in pods(), userspace: bool, strangers in strangers(), crash_after: prop::sample::Index,
    ) {
        let mut fake = world(pods.len(), userspace, &strangers);
        let before = fake.observe();
        for pod in &pods {
            // Half done is as good as done.
            let Plan { mut ops } = plan(&pod.desired(), &fake.observe()).unwrap();
            ops.truncate(crash_after.index(ops.len() + 1));
            fake.apply(&Plan { ops });
        }
        for pod in &pods {
            settle(&mut fake, &DesiredState::without_binding(pod.attachment.netns.clone(), "default"));
        }
        for Attachment { netns, id, .. } in pods.iter().map(|pod| &pod.attachment) {
            settle(&mut fake, &DesiredState::without_inside(netns.clone(), id.clone()));
        }
        settle(&mut fake, &DesiredState::without(pods.iter().map(|pod| &pod.attachment.id)));
        settle(&mut fake, &DesiredState::without_unused());
        let after = fake.observe();
        for (netns, namespace) in &after.namespaces {
            prop_assert_eq!(&namespace.links, &before.namespaces[netns].links);
            prop_assert!(namespace.tables.is_empty());
            prop_assert_eq!(&namespace.guard, &before.namespaces[netns].guard);
        }
        prop_assert_eq!(after.ovs, before.ovs);
    }

    #[test]
    fn drift_is_put_right(
        pods in pods(), userspace: bool, disturbances in proptest::collection::vec((0..18u8, 0..20usize), 1..4),
    ) {
        let mut fake = world(pods.len(), userspace, &[]);
        for pod in &pods {
            settle(&mut fake, &pod.desired());
        }
        for (what, which) in disturbances {
            disturb(&mut fake, what, which);
        }
        // What hangs together, such as a bridge and its ports, takes a second look when the bridge is made anew.
        for _ in 0..3 {
            for pod in &pods {
                let steps = plan(&pod.desired(), &fake.observe()).unwrap();
                fake.apply(&steps);
            }
        }
        for pod in &pods {
            let left = plan(&pod.desired(), &fake.observe()).unwrap();
            prop_assert!(left.is_empty(), "left to do:\n{}", left);
        }
    }

    #[test]
    fn one_that_goes_leaves_the_others_alone(pods in pods(), userspace: bool) {
        let mut fake = world(pods.len(), userspace, &[]);
        for pod in &pods {
            settle(&mut fake, &pod.desired());
        }
        let (gone, stay) = pods.split_first().unwrap();
        settle(&mut fake, &DesiredState::without([&gone.attachment.id]));
        settle(&mut fake, &DesiredState::without_unused());
        for pod in stay {
            prop_assert!(plan(&pod.desired(), &fake.observe()).unwrap().is_empty());
        }
    }

    #[test]
    fn is_the_same_each_time(pods in pods(), userspace: bool) {
        let fake = world(pods.len(), userspace, &[]);
        for pod in &pods {
            let first = plan(&pod.desired(), &fake.observe());
            prop_assert_eq!(first, plan(&pod.desired(), &fake.observe()));
        }
    }
}
