//! Attachments on an Open vSwitch bridge with a userspace datapath.

use std::time::{Duration, Instant};

use holdfast_net::attachment::{desired, host_ifname};
use holdfast_net::model::{Attachment, AttachmentId, Backend, TunnelProtocol, Vlan};
use holdfast_net::plan::Plan;

use crate::frames::{Wire, tagged, udp4};
use crate::pods::reconcile_all;
use crate::switch::Switch;
use crate::traffic::{assert_reaches, assert_streams, echo_udp, seen_as};
use crate::world::{Netns, World, chain, settle};

fn on_ovs(vlan: Vlan) -> Backend {
    Backend::Ovs { bridge: "br0".to_owned(), vlan }
}

fn ids(attachments: &[Attachment]) -> Vec<AttachmentId> {
    attachments.iter().map(|attachment| attachment.id.clone()).collect()
}

#[test]
fn pods_of_one_vlan_talk_and_those_of_another_do_not() {
    let world = World::new();
    let switch = Switch::start(&world);
    let pods = [world.netns(), world.netns(), world.netns()];
    let vlans = [Vlan::Access(10), Vlan::Access(10), Vlan::Access(20)];
    let attachments: Vec<Attachment> =
        (0..3).map(|n| world.attachment(&pods[n], 11 + n as u8, on_ovs(vlans[n].clone()))).collect();
    world.wire(Some(&switch.socket()), async |wiring| {
        for attachment in &attachments {
            settle(&wiring, &desired(attachment)).await;
        }
    });
    assert_eq!(assert_reaches(&pods[0], &pods[1], "10.7.0.12").to_string(), "10.7.0.11");
    assert_streams(&pods[0], &pods[1], "10.7.0.12");
    let _echo = echo_udp(&pods[2], 7);
    assert_eq!(seen_as(&pods[0], "10.7.0.13:7".parse().unwrap(), Duration::from_millis(500)), None);

    // To another VLAN, as a trunk, and back: a change in place.
    let name = host_ifname(&attachments[2].id);
    world.wire(Some(&switch.socket()), async |wiring| {
        let trunk = Vlan::Trunk { tags: vec![30, 10], native: Some(20) };
        for vlan in [trunk, Vlan::Untagged, Vlan::Trunk { tags: vec![5], native: None }, Vlan::Access(10)] {
            let moved = Attachment { backend: on_ovs(vlan), ..attachments[2].clone() };
            settle(&wiring, &desired(&moved)).await;
        }
    });
    assert_eq!(switch.vsctl(&format!("get port {name} tag vlan_mode trunks")), "10\naccess\n[]\n");
    assert!(seen_as(&pods[0], "10.7.0.13:7".parse().unwrap(), Duration::from_secs(10)).is_some());

    world.wire(Some(&switch.socket()), async |wiring| {
        let mut expected = ids(&attachments);
        expected.sort();
        assert_eq!(wiring.owned().await.unwrap(), expected);
        wiring.remove(&expected).await.unwrap();
        assert!(wiring.owned().await.unwrap().is_empty());
    });
    assert_eq!(switch.ports(), Vec::<String>::new());
    assert!(world.host.links().iter().all(|link| !link.starts_with("hf")), "{:?}", world.host.links());
}

#[test]
fn ports_of_many_pods_go_in_at_once() {
    let world = World::new();
    let switch = Switch::start(&world);
    let pods: Vec<Netns> = (0..20).map(|_| world.netns()).collect();
    let attachments: Vec<Attachment> =
        pods.iter().zip(10..).map(|(pod, number)| world.attachment(pod, number, on_ovs(Vlan::Access(10)))).collect();
    world.wire(Some(&switch.socket()), async |wiring| {
        let mut times = Vec::new();
        for attachment in &attachments[..10] {
            let desired = desired(attachment);
            let start = Instant::now();
            wiring.reconcile(&desired).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
            times.push(start.elapsed());
        }
        times.sort();
        println!("ovs ADD: p50 {:?}, max {:?}", times[5], times[9]);
        let start = Instant::now();
        for result in reconcile_all(&wiring, &attachments[10..]).await {
            result.unwrap();
        }
        println!("ovs ADD of 10 at once: {:?}", start.elapsed());
        for attachment in &attachments {
            assert!(wiring.plan(&desired(attachment)).await.unwrap().is_empty());
        }
        let start = Instant::now();
        wiring.remove(&ids(&attachments)).await.unwrap();
        println!("ovs remove of 20: {:?}", start.elapsed());
    });
    assert_eq!(switch.ports(), Vec::<String>::new());
}

