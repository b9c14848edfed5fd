//! Attachments on Linux bridges.

use std::time::{Duration, Instant};

use holdfast_net::attachment::{desired, host_ifname};
use holdfast_net::desired::DesiredState;
use holdfast_net::model::{Attachment, AttachmentId, Backend, BridgeGateway, MacAddr, PortSecurity, Vlan};
use holdfast_net::plan::{Plan, PlanError};

use crate::frames::{Wire, tagged, udp4};
use crate::pods::reconcile_all;
use crate::traffic::{assert_reaches, assert_streams, echo_udp, seen_as};
use crate::world::{Netns, World, ifname, settle};

fn on_bridge() -> Backend {
    Backend::LinuxBridge { bridge: ifname("br0"), vlan: Vlan::Untagged, gateway: None }
}

fn with_gateway() -> Backend {
    let addresses = vec!["10.7.0.1/24".parse().unwrap()];
    Backend::LinuxBridge {
        bridge: ifname("hf-pod0"),
        vlan: Vlan::Untagged,
        gateway: Some(BridgeGateway { addresses, masquerade: true }),
    }
}

fn world_with_bridge() -> World {
    let world = World::new();
    world.host.ip("link add br0 type bridge");
    world.host.ip("link set br0 up");
    world
}

fn ids(attachments: &[Attachment]) -> Vec<AttachmentId> {
    attachments.iter().map(|attachment| attachment.id.clone()).collect()
}

#[test]
fn two_pods_talk_and_leave_nothing() {
    let world = world_with_bridge();
    let (one, two) = (world.netns(), world.netns());
    let attachments = [world.attachment(&one, 11, on_bridge()), world.attachment(&two, 12, on_bridge())];
    world.wire(None, async |wiring| {
        for attachment in &attachments {
            settle(&wiring, &desired(attachment)).await;
        }
        assert_eq!(wiring.owned().await.unwrap(), {
            let mut ids = ids(&attachments);
            ids.sort();
            ids
        });
    });
    assert_eq!(assert_reaches(&one, &two, "10.7.0.12").to_string(), "10.7.0.11");
    assert_streams(&one, &two, "10.7.0.12");
    let eth0 = one.ip("-d link show eth0");
    assert!(eth0.contains("mtu 1400") && eth0.contains("02:00:00:00:01:0b"), "{eth0}");
    let route = one.ip("route show proto 72");
    assert!(route.contains("default via 10.7.0.1 dev eth0"), "{route}");

    world.wire(None, async |wiring| {
        wiring.remove(&ids(&attachments)).await.unwrap();
        assert!(wiring.owned().await.unwrap().is_empty());
        // What is gone is a success.
        assert!(wiring.remove(&ids(&attachments)).await.unwrap().done.is_empty());
    });
    assert_eq!(world.host.links(), ["br0"]);
    assert_eq!(one.links(), Vec::<String>::new());
}

#[test]
fn the_gateway_bridge_comes_with_the_first_pod_and_goes_with_the_last() {
    let world = World::new();
    let outside = world.netns();
    let (one, two) = (world.netns(), world.netns());
    world.host.ip(&format!("link add up0 type veth peer name eth0 netns {}", outside.path().display()));
    world.host.ip("addr add 192.0.2.1/24 dev up0");
    world.host.ip("link set up0 up");
    outside.ip("addr add 192.0.2.2/24 dev eth0");
    outside.ip("link set eth0 up");
    let attachments = [world.attachment(&one, 11, with_gateway()), world.attachment(&two, 12, with_gateway())];
    world.wire(None, async |wiring| {
        for result in reconcile_all(&wiring, &attachments).await {
            result.unwrap();
        }
        for attachment in &attachments {
            assert!(wiring.plan(&desired(attachment)).await.unwrap().is_empty());
        }
    });
    assert_eq!(assert_reaches(&one, &two, "10.7.0.12").to_string(), "10.7.0.11");
    assert_eq!(assert_reaches(&one, &outside, "192.0.2.2").to_string(), "192.0.2.1", "not masqueraded");
    assert_streams(&two, &outside, "192.0.2.2");

    world.wire(None, async |wiring| {
        wiring.remove(&ids(&attachments[..1])).await.unwrap();
        assert!(wiring.plan(&desired(&attachments[1])).await.unwrap().is_empty());
        wiring.remove(&ids(&attachments[1..])).await.unwrap();
    });
    assert_eq!(world.host.links(), ["up0"]);
    assert_eq!(world.host.tables(), "");
}

#[test]
fn a_rule_that_somebody_took_away_comes_back() {
    let world = World::new();
    let pod = world.netns();
    let attachment = world.attachment(&pod, 11, with_gateway());
    world.wire(None, async |wiring| settle(&wiring, &desired(&attachment)).await);
    world.host.command("nft flush table inet holdfast-hf-pod0");
    world.host.ip("link set hf-pod0 down");
    pod.ip("addr del 10.7.0.11/24 dev eth0");
    world.wire(None, async |wiring| {
        let plan = wiring.plan(&desired(&attachment)).await.unwrap().to_string();
        assert!(plan.contains("replace table inet holdfast-hf-pod0"), "{plan}");
        settle(&wiring, &desired(&attachment)).await;
    });
}

