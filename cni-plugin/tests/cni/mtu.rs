//! What the wire behind a bridge carries bounds what an interface may be given.

use serde_json::json;

use crate::host::Host;
use crate::plugin::{Call, config};

#[test]
fn what_the_wire_does_not_carry_is_refused() {
    let host = Host::with_ovs();
    for (backend, uplink) in [("linux-bridge", "up0"), ("ovs", "up1")] {
        host.netns.run(&format!("ip link add {uplink} mtu 1400 type veth peer name far-{uplink}"));
        host.netns.run(&format!("ip link set {uplink} up"));
        match backend {
            "ovs" => drop(host.ovs().vsctl(&format!("add-port ovs0 {uplink}")).unwrap()),
            _ => drop(host.netns.run(&format!("ip link set {uplink} master br0"))),
        }
        let pod = host.pod();
        let call = Call::new(backend, &pod.path, &config(&host, "1.1.0", backend));
        let error = call.with("mtu", json!(1500)).run().unwrap_err();
        assert_eq!(error["code"], 7, "{error}");
        let expected = format!("`mtu` of network `lab` is 1500, but `{uplink}`, which it goes by, has 1400");
        assert_eq!(error["msg"], expected);
        assert!(pod.links().is_empty());

        for (call, expected) in [(call.clone(), 1400), (call.with("mtu", json!(1300)), 1300)] {
            call.run().unwrap();
            assert_eq!(pod.ip("link show dev net1")[0]["mtu"], expected, "{backend}");
            call.verb("DEL").run().unwrap();
        }
        // What is raised on the wire counts at once.
        host.netns.run(&format!("ip link set {uplink} mtu 9000"));
        crate::host::eventually("the switch sees it", || {
            let call = call.with("mtu", json!(9000));
            call.run().map_err(|error| error.to_string())?;
            assert_eq!(pod.ip("link show dev net1")[0]["mtu"], 9000, "{backend}");
            call.verb("DEL").run().map(drop).map_err(|error| error.to_string())
        });
    }
}

#[test]
fn ports_of_ours_do_not_bound_others() {
    let host = Host::started();
    let pods = [host.pod(), host.pod()];
    for (pod, mtu) in pods.iter().zip([1300, 9000]) {
        let call = Call::new(&format!("c{mtu}"), &pod.path, &config(&host, "1.1.0", "linux-bridge"));
        call.with("mtu", json!(mtu)).run().unwrap();
        assert_eq!(pod.ip("link show dev net1")[0]["mtu"], mtu);
    }
}