#[test]
fn a_switch_that_comes_back_is_read_anew() {
    let world = World::new();
    let mut switch = Switch::start(&world);
    let (one, two) = (world.netns(), world.netns());
    let attachments =
        [world.attachment(&one, 11, on_ovs(Vlan::Access(10))), world.attachment(&two, 12, on_ovs(Vlan::Access(10)))];
    let socket = switch.socket();
    world.wire(Some(&socket), async |wiring| {
        settle(&wiring, &desired(&attachments[0])).await;
        switch.kill();
        std::fs::remove_file(&socket).unwrap();
        let error = wiring.reconcile(&desired(&attachments[1])).await.unwrap_err();
        assert_eq!(error.reason(), "OpenVSwitchUnavailable", "{}", chain(&error));
        switch.boot();
        let name = host_ifname(&attachments[0].id);
        // Behind our back, over another connection.
        switch.vsctl(&format!("set port {name} tag=99"));
        let plan = wiring.plan(&desired(&attachments[0])).await.unwrap().to_string();
        assert!(plan.contains("access 10"), "{plan}");
        for attachment in &attachments {
            settle(&wiring, &desired(attachment)).await;
        }
    });
    assert_reaches(&one, &two, "10.7.0.12");
    world.wire(Some(&socket), async |wiring| {
        switch.vsctl("add-port br0 foreign0 -- set interface foreign0 type=internal");
        wiring.remove(&ids(&attachments)).await.unwrap();
    });
    assert_eq!(switch.ports(), ["foreign0"]);
}

#[test]
fn a_teardown_does_what_it_can_while_the_switch_is_away() {
    let world = World::new();
    let mut switch = Switch::start(&world);
    let pod = world.netns();
    let attachment = world.attachment(&pod, 11, on_ovs(Vlan::Access(10)));
    let id = std::slice::from_ref(&attachment.id);
    world.wire(Some(&switch.socket()), async |wiring| {
        settle(&wiring, &desired(&attachment)).await;
        // Its socket stays, and nobody listens.
        switch.kill();
        // Until the client has noticed, it answers from what it knew.
        let until = Instant::now() + Duration::from_secs(20);
        let error = loop {
            match wiring.plan(&desired(&attachment)).await {
                Ok(_) => assert!(Instant::now() < until, "the client does not notice"),
                Err(error) => break error,
            }
        };
        assert_eq!(error.reason(), "OpenVSwitchUnavailable", "{}", chain(&error));
        let error = wiring.remove(id).await.unwrap_err();
        assert_eq!(error.reason(), "OpenVSwitchUnavailable", "{}", chain(&error));
        assert_eq!(pod.links(), Vec::<String>::new());
        switch.boot();
        wiring.remove(id).await.unwrap();
    });
    assert_eq!(switch.ports(), Vec::<String>::new());
}

#[test]
fn what_is_missing_or_taken_is_named() {
    let world = World::new();
    let switch = Switch::start(&world);
    let pod = world.netns();
    let attachment = world.attachment(&pod, 11, on_ovs(Vlan::Untagged));
    let nowhere = Backend::Ovs { bridge: "br-none".to_owned(), vlan: Vlan::Untagged };
    world.wire(Some(&switch.socket()), async |wiring| {
        let lost = Attachment { backend: nowhere, ..attachment.clone() };
        let error = wiring.reconcile(&desired(&lost)).await.unwrap_err();
        assert_eq!(error.to_string(), "failed to find OVS bridge `br-none`");
        let name = host_ifname(&attachment.id);
        switch.vsctl(&format!("add-port br0 {name} -- set interface {name} type=internal"));
        world.host.ip(&format!("link show {name}"));
        let error = wiring.reconcile(&desired(&attachment)).await.unwrap_err();
        assert_eq!(error.reason(), "NameTaken", "{}", chain(&error));
        wiring.remove(std::slice::from_ref(&attachment.id)).await.unwrap();
        assert_eq!(switch.ports(), [name.to_string()]);
        switch.vsctl(&format!("del-port {name}"));
    });
    world.wire(None, async |wiring| {
        let error = wiring.reconcile(&desired(&attachment)).await.unwrap_err();
        assert_eq!(error.reason(), "OpenVSwitchUnavailable");
    });
    assert_eq!(pod.links(), Vec::<String>::new());
}