#[test]
fn what_is_missing_or_taken_is_named() {
    let world = World::new();
    let pod = world.netns();
    let attachment = world.attachment(&pod, 11, on_bridge());
    world.wire(None, async |wiring| {
        let error = wiring.reconcile(&desired(&attachment)).await.unwrap_err();
        assert_eq!(error.to_string(), "failed to find Linux bridge `br0` in network namespace `host`");
        assert_eq!(error.reason(), "BridgeNotFound");

        world.host.ip("link add br0 type veth peer name br1");
        let error = wiring.reconcile(&desired(&attachment)).await.unwrap_err();
        assert_eq!(error.reason(), "NotABridge");
        world.host.ip("link del br0");
        world.host.ip("link add br0 type bridge");

        let name = host_ifname(&attachment.id);
        world.host.ip(&format!("link add {name} type bridge"));
        let error = wiring.reconcile(&desired(&attachment)).await.unwrap_err();
        assert_eq!(error.reason(), "NameTaken");
        // Somebody else's: neither teardown touches it.
        wiring.remove(std::slice::from_ref(&attachment.id)).await.unwrap();
        assert_eq!(world.host.links(), ["br0".to_owned(), name.to_string()]);
        world.host.ip(&format!("link del {name}"));

        let gone = Attachment { netns: "/nonexistent/netns".into(), ..attachment.clone() };
        let error = wiring.reconcile(&desired(&gone)).await.unwrap_err();
        assert_eq!(error.to_string(), "failed to find network namespace `/nonexistent/netns`");
    });
    assert_eq!(world.host.links(), ["br0"]);
}

#[test]
fn a_crash_after_any_step_converges() {
    let world = world_with_bridge();
    let steps = {
        let pod = world.netns();
        let attachment = world.attachment(&pod, 11, with_gateway());
        world.wire(None, async |wiring| wiring.plan(&desired(&attachment)).await.unwrap().ops.len())
    };
    assert!(steps > 10, "{steps}");
    for crash_after in 0..=steps {
        let pod = world.netns();
        let attachment = world.attachment(&pod, 11, with_gateway());
        world.wire(None, async |wiring| {
            let desired = desired(&attachment);
            let Plan { mut ops } = wiring.plan(&desired).await.unwrap();
            ops.truncate(crash_after);
            wiring.apply(&desired, &Plan { ops }).await.unwrap();
            if crash_after % 2 == 0 {
                settle(&wiring, &desired).await;
            }
            wiring.remove(&ids(std::slice::from_ref(&attachment))).await.unwrap();
        });
        assert_eq!(world.host.links(), ["br0"], "after {crash_after} steps");
        assert_eq!(world.host.tables(), "", "after {crash_after} steps");
    }
}

#[test]
fn many_go_in_one_group() {
    let world = world_with_bridge();
    let pods: Vec<Netns> = (0..50).map(|_| world.netns()).collect();
    let attachments: Vec<Attachment> =
        pods.iter().zip(10..).map(|(pod, number)| world.attachment(pod, number, on_bridge())).collect();
    world.wire(None, async |wiring| {
        let mut times = Vec::new();
        for attachment in &attachments {
            let desired = desired(attachment);
            let start = Instant::now();
            wiring.reconcile(&desired).await.unwrap();
            times.push(start.elapsed());
        }
        times.sort();
        println!("linux-bridge ADD: p50 {:?}, p95 {:?}", times[25], times[47]);
        let keep = &attachments[49];
        let start = Instant::now();
        wiring.remove(&ids(&attachments[..49])).await.unwrap();
        println!("remove of 49: {:?}", start.elapsed());
        assert_eq!(world.host.links(), ["br0".to_owned(), host_ifname(&keep.id).to_string()]);
        assert!(wiring.plan(&desired(keep)).await.unwrap().is_empty());
    });
}

#[test]
fn a_plan_error_names_a_veth_without_its_other_end() {
    let world = world_with_bridge();
    let pod = world.netns();
    let mut lone: DesiredState = desired(&world.attachment(&pod, 11, on_bridge()));
    for namespace in lone.namespaces.values_mut() {
        namespace.links.remove(&ifname("eth0"));
    }
    world.wire(None, async |wiring| {
        let error = wiring.reconcile(&lone).await.unwrap_err();
        let expected = matches!(error, holdfast_net::kernel::WiringError::Plan(PlanError::LoneVeth(_)));
        assert!(expected, "{error}");
    });
}

/// A bridge that keeps VLANs apart; none where the kernel has none.
fn world_with_vlans() -> Option<World> {
    let world = world_with_bridge();
    let filtering = world.host.run(|| {
        let set = ["link", "set", "br0", "type", "bridge", "vlan_filtering", "1"];
        std::process::Command::new("ip").args(set).status().unwrap().success()
    });
    let sysfs = world.host.ip("-d link show br0").contains("vlan_filtering 1");
    if filtering && sysfs {
        return Some(world);
    }
    assert!(std::env::var_os("HOLDFAST_LANE").is_none(), "the kernel has no VLANs on bridges");
    println!("skipped: VLANs on Linux bridges: this kernel has none");
    None
}

