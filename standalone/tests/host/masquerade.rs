//! A masqueraded guest of a pod network with IPv6.

use std::fs;

use serde_json::json;

use crate::console::Console;
use crate::world::{LAN, LONG, World, eventually, vm};

/// It is reached at the IPv6 address of its sandbox, and reaches others from there, with the addresses inside that
/// cloud-init's network data gives it, as with KubeVirt.
#[test]
fn a_masqueraded_guest_speaks_ipv6_by_its_sandbox() {
    let mut world = World::new();
    world.stop();
    let network = json!({
        "cniVersion": "1.1.0", "name": "pods", "plugins": [{
            "type": "holdfast", "agentSocket": world.path("r/cni.sock"), "backend": "linux-bridge", "bridge": "hf-pod0",
            "bridgeGateway": {"masquerade": true}, "defaultRoute": true,
            "subnets": [{"cidr": "10.89.0.0/16", "gateway": "10.89.0.1"}, {"cidr": "fd00:89::/64", "gateway": "fd00:89::1"}],
        }],
    });
    fs::write(world.path("pods.json"), network.to_string()).unwrap();
    world.start();
    world.write("lan.yaml", LAN);
    world.write("vm.yaml", &vm("a", "Always", "{}", "lan"));
    let vmi = world.running("a", None);
    let nic = crate::nic(&vmi, "default");
    let addresses: Vec<_> = nic["ipAddresses"].as_array().unwrap().iter().map(|a| a.as_str().unwrap()).collect();
    let outside = *addresses.iter().find(|address| address.starts_with("fd00:89::")).expect("an IPv6 address");
    assert!(addresses.iter().any(|address| address.starts_with("10.89.")), "{addresses:?}");

    let mut console = Console::open(&world, "a");
    console.log_in();
    console.run(&format!(
        "n=$(grep -l {} /sys/class/net/*/address | cut -d/ -f5); ip -6 addr add fd10:0:2::2/120 dev $n; \
         ip -6 route add default via fd10:0:2::1",
        nic["mac"].as_str().unwrap()
    ));
    eventually("the guest answers at the IPv6 address of its sandbox", LONG, || {
        world.host.try_sh(&format!("ping -6 -q -c 1 -W 1 {outside}")).then_some(())
    });
    console.run("ping -6 -c 1 -W 5 fd00:89::1");
    let get = format!(
        "exec 3<>/dev/tcp/{outside}/80 && printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3 && timeout 2 grep -q '200 OK' <&3"
    );
    assert!(world.host.command("bash").args(["-c", &get]).status().unwrap().success());
    console.close();
}