#[test]
fn a_crash_after_any_step_converges() {
    let world = World::new();
    let switch = Switch::start(&world);
    let mut crash_after = 0;
    loop {
        let pod = world.netns();
        let attachment = world.attachment(&pod, 11, on_ovs(Vlan::Access(10)));
        let steps = world.wire(Some(&switch.socket()), async |wiring| {
            let desired = desired(&attachment);
            let Plan { mut ops } = wiring.plan(&desired).await.unwrap();
            let steps = ops.len();
            ops.truncate(crash_after);
            wiring.apply(&desired, &Plan { ops }).await.unwrap();
            if crash_after % 2 == 0 {
                settle(&wiring, &desired).await;
            }
            wiring.remove(&ids(std::slice::from_ref(&attachment))).await.unwrap();
            steps
        });
        assert_eq!(switch.ports(), Vec::<String>::new(), "after {crash_after} steps");
        assert!(world.host.links().iter().all(|link| !link.starts_with("hf")), "after {crash_after} steps");
        if crash_after == steps {
            return;
        }
        crash_after += 1;
    }
}

#[test]
fn a_port_whose_link_went_is_taken_in_again() {
    let world = World::new();
    let switch = Switch::start(&world);
    let (one, two) = (world.netns(), world.netns());
    let attachments =
        [world.attachment(&one, 11, on_ovs(Vlan::Untagged)), world.attachment(&two, 12, on_ovs(Vlan::Untagged))];
    world.wire(Some(&switch.socket()), async |wiring| {
        for attachment in &attachments {
            settle(&wiring, &desired(attachment)).await;
        }
        one.ip("link del eth0");
        settle(&wiring, &desired(&attachments[0])).await;
    });
    assert_reaches(&one, &two, "10.7.0.12");
    assert_streams(&two, &one, "10.7.0.11");
}

/// A pod's own VLAN through a tunnel of the switch, and what a trunk sees of it: both tags.
/// Returns when something is so: what somebody else writes into the database is told a moment later.
async fn heard(so: impl AsyncFn() -> bool) {
    let wait = async {
        while !so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait).await.expect("the database tells of it");
}

#[test]
fn vlans_of_a_pod_travel_inside_of_one() {
    let world = World::new();
    let switch = Switch::start(&world);
    let (pod, other, wire) = (world.netns(), world.netns(), world.netns());
    let tunnel = Vlan::Tunnel { outer: 100, customers: vec![7], protocol: TunnelProtocol::Ieee8021ad };
    let attachments =
        [world.attachment(&pod, 11, on_ovs(tunnel.clone())), world.attachment(&other, 12, on_ovs(tunnel))];
    world.host.ip(&format!("link add up0 type veth peer name eth0 netns {}", wire.path().display()));
    world.host.ip("link set up0 up");
    wire.ip("link set eth0 up");
    switch.vsctl("add-port br0 up0");
    world.wire(Some(&switch.socket()), async |wiring| {
        let error = wiring.reconcile(&desired(&attachments[0])).await.unwrap_err();
        assert_eq!(error.reason(), "VlanLimitTooLow", "{}", chain(&error));
        assert!(error.to_string().contains("`ovs-vsctl set Open_vSwitch . other_config:vlan-limit=2`"), "{error}");
        switch.vsctl("set Open_vSwitch . other_config:vlan-limit=2");
        heard(async || wiring.reconcile(&desired(&attachments[0])).await.is_ok()).await;
        for attachment in &attachments {
            settle(&wiring, &desired(attachment)).await;
        }
        let name = host_ifname(&attachments[0].id);
        for drift in ["cvlans=8", "other_config:qinq-ethtype=802.1q", "vlan_mode=access"] {
            switch.vsctl(&format!("set port {name} {drift}"));
            let planned = async || wiring.plan(&desired(&attachments[0])).await.unwrap().to_string();
            heard(async || planned().await.contains("tunnel 100 (802.1ad) 7")).await;
            settle(&wiring, &desired(&attachments[0])).await;
        }
    });
    let (sender, heard, through) = (Wire::open(&pod), Wire::open(&wire), Wire::open(&other));
    let frame = |vlan| tagged(&udp4([2, 0, 0, 0, 1, 11], [10, 7, 0, 11].into(), (vlan, 4242)), vlan);
    // What is none of the pod's VLANs stays behind; the wire has both tags, and the pod its own.
    for (at, tags) in [(&heard, vec![(0x88a8, 100), (0x8100, 7)]), (&through, vec![(0x8100, 7)])] {
        sender.send(&frame(8));
        assert_eq!(sender.tags_until(at, &frame(7), Duration::from_secs(10)), tags);
    }
}