fn in_vlan(vlan: Vlan) -> Backend {
    Backend::LinuxBridge { bridge: ifname("br0"), vlan, gateway: None }
}

#[test]
fn pods_of_one_vlan_talk_and_those_of_another_do_not() {
    let Some(world) = world_with_vlans() else { return };
    let pods = [world.netns(), world.netns(), world.netns()];
    let vlans = [Vlan::Access(10), Vlan::Access(10), Vlan::Access(20)];
    let attachments: Vec<Attachment> =
        (0..3).map(|n| world.attachment(&pods[n], 11 + n as u8, in_vlan(vlans[n].clone()))).collect();
    world.wire(None, async |wiring| {
        for attachment in &attachments {
            settle(&wiring, &desired(attachment)).await;
        }
    });
    assert_reaches(&pods[0], &pods[1], "10.7.0.12");
    assert_streams(&pods[0], &pods[1], "10.7.0.12");
    let _echo = echo_udp(&pods[2], 7);
    assert_eq!(seen_as(&pods[0], "10.7.0.13:7".parse().unwrap(), Duration::from_millis(500)), None);

    let name = host_ifname(&attachments[2].id);
    world.wire(None, async |wiring| {
        // What somebody changes is put right; nobody is left in the bridge's default VLAN.
        for drift in [
            format!("vlan add dev {name} vid 10 pvid untagged"),
            format!("vlan add dev {name} vid 1"),
            format!("vlan del dev {name} vid 20"),
        ] {
            world.host.command(&format!("bridge {drift}"));
            let plan = wiring.plan(&desired(&attachments[2])).await.unwrap().to_string();
            assert!(plan.contains("vlan 20 pvid untagged"), "{drift}: {plan}");
            settle(&wiring, &desired(&attachments[2])).await;
        }
        // As a trunk whose untagged frames are of the others' VLAN.
        let trunk = Vlan::Trunk { tags: vec![30, 31, 32, 40], native: Some(10) };
        let moved = Attachment { backend: in_vlan(trunk), ..attachments[2].clone() };
        settle(&wiring, &desired(&moved)).await;
    });
    assert!(seen_as(&pods[0], "10.7.0.13:7".parse().unwrap(), Duration::from_secs(10)).is_some());
    // A tag of the trunk comes to a port of that VLAN, without it.
    let (last, frame) = (world.netns(), udp4([2, 0, 0, 0, 1, 13], [10, 7, 0, 13].into(), (1, 4242)));
    let attachment = world.attachment(&last, 14, in_vlan(Vlan::Access(31)));
    world.wire(None, async |wiring| settle(&wiring, &desired(&attachment)).await);
    let (sender, receiver) = (Wire::open(&pods[2]), Wire::open(&last));
    sender.send(&tagged(&udp4([2, 0, 0, 0, 1, 13], [10, 7, 0, 13].into(), (2, 4242)), 30));
    assert!(sender.comes_out_at(&receiver, &tagged(&frame, 31), &frame), "the tag is not taken off");
}

#[test]
fn a_port_with_security_may_have_the_tags_of_its_trunk() {
    let Some(world) = world_with_vlans() else { return };
    let (one, two) = (world.netns(), world.netns());
    let security = PortSecurity { macs: [MacAddr([2, 0, 0, 0, 1, 11])].into(), ipv4: None, ipv6: None };
    let trunk = Vlan::Trunk { tags: vec![7], native: None };
    let attachments = [
        Attachment { security: Some(security), ..world.attachment(&one, 11, in_vlan(trunk)) },
        world.attachment(&two, 12, in_vlan(Vlan::Access(7))),
    ];
    world.wire(None, async |wiring| {
        for attachment in &attachments {
            settle(&wiring, &desired(attachment)).await;
        }
    });
    let (sender, receiver) = (Wire::open(&one), Wire::open(&two));
    let frame = |mac| udp4(mac, [10, 7, 0, 11].into(), (1, 4242));
    assert!(sender.comes_out_at(&receiver, &tagged(&frame([2, 0, 0, 0, 1, 11]), 7), &frame([2, 0, 0, 0, 1, 11])));
}

#[test]
fn a_bridge_that_keeps_no_vlans_apart_is_left_as_it_is() {
    let world = world_with_bridge();
    let pod = world.netns();
    let attachment = world.attachment(&pod, 11, in_vlan(Vlan::Access(10)));
    world.wire(None, async |wiring| {
        let error = wiring.reconcile(&desired(&attachment)).await.unwrap_err();
        assert_eq!(error.reason(), "VlanFilteringOff");
        assert!(error.to_string().contains("`ip link set br0 type bridge vlan_filtering 1`"), "{error}");
    });
    assert_eq!(pod.links(), Vec::<String>::new());
}
